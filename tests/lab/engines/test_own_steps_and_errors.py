"""Steps of a model's own, what XLA cannot compile, and what goes wrong: all as under `fit`."""

import logging

import keras
import numpy as np
import pytest
from keras import layers as L

from lab.engines import on_tensorflow, saying
from tests.lab.engines.beside_fit import (
    ENGINES,
    assert_same_numbers,
    assert_same_weights,
    history_of,
)

pytestmark = pytest.mark.usefixtures("in_order")
JAX = keras.backend.backend() == "jax"
tensorflow_alone = pytest.mark.skipif(JAX, reason="written with TensorFlow's own operations")
rng = np.random.default_rng(0)
x = rng.normal(size=(40, 6)).astype("float32")
y = rng.integers(0, 3, 40)
FROM_LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Tracked(keras.Model):
    """A model without `call` that keeps its own metric."""

    def __init__(self):
        super().__init__()
        self.first = keras.Sequential([keras.Input((6,)), L.Dense(2)])
        self.second = keras.Sequential([keras.Input((2,)), L.Dense(6)])
        self.seen = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.seen]

    def descend(self, optimizer, loss, weights):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = loss()
        optimizer.apply(tape.gradient(value, weights), weights)
        return value


class AutoEncoder(Tracked):
    def train_step(self, data):
        x, _ = data
        loss = self.descend(
            self.optimizer,
            lambda: keras.ops.mean((self.second(self.first(x)) - x) ** 2),
            self.trainable_weights,
        )
        self.seen.update_state(loss)
        return {"loss": self.seen.result()}

    def test_step(self, data):
        self.seen.update_state(keras.ops.mean((self.second(self.first(data[0])) - data[0]) ** 2))
        return {"loss": self.seen.result()}


class TwoPlayers(Tracked):
    """Two optimizers, as of a generative adversarial network; logs that are no metrics."""

    def compile(self, **more):
        super().compile(**more)
        self.other = keras.optimizers.Adam(0.01)
        self.other.build(self.second.trainable_variables)

    def train_step(self, data):
        x, _ = data
        one = self.descend(
            self.optimizer,
            lambda: keras.ops.mean(self.first(x) ** 2),
            self.first.trainable_variables,
        )
        two = self.descend(
            self.other,
            lambda: keras.ops.mean((self.second(self.first(x)) - x) ** 2),
            self.second.trainable_variables,
        )
        return {"first": one, "second": two}

    test_step = AutoEncoder.test_step


class Supervised(keras.Model):
    """Its own step for training alone, with `call`."""

    def __init__(self):
        super().__init__()
        self.layer = L.Dense(3)

    def build(self, shape):
        self.layer.build(shape)
        self.built = True

    def call(self, x):
        return self.layer(x)

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = 2 * self.compute_loss(x, y, self(x, training=True))
        weights = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, weights), weights)
        return {"doubled": loss}


def compiled(kind, *loss):
    model = kind()
    model.compile(optimizer="sgd", **({"loss": loss[0]} if loss else {}))
    return model


def trained(make, data, how, callbacks=(), **asked):
    """History or exception, weights, steps made and what callbacks saw."""
    keras.utils.set_random_seed(5)
    model, callbacks = make(), [one() for one in callbacks]
    asked = {"batch_size": 8, "epochs": 3, **asked}
    try:
        found = history_of(how, model, data, validation=data, callbacks=callbacks, **asked)
    except Exception as error:
        found = error
    seen = [getattr(one, "seen", None) for one in callbacks]
    return found, model.get_weights(), int(model.optimizer.iterations), seen


def assert_alike(expected, seen):
    assert type(expected[0]) is type(seen[0])
    if isinstance(expected[0], dict):
        assert_same_numbers(expected[0], seen[0], rtol=2e-5, atol=0)
    assert_same_weights(expected[1], seen[1], rtol=2e-4, atol=1e-6)
    assert expected[2:] == seen[2:]


@tensorflow_alone
@pytest.mark.parametrize("kind", [AutoEncoder, TwoPlayers, Supervised])
def test_steps_of_their_own_are_those_of_fit(kind):
    loss = [FROM_LOGITS] if kind is Supervised else []
    data = (x, y if kind is Supervised else x)
    expected = trained(lambda: compiled(kind, *loss), data, "fit")
    assert isinstance(expected[0], dict), expected[0]
    for engine in ENGINES:
        assert_alike(expected, trained(lambda: compiled(kind, *loss), data, engine))


def in_numpy(true, predicted):
    import tensorflow as tf

    score = tf.numpy_function(
        lambda t, p: np.float32(np.mean(p.argmax(-1) == t.ravel())), [true, predicted], tf.float32
    )
    score.set_shape(())
    return score


def as_python(true, predicted):
    import tensorflow as tf

    score = tf.py_function(lambda t, p: tf.reduce_mean(p), [true, predicted], tf.float32)
    score.set_shape(())
    return score


def by_letters(true, predicted):
    import tensorflow as tf

    return tf.strings.to_number(tf.strings.as_string(tf.reduce_mean(predicted)))


@tensorflow_alone
@pytest.mark.parametrize("metric", [in_numpy, as_python, by_letters])
def test_what_xla_cannot_compile_is_trained_without(metric, monkeypatch, caplog):
    monkeypatch.setattr(on_tensorflow, "XLA_PAYS_FROM", 1)
    saying.say_once.cache_clear()
    say_once, tried = saying.say_once, []
    monkeypatch.setattr(saying, "say_once", lambda *told: tried.append(told) or say_once(*told))

    def make():
        model = keras.Sequential([keras.Input((6,)), L.Dense(3)])
        model.compile("sgd", FROM_LOGITS, metrics=[metric])
        return model

    expected = trained(make, (x, y), "fit")
    with caplog.at_level(logging.WARNING, "lab.engines.on_tensorflow"):
        assert_alike(expected, trained(make, (x, y), "fused"))
    assert caplog.text.count("Trained without XLA") == 1  # not again for the validation
    assert len(tried) == 2  # to train and to test, not in every epoch


class Raises(keras.callbacks.Callback):
    """What a callback of a user's does wrong, in the second epoch; and what it has seen by then."""

    hook = "on_epoch_end"

    def __init__(self):
        super().__init__()
        self.seen = []
        setattr(self, self.hook, self.fail)

    def on_test_end(self, logs=None):
        self.seen.append(sorted(logs))

    def fail(self, epoch, logs=None):
        if epoch == 1:
            raise LookupError("of a user's own")


class RaisesAtBegin(Raises):
    hook = "on_epoch_begin"


class RaisesInValidation(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.seen = []

    def on_test_begin(self, logs=None):
        self.seen.append("test")
        if len(self.seen) == 2:
            raise LookupError("of a user's own")


def dense(**compiled):
    model = keras.Sequential([keras.Input((6,)), L.Dense(4, "relu"), L.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1), FROM_LOGITS, **compiled)
    return model


@pytest.mark.both_backends
@pytest.mark.parametrize("callback", [Raises, RaisesAtBegin, RaisesInValidation])
def test_a_callback_that_raises_leaves_the_model_as_under_fit(callback):
    expected = trained(dense, (x, y), "fit", [callback])
    assert isinstance(expected[0], LookupError)
    for engine in ENGINES:
        assert_alike(expected, trained(dense, (x, y), engine, [callback]))


class RaisesInNumbers(keras.metrics.Mean):
    """It raises when it is read the third time after a reset, as in a third epoch."""

    def reset_state(self):
        super().reset_state()
        self.resets = getattr(self, "resets", 0) + 1
        if self.resets == 4:
            raise ArithmeticError("of a user's own")

    def update_state(self, true, predicted, sample_weight=None):
        super().update_state(predicted)


@tensorflow_alone  # on JAX metrics are Python for as long as they are traced
def test_a_metric_that_raises_in_a_later_epoch_ends_as_under_fit():
    def make():
        return dense(metrics=[RaisesInNumbers()])

    expected = trained(make, (x, y), "fit")
    assert isinstance(expected[0], ArithmeticError)
    for engine in ENGINES:
        assert_alike(expected, trained(make, (x, y), engine))


@tensorflow_alone
def test_a_metric_that_raises_in_the_middle_of_a_pass_ends_as_under_fit():
    import tensorflow as tf

    def bounded(true, predicted):
        tf.debugging.assert_less(tf.reduce_max(predicted), 1.5, "too large")
        return tf.reduce_mean(predicted)

    def make():
        return dense(metrics=[bounded])

    large = (np.where(np.arange(40)[:, None] < 24, x * 0.01, x * 1e3).astype("float32"), y)
    expected = trained(make, large, "fit")
    assert isinstance(expected[0], tf.errors.InvalidArgumentError)
    assert_alike(expected, trained(make, large, "fused"))


@pytest.mark.both_backends
def test_a_loss_that_is_not_a_number_is_that_of_fit():
    def linear():  # on some processors oneDNN, which fuses a ReLU with its layer, makes 0 of NaN
        model = keras.Sequential([keras.Input((6,)), L.Dense(4), L.Dense(3)])
        model.compile(keras.optimizers.SGD(0.1), FROM_LOGITS)
        return model

    data = (np.where(np.arange(40)[:, None] == 30, np.nan, x).astype("float32"), y)
    expected = trained(linear, data, "fit")
    assert np.isnan(expected[0]["loss"]).all()
    for engine in ENGINES:
        assert_alike(expected, trained(linear, data, engine))


@pytest.mark.both_backends
def test_a_layer_that_raises_says_what_it_says_under_fit():
    class Faulty(L.Layer):
        def call(self, z):
            raise LookupError("of a user's own")

        def compute_output_shape(self, shape):
            return shape

    def make():
        model = keras.Sequential([L.Dense(3), Faulty()])
        model.compile("sgd", FROM_LOGITS)
        return model

    def outcome(how):
        with pytest.raises(Exception, match="of a user's own") as said:
            history_of(how, make(), (x, y))
        return said.type  # on JAX, Keras makes it a RuntimeError

    assert {outcome(engine) for engine in ENGINES} == {outcome("fit")}

"""Both engines give what `fit` gives, in a fresh order every epoch (trap 1)."""

import keras
import numpy as np
import pytest

from lab.engines import program
from lab.engines.fit import Fit, batch_order
from lab.engines.training import train

pytestmark = pytest.mark.both_backends
ENGINES = ("plain", "fused")


def data(n=70):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 5)).astype("float32"), rng.integers(0, 3, n).astype("int32")


def network(batchnorm=True, dropout=0.3, optimizer=None, **compiled):
    layers = [keras.layers.Dense(8, "relu", kernel_initializer=keras.initializers.HeNormal(1))]
    layers += [keras.layers.BatchNormalization()] if batchnorm else []
    layers += [keras.layers.Dropout(dropout, seed=2)] if dropout else []
    layers += [
        keras.layers.Dense(
            3, kernel_initializer=keras.initializers.HeNormal(3), kernel_regularizer="l2"
        )
    ]
    model = keras.Sequential([keras.Input((5,)), *layers])
    compiled = {"metrics": ["accuracy"]} | compiled
    model.compile(
        optimizer or keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **compiled,
    )
    return model


def weights(model):
    return [np.asarray(w).copy() for w in model.weights if "seed" not in w.path]


def assert_same(first, second):
    a, b = first[0].history, second[0].history
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=2e-5, atol=1e-6, err_msg=name)
    for x, y in zip(weights(first[1]), weights(second[1]), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=1e-5)


def both(make, **fit):
    results = []
    for engine in ENGINES:
        model = make()
        callbacks = [make_one() for make_one in fit.pop("callbacks", [])]
        asked = Fit(model, **({"data": data(), "batch_size": 16, "epochs": 3} | fit))
        asked.callbacks = callbacks
        results.append((train(asked, engine), model))
    return results


def test_engines_agree_on_a_single_batch():
    assert_same(*both(network, validation=data(30), data=data(16)))


class ScaledStep(keras.Model):
    """A model with a loss of its own."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, kernel_initializer=keras.initializers.HeNormal(3))

    def call(self, x):
        return self.dense(x)

    def compute_loss(self, *args, **kwargs):
        return 3.0 * super().compute_loss(*args, **kwargs)


def test_engines_agree_for_a_subclass_with_its_own_loss():
    def make():
        model = ScaledStep()
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    results = both(make)
    assert_same(*results)
    assert results[0][0].history["loss"][0] > 2  # three times ln 3, about


class Recorder(keras.callbacks.Callback):
    """Writes down every call with its logs' names."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append(("train_begin", sorted(logs or ())))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append((f"epoch_begin {epoch}", sorted(logs or ())))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append((f"epoch_end {epoch}", sorted(logs or ())))
        logs["extra"] = float(epoch)

    def on_test_begin(self, logs=None):
        self.calls.append(("test_begin", sorted(logs or ())))

    def on_test_end(self, logs=None):
        self.calls.append(("test_end", sorted(logs or ())))

    def on_train_end(self, logs=None):
        self.calls.append(("train_end", sorted(logs or ())))


def test_epoch_callbacks_see_what_fit_shows_them():
    seen = {}
    for engine in ENGINES:
        recorder = Recorder()
        history = train(
            Fit(network(), data(), 16, 2, validation=data(20), callbacks=[recorder]), engine
        )
        seen[engine] = recorder.calls
        assert history.history["extra"] == [0.0, 1.0]
        assert recorder.params["steps"] == 5
    assert seen["fused"] == seen["plain"]


def test_a_callback_can_stop_change_the_rate_and_change_weights():
    class Meddler(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 0.02
            kernel = self.model.layers[0].kernel
            kernel.assign(kernel * 0.5)
            self.model.stop_training = epoch == 2

    results = []
    for engine in ENGINES:
        model = network()
        fit = Fit(model, data(), 16, epochs=9, callbacks=[Meddler()])
        results.append((train(fit, engine), model))
        assert len(results[-1][0].history["loss"]) == 3
    assert_same(*results)


def test_fit_called_twice_goes_on_where_it_was():
    results = []
    for engine in ENGINES:
        model = network()
        train(Fit(model, data(), 16, 2, seed=1), engine)
        results.append((train(Fit(model, data(), 16, 2, seed=2), engine), model))
    assert_same(*results)


def test_compiling_anew_takes_effect_after_a_fused_fit():
    results = []
    for engine in ENGINES:
        model = network()
        train(Fit(model, data(), 16, 2, seed=1), engine)
        model.compile("sgd", keras.losses.CategoricalHinge(), metrics=["mae"])
        x, y = data()
        hot = np.eye(3, dtype="float32")[y]
        results.append((train(Fit(model, (x, hot), 16, 2, seed=2), engine), model))
    assert_same(*results)
    assert list(results[1][0].history) == ["loss", "mae"]


def test_a_second_fit_compiles_nothing_again():
    model = network(batchnorm=False, dropout=0)
    watched = [keras.callbacks.Callback()]

    def kept():
        if keras.backend.backend() == "jax":
            return dict(program._programs)
        return {kind: dict(made) for kind, (_, made) in model._lab_traces.items()}

    train(Fit(model, data(), 16, 1, callbacks=watched), "fused")
    first = kept()
    train(Fit(model, data(), 16, 1, callbacks=watched), "fused")
    assert kept() == first and len(first) > 0


def test_engines_agree_for_a_convolution():
    def make():
        kernel = keras.initializers.HeNormal(1)
        layers = [
            keras.layers.Reshape((5, 1)),
            keras.layers.Conv1D(4, 3, kernel_initializer=kernel),
        ]
        layers += [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3)]
        layers[-1].kernel_initializer = keras.initializers.HeNormal(2)
        model = keras.Sequential([keras.Input((5,)), *layers])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, metrics=["accuracy"])
        return model

    assert_same(*both(make, validation=data(20)))


def test_a_batch_callback_falls_back_to_plain_and_says_so(caplog):
    class EveryBatch(keras.callbacks.Callback):
        batches = 0

        def on_train_batch_end(self, batch, logs=None):
            self.batches += 1

    callback = EveryBatch()
    with caplog.at_level("WARNING", "lab.engines"):
        train(Fit(network(), data(), 16, 2, callbacks=[callback]), "fused")
    assert callback.batches == 10
    assert "EveryBatch overrides on_train_batch_end" in caplog.text


def test_orders_differ_between_epochs_and_repeat_between_runs():
    class Echo(keras.layers.Layer):
        """Identity that remembers what it saw, in a model run eagerly."""

        seen: list = []  # noqa: RUF012

        def call(self, x):
            if hasattr(x, "numpy"):  # not while its output shape is inferred
                Echo.seen.append(x.numpy()[:, 0].tolist())
            return x

    def epochs(seed):
        model = keras.Sequential([keras.Input((1,)), Echo(), keras.layers.Dense(1)])
        model.compile("sgd", "mse", run_eagerly=True, jit_compile=False)
        Echo.seen = []
        x = np.arange(12.0).reshape(12, 1).astype("float32")
        train(Fit(model, (x, x), batch_size=5, epochs=3, seed=seed), "plain")
        flat = [v for batch in Echo.seen if len(batch) in (5, 2) for v in batch][-36:]
        return [flat[i : i + 12] for i in (0, 12, 24)]

    if keras.backend.backend() == "jax":
        pytest.skip("values cannot be seen inside a JAX step; the engines are compared there")
    first = epochs(7)
    assert first == [batch_order(7, e, 12).tolist() for e in range(3)]
    assert len({tuple(order) for order in first}) == 3
    assert first == epochs(7)
    assert first != epochs(8)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"data": (np.zeros((3, 1)), np.zeros(4))}, "one length"),
        ({"data": (np.zeros((0, 1)), np.zeros(0))}, "not empty"),
        ({"batch_size": 0}, "batch_size"),
        ({"epochs": 1.5}, "epochs"),
        ({"batch_size": 4}, "number of examples, 3. Received: batch_size=4"),
    ],
)
def test_nonsense_is_refused_before_any_tracing(change, says):
    with pytest.raises(ValueError, match=says):
        Fit(**({"model": None, "data": (np.zeros((3, 1)), np.zeros(3)), "batch_size": 3} | change))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_cannot_be_trained_is_refused_with_the_value(engine):
    bare = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)], name="bare")
    with pytest.raises(ValueError, match=r"must be compiled.*bare"):
        train(Fit(bare, data()), engine)
    x, y = data()
    for wrong in (y + 1, y - 1):
        with pytest.raises(ValueError, match=f"0 to 2.*{wrong.min()} to {wrong.max()}"):
            train(Fit(network(), (x, wrong)), engine)
    with pytest.raises(ValueError, match="`validation` must be in 0 to 2"):
        train(Fit(network(), (x, y), validation=(x, y + 1)), engine)


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="engine"):
        train(Fit(network(), data()), engine="warp")

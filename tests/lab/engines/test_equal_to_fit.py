"""Every engine gives what `model.fit` gives, on models that are made in unusual ways.

Each case stands for a situation of a public report; the batch order is that of the data, so that
`model.fit(shuffle=False)` itself is the reference.
"""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import losses, metrics, ops

from lab import evaluate
from tests.lab.engines.beside_fit import (
    ENGINES,
    assert_same_numbers,
    assert_same_weights,
    history_of,
)

pytestmark = [pytest.mark.both_backends, pytest.mark.usefixtures("in_order")]
rng = np.random.default_rng(0)
x = rng.normal(size=(40, 4)).astype("float32")
y = rng.integers(0, 3, 40)
t = rng.normal(size=(40, 1)).astype("float32")
FROM_LOGITS = losses.SparseCategoricalCrossentropy(from_logits=True)


def sequential(*layers, shape=(4,), optimizer="sgd", loss=FROM_LOGITS, **compiled):
    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile(optimizer, loss, **compiled)
    return model


def adapted(layer, data):
    layer.adapt(data)
    return layer


def excluding(optimizer, **what):
    optimizer.exclude_from_weight_decay(**what)
    return optimizer


def excluding_kernel():
    model = sequential(L.Dense(8), L.Dense(3))
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=50.0)
    optimizer.exclude_from_weight_decay(var_list=[model.layers[0].kernel])
    model.compile(optimizer, FROM_LOGITS)
    return model


def late(change):
    model = sequential(L.Dense(8), L.Dense(3), optimizer=keras.optimizers.SGD(0.1))
    change(model.layers[0])
    return model


def set_late(layer):
    layer.kernel_regularizer = keras.regularizers.L2(1.0)
    layer.kernel_constraint = keras.constraints.MaxNorm(0.01)


def set_regularizer(layer):
    layer.kernel.regularizer = keras.regularizers.L2(1.0)


def set_constraint(layer):
    layer.kernel.constraint = keras.constraints.MaxNorm(0.1)


class Count(L.Layer):
    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.calls.assign_add(1.0)
        return inputs


class Sampling(L.Layer):
    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(3)

    def call(self, z):
        return z + keras.random.normal(ops.shape(z), seed=self.generator)


class AddsLoss(L.Layer):
    def call(self, z):
        self.add_loss(0.1 * ops.mean(z**2))
        return z


class WithExtremes(keras.Sequential):
    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        own = super().compute_metrics(x, y, y_pred, sample_weight)
        return {**own, "extreme": ops.max(ops.abs(y_pred))}


class OldLoss(keras.Sequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 3.0 * super().compute_loss(x, y, y_pred, sample_weight)


class LogsTheBatch(keras.Sequential):
    """Its logs have other names than its metrics."""

    def train_step(self, *arguments):
        logs = super().train_step(*arguments)
        logs, *state = logs if isinstance(logs, tuple) else (logs,)
        logs = {"of_the_batch": logs["loss"]}
        return (logs, *state) if state else logs


def other(kind):
    model = kind([keras.Input((4,)), L.Dense(3)])
    model.compile("sgd", FROM_LOGITS)
    return model


def two(outputs, **compiled):
    inputs = keras.Input((4,))
    p, q = (L.Dense(3, name=name)(inputs) for name in "pq")
    model = keras.Model(inputs, outputs(p, q))
    model.compile("sgd", FROM_LOGITS, **compiled)
    return model


def recall(true, predicted):
    hits = ops.cast(predicted > 0.5, "float32") * true
    return ops.sum(hits) / (ops.sum(true) + 1e-7)


def stateful(layer):
    model = keras.Sequential([keras.Input(batch_shape=(8, 5, 3)), layer, Count(), L.Dense(1)])
    model.compile("sgd", "mse")
    return model


seq = rng.normal(size=(40, 5, 3)).astype("float32")
images = 100 + 30 * rng.normal(size=(40, 6, 6, 2)).astype("float32")
hot = np.eye(3, dtype="float32")[y]
w = rng.random(40).astype("float32")
grid = rng.normal(size=(40, 3, 4)).astype("float32")


def grids(loss, **compiled):
    return sequential(L.Dense(12), L.Reshape((3, 4)), loss=loss, **compiled)


CASES = {
    # adapted layers
    "Normalization": (lambda: sequential(adapted(L.Normalization(), x * 50 + 1000), L.Dense(3)),
                      (x * 50 + 1000, y)),
    "Normalization of images": (
        lambda: sequential(adapted(L.Normalization(axis=-1), images), L.Flatten(), L.Dense(3),
                           shape=(6, 6, 2)), (images, y)),
    "Discretization": (
        lambda: sequential(adapted(L.Discretization(num_bins=4), x[:, 0]), L.Embedding(6, 3),
                           L.Flatten(), L.Dense(3)), (x, y)),
    # optimizers that were changed by a method
    "decay without biases": (
        lambda: sequential(L.Dense(8, bias_initializer="ones"), L.Dense(3), optimizer=excluding(
            keras.optimizers.AdamW(1e-3, weight_decay=50.0), var_names=["bias"])), (x, y)),
    "decay without a kernel": (excluding_kernel, (x, y)),
    "SGD, decay without biases": (
        lambda: sequential(L.Dense(3, bias_initializer="ones"), optimizer=excluding(
            keras.optimizers.SGD(1e-3, weight_decay=50.0), var_names=["bias"])), (x, y)),
    # set after building, or on variables
    "regularizer set late": (lambda: late(set_late), (x, y)),
    "regularizer of a variable": (lambda: late(set_regularizer), (x, y)),
    "constraint of a variable": (lambda: late(set_constraint), (x, y)),
    # arguments that no configuration has
    "Huber": (lambda: sequential(L.Dense(1), loss=losses.Huber(delta=0.1)), (x, t)),
    "wide Huber": (lambda: sequential(L.Dense(1), loss=losses.Huber(delta=10.0)), (x, t)),
    "CosineSimilarity": (lambda: grids(losses.CosineSimilarity(axis=1)), (x, grid)),
    "metric CosineSimilarity": (
        lambda: grids("mse", metrics=[metrics.CosineSimilarity(axis=1, name="cos")]), (x, grid)),
    # nothing is run before the first step
    "stateful GRU": (lambda: stateful(L.GRU(6, stateful=True)), (seq, t)),
    "stateful LSTM": (lambda: stateful(L.LSTM(6, stateful=True)), (seq, t)),
    "stateful SimpleRNN": (lambda: stateful(L.SimpleRNN(6, stateful=True)), (seq, t)),
    "sampling": (lambda: sequential(L.Dense(8), Sampling(), L.Dense(3)), (x, y)),
    "dropout": (lambda: sequential(L.Dense(8), L.Dropout(0.5, seed=1), L.Dense(3)), (x, y)),
    "noise": (lambda: sequential(L.GaussianNoise(0.5, seed=1), Count(), L.Dense(3)), (x, y)),
    # validation in batches of batch_size
    "batch metric": (lambda: sequential(L.Dense(1, "sigmoid"), loss="mse", metrics=[recall]),
                     (x, (t > 0.5).astype("float32"))),
    # structures, shapes
    "target in a list": (lambda: sequential(L.Dense(3)), (x, [y])),
    "output in a dictionary": (lambda: two(lambda p, q: {"p": p}), (x, {"p": y})),
    "targets in a list": (lambda: two(lambda p, q: [p, q]), (x, [y, y[::-1].copy()])),
    "targets in a dictionary": (lambda: two(lambda p, q: {"p": p, "q": q}), (x, {"p": y, "q": y})),
    "weights for two": (lambda: two(lambda p, q: [p, q], weighted_metrics=[["accuracy"], []]),
                        (x, [y, y], w)),
    "weights for each": (lambda: two(lambda p, q: [p, q]), (x, [y, y], [w, w**2])),
    "targets (n,)": (lambda: sequential(L.Dense(1), loss="mse"), (x, t[:, 0])),
    "weights (n, 1)": (lambda: sequential(L.Dense(3)), (x, y[:, None], w[:, None])),
    "float64": (lambda: sequential(L.Dense(1), loss="mse"), (x.astype(float), t.astype(float))),
    "no target": (lambda: sequential(L.Dense(8), AddsLoss(), loss=None), (x, None)),
    # metrics and logs
    "vector metric": (lambda: sequential(L.Dense(3, "softmax"), loss="categorical_crossentropy",
                                         metrics=[metrics.F1Score(average=None)]), (x, hot)),
    "lazy metrics": (lambda: sequential(L.Dense(3, "softmax"), loss="mse",
                                        metrics=["accuracy", metrics.F1Score("macro")]), (x, hot)),
    "compute_metrics": (lambda: other(WithExtremes), (x, y)),
    "compute_loss without training": (lambda: other(OldLoss), (x, y)),
    "logs of an own step": (lambda: other(LogsTheBatch), (x, y)),
    "a loss that a layer adds": (lambda: sequential(AddsLoss(), L.Dense(3)), (x, y)),
}  # fmt: skip


# What a validation adds is the same for most, and as long to trace as the training.
VALIDATED = (
    "batch metric", "stateful GRU", "dropout", "Normalization", "weights for each", "targets (n,)",
    "vector metric", "compute_metrics", "compute_loss without training", "logs of an own step",
)  # fmt: skip
assert set(VALIDATED) <= CASES.keys()


def result(make, data, how, validation=None, **more):
    keras.utils.set_random_seed(7)
    model = make()
    asked = {"batch_size": 8, "epochs": 2} | more
    return history_of(how, model, data, validation, **asked), model


def assert_same(a, b):
    assert_same_numbers(a[0], b[0], rtol=2e-5, atol=1e-6)
    assert_same_weights(a[1].weights, b[1].weights, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_every_engine_is_equal_to_fit(case):
    make, data = CASES[case]
    validation = data if case in VALIDATED else None
    expected = result(make, data, "fit", validation)
    for engine in ENGINES[1:]:
        assert_same(expected, result(make, data, engine, validation))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_plain_is_equal_to_fit(case):
    make, data = CASES[case]
    validation = data if case in VALIDATED else None
    expected = result(make, data, "fit", validation)
    assert_same(expected, result(make, data, "plain", validation))


@pytest.mark.parametrize("case", ["weights for each", "vector metric", "Normalization", "float64"])
def test_evaluate_is_equal_to_that_of_keras(case):
    make, data = CASES[case]
    model = make()
    given = dict(zip(("x", "y", "sample_weight"), data, strict=False))
    expected = model.evaluate(**given, batch_size=16, verbose=0, return_dict=True)
    seen = evaluate(model, data, batch_size=16)
    assert sorted(seen) == sorted(expected)
    assert_same_numbers(expected, {n: seen[n] for n in expected}, rtol=2e-5, atol=1e-6)


class Stop(keras.callbacks.Callback):
    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, self.stop)

    def stop(self, *_, **__):
        self.model.stop_training = True


@pytest.mark.parametrize("hook", ["on_train_begin", "on_epoch_begin", "on_epoch_end"])
def test_a_training_stops_where_fit_stops(hook):
    make, data = CASES["dropout"]
    expected = result(make, data, "fit", epochs=3, callbacks=[Stop(hook)])
    assert len(expected[0]["loss"]) == 1
    for engine in ENGINES:
        assert_same(expected, result(make, data, engine, epochs=3, callbacks=[Stop(hook)]))


@pytest.mark.filterwarnings("ignore:Limiting")
@pytest.mark.parametrize("limit", ["epochs", "steps_per_epoch"])
def test_limits_of_the_configuration_hold(limit):
    make, data = CASES["dropout"]
    getattr(keras.config, f"set_max_{limit}")(1)
    try:
        expected = result(make, data, "fit", epochs=3)
        for engine in ("plain", "fused"):
            assert_same(expected, result(make, data, engine, epochs=3))
    finally:
        getattr(keras.config, f"set_max_{limit}")(None)


def toggled(how):
    keras.utils.set_random_seed(7)
    model = sequential(L.Dense(8, "relu"), L.Dense(3))
    before = None
    for _ in range(2):
        before = model.get_weights()[0]
        history_of(how, model, (x, y), batch_size=8)
        model.layers[0].trainable = False
    return np.abs(model.get_weights()[0] - before).max()


def test_a_layer_that_is_frozen_without_compile_does_as_under_fit():
    def outcome(how):
        try:
            return toggled(how)
        except ValueError as error:
            return str(error)[:60]

    expected = outcome("fit")
    for engine in ENGINES:
        assert outcome(engine) == pytest.approx(expected)

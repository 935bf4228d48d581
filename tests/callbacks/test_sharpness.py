import keras
import numpy as np
import pytest

from callbacks import (
    SharpnessProbe,
    adaptive_sharpness,
    epsilon_sharpness,
    hessian_trace,
    top_eigenvalues,
)
from tests.tracing import counting

pytestmark = pytest.mark.both_backends

RNG = np.random.default_rng(0)
X = RNG.standard_normal((96, 4)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")
KEYS = ["sharpness/lambda_max", "sharpness/trace", "sharpness/epsilon", "sharpness/adaptive"]


def network(steps_per_execution=1):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(6, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile("adam", loss, steps_per_execution=steps_per_execution)
    return model


class Keep(keras.callbacks.Callback):
    """Keeps what the weights were after each epoch."""

    def on_train_begin(self, logs=None):
        self.kept = []

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append([np.asarray(v).copy() for v in self.model.variables])

    def restore(self, epoch):
        for v, value in zip(self.model.variables, self.kept[epoch], strict=True):
            v.assign(value)


@pytest.mark.parametrize("steps_per_execution", [1, 8])
def test_history_has_the_values_of_the_right_epochs(steps_per_execution):
    model = network(steps_per_execution)
    probe, keep = SharpnessProbe(X, Y, every=2, epsilon=2e-3, rho=0.01, seed=5, draws=9), Keep()
    history = model.fit(
        X, Y, batch_size=8, epochs=5, verbose=0, callbacks=[probe, keep], validation_data=(X, Y)
    ).history
    assert probe.epochs == [1, 3, 4]
    assert [len(history[key]) for key in ["loss", "val_loss", *KEYS]] == [5, 5, 3, 3, 3, 3]
    for position, epoch in [(0, 1), (2, 4)]:
        keep.restore(epoch)
        assert probe.measure() == pytest.approx({k: history[k][position] for k in KEYS}, rel=1e-4)
        if steps_per_execution == 8 or epoch == 1:
            continue  # each direct call is compiled anew
        direct = [
            top_eigenvalues(model, X, Y)[0],
            hessian_trace(model, X, Y, draws=9, seed=5).trace,
            epsilon_sharpness(model, X, Y, 2e-3),
            adaptive_sharpness(model, X, Y, 0.01),
        ]
        assert direct == pytest.approx([history[key][position] for key in KEYS], rel=1e-4)


def test_only_the_last_epoch_by_default_and_only_the_measures_asked_for():
    model = network()
    probe = SharpnessProbe(X, Y, measures=("adaptive",))
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[probe]).history
    assert probe.epochs == [2]
    assert [key for key in history if key.startswith("sharpness")] == ["sharpness/adaptive"]
    assert history["sharpness/adaptive"] == [probe.measure()["sharpness/adaptive"]]
    assert probe.measure(model) == probe.measure()
    assert isinstance(history["sharpness/adaptive"][0], float)
    assert probe.seconds > 0

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    model.fit(X, Y, epochs=9, verbose=0, callbacks=[Stop(), probe])
    assert probe.epochs == [1]

    model.fit(X, Y, epochs=9, initial_epoch=7, verbose=0, callbacks=[probe])
    assert probe.epochs == [8]


def test_compiled_once_until_the_model_is_compiled_anew():
    counter, traces = counting()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1), counter])
    model.compile(loss="mse")
    probe = SharpnessProbe(X, Y)
    traces.clear()
    first = probe.measure(model)
    assert len(traces) == 3  # one gradient, one in float64 to test with, one Hessian product
    model.layers[0].kernel.assign(np.ones((4, 1)))
    second = probe.measure(model)
    assert len(traces) == 3
    assert second["sharpness/adaptive"] != first["sharpness/adaptive"]
    model.compile(loss=lambda y, p: 3 * keras.ops.mean((y - p) ** 2, axis=-1))
    third = probe.measure(model)["sharpness/lambda_max"]
    assert third == pytest.approx(3 * second["sharpness/lambda_max"], rel=1e-3)


def test_diverged_training_is_logged_as_nan():
    model = network()
    model.layers[0].bias.assign(np.full(6, np.nan))
    probe = SharpnessProbe(X, Y)
    history = model.fit(X, Y, epochs=1, verbose=0, callbacks=[probe]).history
    assert all(np.isnan(history[key]).all() for key in KEYS)


def test_training_is_not_changed_by_probing():
    weights = []
    for callbacks in ([], [SharpnessProbe(X, Y, every=1, measures=("trace", "epsilon"))]):
        model = network()
        model.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
        weights.append([np.asarray(v).copy() for v in model.variables])
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_wrong_arguments():
    for every in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"Received: every={every}"):
            SharpnessProbe(X, Y, every=every)
    for measures in ("trace", (), ("lambda_min",)):
        with pytest.raises(ValueError, match=r"must be some of .*Received: measures="):
            SharpnessProbe(X, Y, measures=measures)

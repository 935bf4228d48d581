"""Several averages in one training, against each alone and against shorter trainings."""

import keras
import numpy as np
import pytest

from callbacks import PolyakAveraging, WeightAverages, recalibrate_batchnorm
from lab.engines.fit import Fit
from lab.engines.training import train

pytestmark = pytest.mark.both_backends

JAX = keras.backend.backend() == "jax"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 4)).astype("float32")  # 7 batches of at most 8
Y = RNG.standard_normal((50, 2)).astype("float32")
STEPS = 7


def network():
    init = keras.initializers.GlorotUniform
    layers = [
        keras.layers.Dense(5, "tanh", kernel_initializer=init(0)),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(2, kernel_initializer=init(1)),
    ]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    return model


def averages():
    return {
        "uniform": PolyakAveraging(),
        "ema": PolyakAveraging(0.9),
        "late": PolyakAveraging(start_step=2 * STEPS),
    }


def trained(callbacks, epochs=4, engine="fused"):
    fit = Fit(network(), (X, Y), 8, epochs, callbacks=callbacks, seed=0)
    train(fit, engine)
    return fit.model


def values(variables):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def assert_close(a, b):
    for x, y in zip(a, b, strict=True):  # two compilations may round differently
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def carried():
    kept = WeightAverages(averages(), keep_after=(1, 3, 9))
    trained([kept])
    return kept


@pytest.fixture(params=["plain", "fused", "stacked"])
def engine(request):
    if request.param == "stacked" and not JAX:
        pytest.skip("stacking needs JAX")
    return request.param


def test_averages_are_those_of_the_callbacks_alone(engine):
    kept, alone = WeightAverages(averages(), keep_after=[2]), averages()
    model = trained([kept], engine=engine)
    twin = trained([*alone.values()], engine=engine)
    assert_same(values(model.variables), values(twin.variables))
    for name, one in alone.items():
        assert kept.averages[name].steps == one.steps
        assert_same(kept.weights(name), one.average)
    assert_same(kept.weights("last"), values(model.trainable_variables))
    assert not [v.name for v in model.optimizer.variables if "polyak" in v.name]


@pytest.mark.parametrize("epochs", [1, 3])
def test_what_was_kept_is_what_a_shorter_training_ends_with(carried, epochs, engine):
    alone = averages()
    shorter = trained([*alone.values()], epochs, engine)
    with carried.after(epochs) as model:
        assert_close(values(model.variables), values(shorter.variables))
        assert_close(carried.weights("last"), values(shorter.trainable_variables))
        for name in ("uniform", "ema", "late"):
            if alone[name].steps:
                assert_close(carried.weights(name), alone[name].average)
                continue
            for ask in (carried.weights, lambda n: carried.swapped(n).__enter__()):
                with pytest.raises(ValueError, match=r"averaged then. Received: name='late'"):
                    ask(name)
    assert ("late" in carried._kept[epochs][1]) == (epochs == 3)


def test_epochs_that_are_not_reached_are_left_out(carried):
    assert carried.kept == (1, 3)
    for epoch in (0, 2, 9, "1"):
        with pytest.raises(ValueError, match=r"one of those kept, \(1, 3\). Received: epoch="):
            carried.after(epoch).__enter__()


def test_visits_leave_everything_as_it_was(carried):
    """Also when they raise, nest, or recompute statistics."""
    model = carried.model
    before, ema = values(model.variables), carried.averages["ema"].average
    with carried.after(3), pytest.raises(ZeroDivisionError), carried.after(1):
        early = values(model.variables)
        with carried.swapped("ema", recalibrate_on=X):
            assert any(map(np.any, map(np.not_equal, values(model.variables), early)))
            raise ZeroDivisionError
    with carried.after(1):
        assert_same(values(model.variables), early)
        assert any(map(np.any, map(np.not_equal, carried.weights("ema"), ema)))
        carried.weights("ema")[0][:] = carried.weights("last")[0][:] = 7  # copies
        inside = carried.weights("ema")
        assert not np.any(inside[0] == 7)
    with pytest.raises(ZeroDivisionError), carried.after(3):
        raise ZeroDivisionError
    assert_same(values(model.variables), before)
    assert_same(carried.weights("ema"), ema)


@pytest.mark.parametrize("name", ["last", "ema"])
def test_swapped_weights_come_with_their_statistics_or_with_those_that_are_there(carried, name):
    statistics = values(carried.model.layers[1].non_trainable_variables)
    with carried.swapped(name) as model:
        assert model is carried.model
        assert_same(values(model.trainable_variables), carried.weights(name))
        assert_same(values(model.layers[1].non_trainable_variables), statistics)
    by_hand = network()
    for variable, value in zip(by_hand.trainable_variables, carried.weights(name), strict=True):
        variable.assign(value)
    recalibrate_batchnorm(by_hand, X)
    with carried.swapped(name, recalibrate_on=X) as model:
        assert_same(values(model.layers[1].weights), values(by_hand.layers[1].weights))


def test_a_further_training_keeps_anew_and_goes_on_averaging():
    kept = WeightAverages(averages(), keep_after=[1, 2])
    model = trained([kept], epochs=2)
    early = kept._kept[1][0]
    train(Fit(model, (X, Y), 8, 1, callbacks=[kept], seed=1), "fused")
    assert kept.kept == (1,) and kept.averages["ema"].steps == 3 * STEPS
    assert any(map(np.any, map(np.not_equal, kept._kept[1][0][0], early[0])))


def test_names_and_epochs_that_cannot_be(carried):
    with pytest.raises(
        ValueError, match=r"one of \['uniform', 'ema', 'late'\]. Received: name='e'"
    ):
        carried.weights("e")
    with pytest.raises(ValueError, match=r"'last' is what .*Received: averages=\['last'\]"):
        WeightAverages({"last": PolyakAveraging()})
    for epoch in (0, 1.5, None):
        with pytest.raises(ValueError, match=r"Received: keep_after="):
            WeightAverages(averages(), keep_after=[epoch])

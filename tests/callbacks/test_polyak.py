"""Averages against float64 means of the iterates, which another callback writes down."""

import functools
import itertools

import keras
import numpy as np
import pytest

from callbacks import CyclicLR, PolyakAveraging, recalibrate_batchnorm
from lab.engines.fit import Fit
from lab.engines.training import train

pytestmark = pytest.mark.both_backends

JAX = keras.backend.backend() == "jax"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 4)).astype("float32")  # 7 batches of at most 8: no multiple of 8
Y = RNG.standard_normal((50, 2)).astype("float32")
FIT = {"batch_size": 8, "shuffle": False, "verbose": 0}
DECAYS = (None, 0, 0.9, 0.99, 0.999)


def network(optimizer=None, seed=0, norm=True, dtype="float32", **compiled):
    init = keras.initializers.GlorotUniform
    layers = [keras.layers.Dense(5, "tanh", kernel_initializer=init(seed), dtype=dtype)]
    layers += [keras.layers.BatchNormalization()] if norm else []
    layers += [keras.layers.Dense(2, kernel_initializer=init(seed + 1), dtype=dtype)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile(optimizer or keras.optimizers.SGD(0.1, momentum=0.9), "mse", **compiled)
    return model


class Iterates(keras.callbacks.Callback):
    """Writes down the trainable weights after every step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(values(self.model.trainable_variables, "float64"))


def values(variables, dtype=None):
    return [np.array(keras.ops.convert_to_numpy(v), dtype) for v in variables]


def iterates_of(model, epochs=3):
    recorder = Iterates()
    model.fit(X, Y, epochs=epochs, callbacks=[recorder], **FIT)
    return recorder.seen


@functools.cache
def shuffled_iterates(start, *seeds, epochs):
    """The iterates of fits one after the other, each in the order of its own seed."""
    recorder, model = Iterates(), network(seed=start)
    for seed in seeds:
        train(Fit(model, (X, Y), 8, epochs, seed=seed, callbacks=[recorder]), "plain")
    return recorder.seen


def mean(iterates, decay=None):
    """The definition, term by term."""
    t = len(iterates)
    if decay is None:
        shares = np.full(t, 1 / t)
    else:
        shares = (1 - decay) * float(decay) ** np.arange(t)[::-1] / (1 - decay**t)
    assert shares.sum() == pytest.approx(1)
    return [np.tensordot(shares, np.stack(one), 1) for one in zip(*iterates, strict=True)]


def assert_average(callback, iterates, rtol=1e-6):
    assert callback.steps == len(iterates)
    expected = mean(iterates, callback.decay)
    for a, b in zip(callback.average, expected, strict=True):
        # Relative to the size of what was averaged: a mean may happen to lie at zero.
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * np.abs(b).max())


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def iterates():
    return iterates_of(network())


@pytest.mark.parametrize("steps_per_execution", [1, 8])
def test_average_of_every_step_for_many_averages_in_one_fit(iterates, steps_per_execution):
    callbacks = [PolyakAveraging(decay) for decay in DECAYS]
    late = [PolyakAveraging(decay, start_step=5) for decay in DECAYS]
    model = network(steps_per_execution=steps_per_execution)
    model.fit(X, Y, epochs=3, callbacks=[*callbacks, *late], **FIT)
    for callback in callbacks:
        assert_average(callback, iterates)
    for callback in late:
        assert_average(callback, iterates[5:])
    # The training was not changed by averaging.
    for a, b in zip(values(model.trainable_variables), iterates[-1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_first_average_is_the_first_iterate(iterates):
    callbacks = [PolyakAveraging(decay) for decay in DECAYS]
    model = network()
    model.fit(X[:8], Y[:8], callbacks=callbacks, **FIT)
    for callback in callbacks:
        assert_same(callback.average, [w.astype("float32") for w in iterates[0]])
        assert callback.average[0].dtype == "float32"


@pytest.fixture(params=["plain", "fused", "stacked"])
def engine(request):
    if request.param == "stacked" and not JAX:
        pytest.skip("stacking needs JAX")
    return request.param


def test_all_engines_average_every_step(engine):
    fits, averages = [], []
    for seed in range(3):
        averages.append([PolyakAveraging(), PolyakAveraging(0.9, start_step=3)])
        fits.append(Fit(network(seed=seed), (X, Y), 8, 2, seed=seed, callbacks=averages[-1]))
    train(fits, engine)
    for seed, (uniform, late) in enumerate(averages):
        expected = shuffled_iterates(seed, seed, epochs=2)
        assert_average(uniform, expected, rtol=3e-6)  # the weights themselves differ by rounding
        assert_average(late, expected[3:], rtol=3e-6)


def test_engines_compile_anew_for_other_averages_of_one_model(engine):
    model, seen = network(), shuffled_iterates(0, 0, 1, 2, epochs=2)
    first, second = PolyakAveraging(0.9), PolyakAveraging(0.5)
    for seed, callbacks in enumerate([[first], [second], []]):
        train(Fit(model, (X, Y), 8, 2, seed=seed, callbacks=callbacks), engine)
    assert_average(first, seen[:14], rtol=1e-5)
    assert_average(second, seen[14:28], rtol=1e-5)
    for a, b in zip(values(model.trainable_variables), seen[-1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_a_trace_that_someone_holds_is_not_used_for_other_averages():
    """JAX gave the second fit the program of the first, with the first decay."""
    held = []
    hold = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: held.append(model.train_function)
    )
    model, twin = network(), network()
    iterates_of(twin, epochs=1)
    second = PolyakAveraging(0.5)
    for callback in (PolyakAveraging(0.9), second):
        model.fit(X, Y, callbacks=[callback, hold], **FIT)
    assert_average(second, iterates_of(twin, epochs=1), rtol=1e-5)


def test_rounding_does_not_add_up():
    """The weight grows by an exactly known step, so that all its values are known exactly."""
    steps, start, rate = 2000, 1000.0, 2.0**-14
    exact = start + rate * np.arange(1, steps + 1)
    assert np.array_equal(exact, exact.astype("float32"))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.full((1, 1), start)])
    model.compile(keras.optimizers.SGD(rate), lambda y, p: -p)
    callbacks = [PolyakAveraging(decay) for decay in DECAYS]
    x = np.ones((steps, 1), "float32")
    train(Fit(model, (x, x), 1, 1, callbacks=callbacks), "fused")
    for callback in callbacks:
        assert_average(callback, [[w.reshape(1, 1)] for w in exact], rtol=1e-7)
    # Without the remainder: 3e-6 for a decay of .99, 2e-5 for .999.
    average = np.float32(0)
    for t, w in enumerate(exact.astype("float32"), start=1):
        gain = np.float32(0.001 / -np.expm1(t * np.log(0.999)))
        average += (w - average) * gain
    (expected,) = mean([[w] for w in exact], 0.999)
    assert abs(average - expected) > 1e-5 * expected


def test_two_fits_make_one_average_with_a_file_in_between(engine, tmp_path):
    model, callback = network(), PolyakAveraging(0.9, start_step=9)
    train(Fit(model, (X, Y), 8, 2, seed=0, callbacks=[callback]), engine)
    assert callback.steps == 14 - 9
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")  # a warning is an error
    assert_same(values(loaded.optimizer.variables), values(model.optimizer.variables))
    train(Fit(loaded, (X, Y), 8, 2, seed=1, callbacks=[callback]), engine)
    assert_average(callback, shuffled_iterates(0, 0, 1, 2, epochs=2)[9:28], rtol=1e-5)


def test_model_saved_in_the_middle_has_no_averages_in_its_file(tmp_path):
    state = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            own = [v for v in self.model.optimizer.variables if "polyak" not in v.name]
            assert len(own) < len(self.model.optimizer.variables)
            state[:] = values(own)

    path = str(tmp_path / "{epoch}.keras")
    averages = [PolyakAveraging(), PolyakAveraging(0.9)]
    model, twin = network("adam"), network("adam")
    saving = [*averages, keras.callbacks.ModelCheckpoint(path), Watch()]
    model.fit(X, Y, epochs=2, callbacks=saving, **FIT)
    loaded = keras.models.load_model(path.format(epoch=2))  # a warning is an error
    assert_same(values(loaded.optimizer.variables), state)
    expected = iterates_of(twin, epochs=2)
    for average in averages:  # saving did not disturb them
        assert_average(average, expected)


def test_loss_scaling_skips_steps_and_so_does_the_average():
    def scaled():
        # Overflows float32 at first: the scale is halved and the step skipped.
        return network(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), 3e38))

    twin = scaled()
    all_of_them = [values(twin.trainable_variables), *iterates_of(twin)]
    moved = [
        after
        for before, after in itertools.pairwise(all_of_them)
        if not all(map(np.array_equal, before, after))
    ]
    assert 0 < len(moved) < 21
    model, average = scaled(), PolyakAveraging(0.9)
    model.fit(X, Y, epochs=3, callbacks=[average], **FIT)
    assert_average(average, moved)
    assert len(model.optimizer.variables) == len(twin.optimizer.variables)


def test_accumulated_gradients_make_one_step():
    def make():
        return network(keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=3))

    average = PolyakAveraging()
    make().fit(X, Y, epochs=3, callbacks=[average], **FIT)
    assert_average(average, iterates_of(make())[2::3])


def test_average_beside_the_one_of_keras():
    def make():
        return network(
            keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=4)
        )

    average = PolyakAveraging(0.9)
    make().fit(X, Y, epochs=3, callbacks=[average], **FIT)
    assert_average(average, iterates_of(make()))


def test_average_beside_a_cyclic_rate():
    def cyclic():
        return CyclicLR(0.01, 0.3, step_size=4)

    uniform, late, recorder = PolyakAveraging(), PolyakAveraging(0.9, 7), Iterates()
    network().fit(X, Y, epochs=3, callbacks=[uniform, cyclic(), late], **FIT)
    network().fit(X, Y, epochs=3, callbacks=[cyclic(), recorder], **FIT)
    assert_average(uniform, recorder.seen)
    assert_average(late, recorder.seen[7:])


def test_half_precision_weights_are_averaged_in_single_precision():
    average = PolyakAveraging()
    make = dict(norm=False, dtype="float16")
    network(**make).fit(X, Y, epochs=3, callbacks=[average], **FIT)
    assert average.average[0].dtype == "float32"
    assert_average(average, iterates_of(network(**make)))


def test_weights_and_statistics_come_back_after_swapping_also_when_it_raises(iterates):
    model, average = network(), PolyakAveraging()
    model.fit(X, Y, epochs=3, callbacks=[average], **FIT)
    before, statistics = values(model.variables), values(model.non_trainable_variables)
    with average.swapped() as inside:
        assert inside is model
        assert_same(values(model.trainable_variables), average.average)
        assert_same(values(model.non_trainable_variables), statistics)
    assert_same(values(model.variables), before)
    with pytest.raises(ZeroDivisionError), average.swapped(recalibrate_on=X):
        model.predict(X, verbose=0)  # after which SwapEMAWeights leaves its weights in the model
        raise ZeroDivisionError
    assert_same(values(model.variables), before)
    average.average[0][:] = 7  # a copy
    assert_average(average, iterates)


def test_swapping_recalibrates_batchnorm():
    model, average = network(), PolyakAveraging(0.9)
    model.fit(X, Y, epochs=3, callbacks=[average], **FIT)
    by_hand = network()
    for variable, value in zip(by_hand.trainable_variables, average.average, strict=True):
        variable.assign(value)
    recalibrate_batchnorm(by_hand, X)
    with average.swapped(recalibrate_on=X):
        assert_same(values(model.layers[1].weights), values(by_hand.layers[1].weights))
        recalibrated = model.predict(X, verbose=0)
    np.testing.assert_allclose(recalibrated, by_hand.predict(X, verbose=0), rtol=1e-6)
    with average.swapped():
        stale = model.predict(X, verbose=0)
    assert np.abs(stale - recalibrated).max() > 0.01


def test_swapping_without_batchnorm_does_not_use_the_inputs():
    model, average = network(norm=False), PolyakAveraging()
    model.fit(X, Y, callbacks=[average], **FIT)
    with average.swapped(recalibrate_on="nothing to run a model on"):
        assert_same(values(model.trainable_variables), average.average)


def test_swapping_in_the_middle_disturbs_nothing(engine):
    class Evaluation(keras.callbacks.Callback):
        losses = ()

        def on_epoch_end(self, epoch, logs=None):
            with average.swapped(recalibrate_on=X):
                loss = float(np.mean((keras.ops.convert_to_numpy(self.model(X)) - Y) ** 2))
            self.losses = (*self.losses, loss)

    results = []
    for others in ([], [Evaluation()]):
        average, model = PolyakAveraging(0.9), network()
        train(Fit(model, (X, Y), 8, 3, callbacks=[average, *others]), engine)
        results.append((average.average, values(model.weights)))
    for a, b in zip(*results, strict=True):
        assert_same(a, b)
    losses = others[0].losses
    assert len(set(losses)) == 3
    with average.swapped(recalibrate_on=X):
        assert model.evaluate(X, Y, verbose=0) == pytest.approx(losses[-1], rel=1e-5)


def test_training_that_raises_leaves_the_average_it_came_to(iterates):
    class Breaking(keras.callbacks.Callback):
        steps = 0

        def on_train_batch_end(self, batch, logs=None):
            self.steps += 1
            assert average.steps == self.steps
            if self.steps == 9:
                raise ZeroDivisionError

    model, other, average = network(), network(), PolyakAveraging(0.9)
    with pytest.raises(ZeroDivisionError):
        model.fit(X, Y, epochs=3, callbacks=[average, Breaking()], **FIT)
    assert_average(average, iterates[:9])
    with average.swapped():
        assert_same(values(model.trainable_variables), average.average)
    other.fit(X, Y, callbacks=[average], **FIT)
    assert_average(average, [*iterates[:9], *iterates[:7]])
    for trained in (model, other):
        assert not [v.name for v in trained.optimizer.variables if "polyak" in v.name]
        assert not {"apply", "save_own_variables"} & set(vars(trained.optimizer))
    average.on_train_end()  # which may be called at any time
    model.fit(X, Y, **FIT)
    assert average.steps == 9 + 7


def test_another_hook_around_ours_stays_in_order(iterates):
    calls = []

    class Other(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            optimizer = self.model.optimizer
            below = optimizer.apply

            def apply(*args, **kwargs):
                calls.append("traced")
                return below(*args, **kwargs)

            optimizer.apply = apply

    model, average = network(), PolyakAveraging()
    model.fit(X, Y, epochs=3, callbacks=[average, Other()], **FIT)
    assert calls
    assert_average(average, iterates)
    kept = average.average
    model.fit(X, Y, **FIT)  # through what is left of the chain
    assert_same(average.average, kept)
    assert average.steps == 21


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5, float("nan"), "0.9", True, [0.9]])
def test_decay_out_of_range(decay):
    with pytest.raises(ValueError, match=r"`decay` must be .*Received: decay="):
        PolyakAveraging(decay)


@pytest.mark.parametrize("start_step", [-1, 1.5, 2.0, None, "3", True])
def test_start_step_out_of_range(start_step):
    with pytest.raises(ValueError, match=r"`start_step` must be .*Received: start_step="):
        PolyakAveraging(start_step=start_step)


def test_average_before_any_step():
    average = PolyakAveraging(start_step=21)
    for _ in range(2):
        assert average.steps == 0
        with pytest.raises(ValueError, match=r"Received: steps=0, start_step=21"):
            print(average.average)
        with pytest.raises(ValueError, match=r"Received: steps=0"), average.swapped():
            pass
        model = network()
        model.fit(X, Y, epochs=3, callbacks=[average], **FIT)
    model.fit(X[:8], Y[:8], callbacks=[average], **FIT)
    assert average.steps == 22


def test_models_that_cannot_be_averaged():
    uncompiled = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    unbuilt = keras.Sequential([keras.layers.Dense(2)])
    unbuilt.compile("sgd", "mse")
    weightless = keras.Sequential([keras.Input((4,)), keras.layers.Flatten()])
    weightless.compile("sgd", "mse")
    for model, says in [
        (uncompiled, "must be compiled. Received: model=<Seq"),
        (unbuilt, "must be built.*Received: model=<Seq.*built=False"),
        (weightless, "have trainable weights.*Received: model=<Seq"),
    ]:
        average = PolyakAveraging()
        average.set_model(model)
        with pytest.raises(ValueError, match=says):
            average.on_train_begin()


def test_another_model_must_have_weights_of_the_same_shapes():
    average = PolyakAveraging()
    network().fit(X, Y, callbacks=[average], **FIT)
    kept = average.average
    other = network(norm=False)
    with pytest.raises(ValueError, match=r"shapes that were averaged.*Received: shapes=\[\(4, 5\)"):
        other.fit(X, Y, callbacks=[average], **FIT)
    assert_same(average.average, kept)
    other.fit(X, Y, **FIT)
    assert average.steps == 7

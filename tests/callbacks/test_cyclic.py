import math

import keras
import numpy as np
import pytest

from callbacks import CyclicLR, SnapshotEnsemble
from lab import Fit, train
from lab.engines.fit import batch_order

pytestmark = pytest.mark.both_backends

STEPS = 9  # in an epoch; no multiple of the cycles below, nor of 8 steps per execution
X, Y = np.eye(STEPS, dtype="float32"), np.zeros((STEPS, 1), "float32")
MODES = ["triangular", "triangular2", "exp_range"]
GAMMA = 0.97


def output(y, p):
    return p


def smith(t, base, top, step_size, mode="triangular", gamma=1.0):
    """The rate of step t, from the paper's formula in Python floats."""
    cycle = math.floor(1 + t / (2 * step_size))
    x = abs(t / step_size - 2 * cycle + 1)
    scale = {"triangular": 1, "triangular2": 1 / 2 ** (cycle - 1), "exp_range": gamma**t}[mode]
    return base + (top - base) * max(0, 1 - x) * scale


def expected(steps, *arguments, **options):
    return [smith(t, *arguments, **options) for t in steps]


def network(optimizer=0.7, **options):
    """A model whose weights show the rates: the step on example i takes the rate from weight i."""
    model = keras.Sequential(
        [
            keras.Input((STEPS,)),
            keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros"),
        ]
    )
    if isinstance(optimizer, float):
        optimizer = keras.optimizers.SGD(optimizer)
    model.compile(optimizer, output, **options)
    return model


class Rates(keras.callbacks.Callback):
    """Collects the rates of an epoch from the weights, which it then sets to zero."""

    def __init__(self, order=None):
        super().__init__()
        self.seen, self.order = [], order or (lambda epoch: np.arange(STEPS))

    def on_epoch_end(self, epoch, logs=None):
        kernel = self.model.layers[0].kernel
        self.seen += (-np.array(kernel)[self.order(epoch), 0]).tolist()
        kernel.assign(np.zeros(kernel.shape))


def fit(model, *callbacks, epochs=2, **options):
    rates = Rates()
    options = {"batch_size": 1, "shuffle": False, "verbose": 0} | options
    history = model.fit(X, Y, epochs=epochs, callbacks=[*callbacks, rates], **options)
    return rates.seen, history.history


def close(rates, reference):
    assert len(rates) == len(reference)
    np.testing.assert_allclose(rates, reference, rtol=1e-6, atol=1e-12)


def assert_plain(model, rate=0.7):
    """The optimizer is as it was compiled, and trains like that."""
    optimizer = model.optimizer
    assert isinstance(optimizer._learning_rate, keras.Variable)
    assert [v.name for v in optimizer.variables][:2] == ["iteration", "learning_rate"]
    assert "get_config" not in vars(optimizer) and "train_step" not in vars(model)
    close(fit(model, epochs=1)[0], [rate] * STEPS)


@pytest.mark.parametrize("steps_per_execution", [1, 8])
@pytest.mark.parametrize("mode", MODES)
def test_every_step_has_the_rate_of_the_formula(mode, steps_per_execution):
    model = network(steps_per_execution=steps_per_execution)
    arguments = (0.01, 0.4, 4, mode, GAMMA)
    seen, history = fit(model, CyclicLR(*arguments), epochs=4)
    reference = expected(range(4 * STEPS), *arguments)
    assert len(set(np.round(reference, 6))) > 4
    close(seen, reference)
    close(history["learning_rate"], reference[STEPS - 1 :: STEPS])
    assert all(isinstance(rate, float) for rate in history["learning_rate"])
    assert_plain(model)


@pytest.mark.parametrize("engine", ["plain", "fused"])
def test_engines(engine):
    model, order = network(), lambda epoch: batch_order(5, epoch, STEPS)
    cyclic = CyclicLR(0.1, 0.5, 4, "triangular2")
    reference = expected(range(5 * STEPS), 0.1, 0.5, 4, "triangular2")
    done = 0
    for epochs in (2, 3):  # the second one must not run what was compiled for the first
        rates = Rates(order)
        asked = Fit(model, (X, Y), batch_size=1, epochs=epochs, seed=5, callbacks=[cyclic, rates])
        history = train(asked, engine=engine).history
        close(rates.seen, reference[done * STEPS : (done + epochs) * STEPS])
        done += epochs
        close(history["learning_rate"][-1:], [reference[done * STEPS - 1]])
    rates = Rates(order)
    train(Fit(model, (X, Y), batch_size=1, seed=5, callbacks=[rates]), engine=engine)
    close(rates.seen, [0.7] * STEPS)
    rates = Rates(order)
    train(Fit(model, (X, Y), batch_size=1, seed=5, callbacks=[cyclic, rates]), engine=engine)
    close(rates.seen, expected(range(done * STEPS, (done + 1) * STEPS), 0.1, 0.5, 4, "triangular2"))


def test_an_equal_model_of_the_fused_engine_keeps_its_own_rate():
    # The engine may train a model on what it compiled for one that is alike.
    def mlp():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((STEPS,)), keras.layers.Dense(1, use_bias=False)])
        model.compile(keras.optimizers.SGD(0.7), "mse")
        return model

    def weights(engine, *callbacks):
        model = mlp()
        train(Fit(model, (X, Y + 1), batch_size=1, epochs=2, callbacks=callbacks), engine=engine)
        return model.get_weights()[0]

    def cyclic():
        return CyclicLR(0.01, 0.1, 4)

    plain, cycled = weights("plain"), weights("plain", cyclic())
    assert np.abs(plain - cycled).max() > 0.1
    for callbacks, reference in [([], plain), ([cyclic()], cycled), ([], plain)]:
        np.testing.assert_allclose(weights("fused", *callbacks), reference, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_members_of_a_stack_have_their_own_rates_and_one_program(mode):
    if keras.backend.backend() != "jax":
        pytest.skip("the stacked engine needs JAX")
    from lab.engines import program

    program._programs.clear()
    pairs = [(0.01, 0.2, 0.999), (0.1, 0.3, 0.97), (0.0, 1.0, 0.9)]
    callbacks = [CyclicLR(low, high, 4, mode, gamma) for low, high, gamma in pairs]
    for first in (0, 2 * STEPS):  # and once more
        fits, rates = [], [Rates(lambda epoch, i=i: batch_order(i, epoch, STEPS)) for i in range(3)]
        for i in range(3):
            model = network()
            both = [callbacks[i], rates[i]]
            fits.append(Fit(model, (X, Y), batch_size=1, epochs=2, seed=i, callbacks=both))
        histories = train(fits, engine="stacked")
        for i, (low, high, gamma) in enumerate(pairs):
            steps = range(first, first + 2 * STEPS)
            reference = expected(steps, low, high, 4, mode, gamma)
            np.testing.assert_allclose(rates[i].seen, reference, rtol=2e-6, atol=1e-12)
            close(histories[i].history["learning_rate"], reference[STEPS - 1 :: STEPS])
            assert_plain(fits[i].model)
    assert len(program._programs) == 2  # t = 0 at another count of the optimizer's


def test_another_fit_goes_on_in_the_cycle_also_after_saving_and_loading(tmp_path):
    model, cyclic = network(), CyclicLR(0.01, 0.4, 4, "exp_range", GAMMA)
    reference = expected(range(6 * STEPS), 0.01, 0.4, 4, "exp_range", GAMMA)
    fit(model, epochs=1)  # steps that do not count
    close(fit(model, cyclic)[0], reference[: 2 * STEPS])
    assert cyclic.steps == 2 * STEPS
    assert_plain(model)  # nor do these
    close(fit(model, cyclic, epochs=1)[0], reference[2 * STEPS : 3 * STEPS])
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path, custom_objects={"output": output})
    assert int(loaded.optimizer.iterations) == 5 * STEPS
    assert_plain(loaded)
    close(fit(loaded, cyclic)[0], reference[3 * STEPS : 5 * STEPS])
    cyclic.steps = STEPS
    close(fit(loaded, cyclic, epochs=1)[0], reference[STEPS : 2 * STEPS])
    close(fit(loaded, CyclicLR(0.01, 0.4, 4))[0], expected(range(2 * STEPS), 0.01, 0.4, 4))


def test_a_model_saved_in_the_course_of_a_training_has_a_plain_rate(tmp_path):
    path = tmp_path / "{epoch}.keras"
    model = network(keras.optimizers.SGD(0.7, momentum=0.5))
    fit(model, CyclicLR(0.1, 0.4, 4), keras.callbacks.ModelCheckpoint(path))
    # With warnings as errors: Keras warns if it does not find the state of the optimizer.
    loaded = keras.models.load_model(tmp_path / "1.keras", custom_objects={"output": output})
    assert int(loaded.optimizer.iterations) == STEPS
    assert np.any(np.array(loaded.optimizer.variables[-1]))
    assert float(np.array(loaded.optimizer.learning_rate)) == pytest.approx(0.7)


def test_late_steps_keep_their_digits():
    # In float32, gamma and t / step_size would have lost four of their seven digits.
    for step_size, mode, gamma, first in [
        (1, "triangular", 1.0, 10_000_001),
        (2000, "triangular2", 1.0, 31_997),
        (333, "exp_range", 0.99994, 199_995),
    ]:
        cyclic = CyclicLR(1e-4, 0.4, step_size, mode, gamma)
        cyclic.steps = first
        reference = expected(range(first, first + STEPS), 1e-4, 0.4, step_size, mode, gamma)
        seen = fit(network(), cyclic, epochs=1)[0]
        np.testing.assert_allclose(seen, reference, rtol=3e-6, atol=1e-12)


def test_a_training_that_was_broken_off_is_cleared_up_and_counted():
    class Break(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                raise RuntimeError("broken off")

    for next_one in ("same", "other", "end"):
        model, cyclic = network(), CyclicLR(0.01, 0.4, 4)
        with pytest.raises(RuntimeError, match="broken off"):
            fit(model, cyclic, Break())
        model.layers[0].kernel.assign(np.zeros((STEPS, 1)))
        if next_one == "same":
            close(fit(model, cyclic)[0], expected(range(4, 4 + 2 * STEPS), 0.01, 0.4, 4))
        elif next_one == "other":
            close(fit(model, CyclicLR(0.1, 0.2, 3))[0], expected(range(2 * STEPS), 0.1, 0.2, 3))
        else:
            cyclic.on_train_end()
        assert_plain(model)


def test_a_compiled_step_that_is_kept_elsewhere_is_not_run_again():
    # JAX takes what it traced for an equal function, as long as that is alive.
    model, kept = network(), []
    for _ in range(2):
        close(fit(model, epochs=1)[0], [0.7] * STEPS)
        kept.append(model.train_function)
        close(fit(model, CyclicLR(0.1, 0.2, 3))[0], expected(range(2 * STEPS), 0.1, 0.2, 3))
        kept.append(model.train_function)


def test_a_step_of_the_models_own_is_used():
    calls = []

    class Own(keras.Sequential):
        def train_step(self, *arguments):
            calls.append(1)
            return super().train_step(*arguments)

    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = Own([keras.Input((STEPS,)), layer])
    model.compile(keras.optimizers.SGD(0.7), output)
    close(fit(model, CyclicLR(0.1, 0.2, 3))[0], expected(range(2 * STEPS), 0.1, 0.2, 3))
    assert calls


def test_optimizers_around_an_optimizer_and_with_a_state():
    inner = keras.optimizers.SGD(0.7)
    model = network(keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0))
    close(fit(model, CyclicLR(0.1, 0.2, 3))[0], expected(range(2 * STEPS), 0.1, 0.2, 3))
    assert isinstance(inner._learning_rate, keras.Variable)
    # Without memory, Adam's step is the rate where there is a gradient.
    model = network(keras.optimizers.Adam(0.7, beta_1=0.0, beta_2=0.0))
    close(fit(model, CyclicLR(0.1, 0.2, 3))[0], expected(range(2 * STEPS), 0.1, 0.2, 3))
    assert len(model.optimizer.variables) == 4
    # Steps count, not updates.
    model = network(keras.optimizers.SGD(0.7, gradient_accumulation_steps=3))
    cyclic = CyclicLR(0.0, 0.9, 9)
    seen = fit(model, cyclic, epochs=1)[0]
    np.testing.assert_allclose(seen, np.repeat([0.2, 0.5, 0.8], 3) / 3, rtol=1e-5)
    assert cyclic.steps == STEPS


def test_rates_that_something_else_sets():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    for optimizer in (
        keras.optimizers.SGD(schedule),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule)),
    ):
        with pytest.raises(ValueError, match=r"number as its rate.*Received: learning_rate=<"):
            fit(network(optimizer), CyclicLR(0.1, 0.2, 3))

    model = network()
    for others in ([CyclicLR(0.1, 0.2, 3)], [SnapshotEnsemble(2, 0.1)]):
        with pytest.raises(ValueError, match="only callback that sets the rate"):
            fit(model, CyclicLR(0.1, 0.2, 3), *others)
        assert_plain(model)

    def change(epoch, logs):
        if epoch == 1:
            model.optimizer._learning_rate = schedule

    with pytest.raises(ValueError, match=r"only callback.*Received: learning_rate=<"):
        fit(model, keras.callbacks.LambdaCallback(on_epoch_begin=change), CyclicLR(0.1, 0.2, 3))

    several = keras.optimizers.MultiOptimizer(lambda variable: inner)
    inner = keras.optimizers.SGD(0.1)
    with pytest.raises(ValueError, match=r"one optimizer.*Received: optimizer=<"):
        fit(network(several), CyclicLR(0.1, 0.2, 3))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"base_lr": -0.1}, "Received: base_lr=-0.1, max_lr=0.2"),
        ({"max_lr": 0.05}, "`max_lr` must be .*at least `base_lr`.*Received: base_lr=0.1, max_lr="),
        ({"max_lr": math.inf}, "must be finite.*Received: .*max_lr=inf"),
        ({"base_lr": math.nan}, "Received: base_lr=nan"),
        ({"step_size": 0}, "positive whole number. Received: step_size=0"),
        ({"step_size": 2.5}, "positive whole number. Received: step_size=2.5"),
        ({"step_size": math.nan}, "positive whole number. Received: step_size=nan"),
        ({"step_size": None}, "positive whole number. Received: step_size=None"),
        ({"mode": "cosine"}, r"one of \('triangular', .*Received: mode='cosine'"),
        ({"gamma": 0.0}, "Received: gamma=0.0"),
        ({"gamma": 1.1}, "Received: gamma=1.1"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        CyclicLR(**{"base_lr": 0.1, "max_lr": 0.2, "step_size": 3} | wrong)


def test_a_flat_cycle_and_whole_floats_are_fine():
    close(fit(network(), CyclicLR(0.3, 0.3, 2.0))[0], [0.3] * 2 * STEPS)

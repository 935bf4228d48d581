"""Batch norm as a regularizer: what the arms share, the controls and what happens without them."""

import dataclasses

import numpy as np
import pytest

from experiments.regularization import batchnorm_regularizer as experiment
from lab.claims.discovery import load_model
from lab.claims.vocabulary import Setting
from lab.engines import matched
from lab.engines.tune import Tuned
from lab.sweeps.trial import Trial
from tests.carried_out import CarriedOut, assert_all_have_what_is_needed

SETTING = Setting("smoke", "digits", "mlp", "tensorflow")
SMOKE = experiment.SCALES["smoke"]


def trial(arm, **scale):
    made = dataclasses.replace(experiment.EXPERIMENT, scales={"smoke": SMOKE | scale})
    return Trial("batchnorm_regularizer", made, arm, 0, SETTING, load_model("mlp"))


def drive(arm, **scale):
    return CarriedOut(trial(arm, **scale), lambda trial: experiment.run(trial))


@pytest.fixture(scope="module")
def done():
    return {arm: drive(arm) for arm in experiment.ARMS}


@pytest.fixture(scope="module")
def fits():
    made = {arm: trial(arm) for arm in experiment.ARMS}
    return {arm: experiment.fit(t, t.data(), 0.05) for arm, t in made.items()}


def layers(fit, kind):
    return [layer for layer in fit.model.layers if type(layer).__name__ == kind]


def test_arms_share_data_batch_steps_and_start(fits):
    first = fits["none"]
    for fit in fits.values():
        assert (fit.batch_size, fit.epochs) == (first.batch_size, first.epochs) == (128, 8)
        assert np.array_equal(fit.data[0], first.data[0])
        for one, other in zip(layers(fit, "Dense"), layers(first, "Dense"), strict=True):
            assert np.array_equal(np.asarray(one.kernel), np.asarray(other.kernel))


@pytest.mark.parametrize(
    ("arm", "kind", "dropout"),
    [
        ("none", None, False),
        ("batch", "BatchNormalization", False),
        ("group", "GroupNormalization", False),
        ("frozen", "FrozenBatchNormalization", False),
        ("ghost_8", "GhostBatchNormalization", False),
        ("none_dropout", None, True),
        ("batch_dropout", "BatchNormalization", True),
    ],
)
def test_arms_differ_in_their_normalization_and_dropout_alone(fits, arm, kind, dropout):
    kinds = {type(layer).__name__ for layer in fits[arm].model.layers}
    rest = {"InputLayer", "Flatten", "Dense", "Activation"}
    assert kinds - rest == ({kind} if kind else set()) | ({"Dropout"} if dropout else set())


def test_the_ghost_batch_varies_inside_of_one_sgd_batch(fits):
    for arm, size in experiment.GHOSTS.items():
        assert fits[arm].batch_size == 128
        for layer in layers(fits[arm], "GhostBatchNormalization"):
            assert layer.virtual_batch_size == size
    assert experiment.GHOSTS["batch"] == 128 and layers(fits["batch"], "BatchNormalization")


def test_every_claim_and_figure_has_what_it_needs(done):
    measured = assert_all_have_what_is_needed(experiment.EXPERIMENT, done)
    assert {arm for arm, *_ in measured.epochs} == set(experiment.ARMS)


def test_every_arm_costs_the_same(done):
    """Trap 5: as many trainings, each of as many steps."""
    costs = {
        tuple((fit.epochs, fit.batch_size, fit.size) for fit in one.fits) for one in done.values()
    }
    assert costs == {((8, 128, 256),) * (len(SMOKE["rates"]) + 1)}


def test_trap_9_every_arm_is_measured_at_a_rate_of_its_own(monkeypatch):
    def tuned(rows, fits):
        chosen = float(np.asarray(fits[-1].model.optimizer.learning_rate))
        same = chosen == pytest.approx(rows["learning_rate"])
        return same and rows["train_loss"] < 0.5 * rows["naive_train_loss"]

    scale = {"rates": (0.1, 1e-6, 1e-7), "naive_rate": 1e-6}
    one = drive("none", **scale)
    assert tuned(one.metrics, one.fits) and one.metrics["tuned_at_edge"] == 1

    def untuned(make_fit, rates, validation, score):
        made = [make_fit(rate) for rate in rates]
        histories = yield made
        middle = len(rates) // 2
        return Tuned(rates[middle], made[middle], histories[middle], False, [], made)

    monkeypatch.setattr(experiment, "tune", untuned)
    one = drive("none", **scale)
    assert not tuned(one.metrics, one.fits)


def test_an_undertrained_rate_is_never_chosen(monkeypatch):
    """Trap 5: even if validation likes it best, its gap is small for having trained less."""
    real = matched.evaluate

    def contrary(model, data):
        seen = real(model, data)
        return seen | {"accuracy": seen["loss"]}

    monkeypatch.setattr(matched, "evaluate", contrary)
    rates = (1e-6, 0.1, 0.3)
    assert drive("none", rates=rates).metrics["learning_rate"] > 1e-6
    eligible = drive("none", rates=rates, target=100.0)  # all of them
    assert eligible.metrics["learning_rate"] == 1e-6


def test_trap_2_statistics_belong_to_the_weights_that_are_chosen_and_measured(done, monkeypatch):
    def fresh(fit):
        """Whether the first statistics are the moments of what the layer gets from all of x."""
        seen = fit.data[0].reshape(len(fit.data[0]), -1) @ np.asarray(fit.model.layers[2].kernel)
        layer = layers(fit, "BatchNormalization")[0]
        return np.allclose(layer.moving_mean, seen.mean(0), atol=1e-4) and np.allclose(
            layer.moving_variance, seen.var(0), rtol=1e-3, atol=1e-4
        )

    assert all(map(fresh, done["batch"].fits))
    monkeypatch.setattr(experiment, "recalibration", lambda *_: lambda model: None)
    stale = drive("batch")
    assert not any(map(fresh, stale.fits))
    losses = [one.metrics["train_loss"] for one in (stale, done["batch"])]
    assert abs(losses[0] - losses[1]) > 0.01


def test_frozen_statistics_stay_those_of_the_initial_weights(done, monkeypatch):
    def frozen(one):
        kept = [
            np.array_equal(before, after)
            for fit, start in zip(one.fits, one.starts, strict=True)
            for before, after, variable in zip(
                start, fit.model.get_weights(), fit.model.weights, strict=True
            )
            if variable.name.startswith("moving")
        ]
        return len(kept) == 4 * len(one.fits) and all(kept)

    assert frozen(done["frozen"])
    first = done["frozen"].fits[0]
    x = first.data[0]
    seen = x.reshape(len(x), -1) @ done["frozen"].starts[0][0]
    layer = layers(first, "FrozenBatchNormalization")[0]
    assert np.allclose(layer.moving_mean, seen.mean(0), atol=1e-4)

    from callbacks import recalibrate_batchnorm

    def always(t, data):
        return lambda model: recalibrate_batchnorm(model, data.train.x)

    monkeypatch.setattr(experiment, "recalibration", always)
    assert not frozen(drive("frozen"))


def test_trap_11_the_engine_refuses_a_rate_chosen_with_the_test_data_in_view(monkeypatch):
    sound = experiment.recalibration

    def peeking(t, data):
        recalibrate = sound(t, data)
        return lambda model: (recalibrate(model), data.test)

    monkeypatch.setattr(experiment, "recalibration", peeking)
    with pytest.raises(RuntimeError, match="after it has read"):
        drive("batch")


def test_what_is_measured_is_the_chosen_training_undisturbed(done):
    from lab import evaluate, train

    rows, fits = done["batch_dropout"].metrics, done["batch_dropout"].fits
    t = trial("batch_dropout")
    data = t.data()
    alone = experiment.fit(t, data, rows["learning_rate"])
    assert all(map(np.array_equal, alone.model.get_weights(), done["batch_dropout"].starts[-1]))
    alone.seed = fits[SMOKE["rates"].index(rows["learning_rate"])].seed
    train(alone)  # without keeping the weights of every epoch
    experiment.recalibration(t, data)(alone.model)
    assert evaluate(alone.model, data.train)["loss"] == pytest.approx(rows["train_loss"], rel=1e-4)


def test_gaps_are_compared_where_the_training_loss_is_the_target(done):
    """Trap 9: the end of a training is further on. `lab.matched` has tests of its own."""
    rows = done["batch"].metrics
    assert rows["reached"] == 1 and rows["train_loss"] < 0.9 * SMOKE["target"]
    assert rows["matched_train_loss"] == pytest.approx(SMOKE["target"])
    assert rows["matched_accuracy_gap"] != rows["accuracy_gap"]
    assert rows["matched_bracket"] > 1


def test_a_target_that_was_not_reached_is_told():
    rows = drive("none", rates=(1e-6,), naive_rate=1e-6).metrics
    assert rows["reached"] == 0 and rows["matched_train_loss"] == rows["train_loss"] > 1
    gates = experiment.CLAIMS[0].gates
    values = {(arm, "reached"): float(arm == "batch") for arm in ("none", "batch")}
    reached = next(gate for gate in gates if gate.of.metric == "reached")
    assert reached.failure([reached.of.value(values)])


def claimed(id):
    return [claim.contrast for claim in experiment.CLAIMS if claim.id == id]


def test_the_slope_is_that_of_least_squares_over_doublings():
    gaps = {arm: 2 + np.sin(size) for arm, size in experiment.GHOSTS.items()}
    sizes = np.log2(list(experiment.GHOSTS.values()))
    for contrast, scaled in zip(claimed("R3b"), (np.asarray, np.log), strict=True):
        value = contrast.value({(arm, contrast.metric): gap for arm, gap in gaps.items()})
        assert value == pytest.approx(np.polyfit(sizes, scaled(list(gaps.values())), 1)[0])


def test_the_interaction_is_what_dropout_gains_without_minus_with():
    metrics = {"none": 0.90, "none_dropout": 0.93, "batch": 0.95, "batch_dropout": 0.94}
    values = {(arm, "test_accuracy"): value for arm, value in metrics.items()}
    (contrast,) = claimed("R3c")
    assert contrast.value(values) == pytest.approx(0.04)
    beside = experiment.CLAIMS[-1].beside["gain of dropout with"]
    assert beside.value(values) == pytest.approx(-0.01)

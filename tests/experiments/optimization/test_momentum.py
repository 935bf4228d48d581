"""The momentum experiment: equal budgets, equal lists of rates, each arm at its own best."""

import math

import pytest

from experiments.optimization import momentum
from lab.claims.discovery import load_model
from lab.claims.vocabulary import Setting
from lab.sweeps.trial import Trial
from tests.carried_out import CarriedOut, assert_all_have_what_is_needed

SETTING = Setting("smoke", "digits", "mlp", "tensorflow")
RATES = momentum.SCALES["smoke"]["rates"]


def done_by(arm):
    trial = Trial("momentum", momentum.EXPERIMENT, arm, 0, SETTING, load_model("mlp"))
    return CarriedOut(trial, momentum.run)


@pytest.fixture(scope="module")
def done():
    return {arm: done_by(arm) for arm in momentum.ARMS}


def test_every_claim_and_figure_has_what_it_needs(done):
    assert_all_have_what_is_needed(momentum.EXPERIMENT, done)


def test_all_arms_make_as_many_updates_at_the_same_rates(done):
    steps = momentum.SCALES["smoke"]["steps"]
    for arm, one in done.items():
        assert [fit.steps for fit in one.fits] == [steps] * len(RATES)
        assert one.metrics["steps"] == steps
        assert {fit.batch_size for fit in one.fits} == {128 if arm.endswith("full") else 16}
        schedules = [fit.model.optimizer._learning_rate for fit in one.fits]
        assert [s.initial_learning_rate for s in schedules] == pytest.approx(RATES)
        assert {s.decay_steps for s in schedules} == {steps}
        assert {int(fit.model.optimizer.iterations) for fit in one.fits} == {steps}


@pytest.mark.parametrize("scale", momentum.SCALES)
@pytest.mark.parametrize("size", [16, None])
def test_every_scale_divides_into_equal_updates(scale, size):
    """Without it the two batches would differ in budget, and the interaction with it."""
    scale = momentum.SCALES[scale]
    n, size = scale["train_size"], size or scale["train_size"]
    assert n % size == 0 and scale["steps"] * size % n == 0


def test_arms_differ_in_momentum_and_batch_alone(done):
    for arm, one in done.items():
        assert {fit.model.optimizer.momentum for fit in one.fits} == {
            0.9 if arm.startswith("momentum") else 0.0
        }
    for a, b in zip(done["sgd_16"].fits, done["momentum_16"].fits, strict=True):
        assert a.seed == b.seed and (a.data[0] == b.data[0]).all()


def test_training_is_judged_at_the_rate_with_the_lowest_loss(done):
    for one in done.values():
        losses = [one.metrics[f"train_loss@{rate:g}"] for rate in RATES]
        assert one.metrics["train_loss"] == min(losses)
        assert one.metrics["loss_at_edge"] == (min(losses) in (losses[0], losses[-1]))
        assert one.metrics["naive_train_loss"] == losses[RATES.index(0.01)]


def test_naive_compares_at_one_rate_and_the_claim_at_each_arms_own():
    (claim, *_) = momentum.CLAIMS
    assert claim.contrast.weights == {"sgd_16": 1, "momentum_16": -1} and claim.contrast.log
    assert claim.contrast.metric == "train_loss"
    assert claim.beside["naive"].metric == "naive_train_loss"
    assert claim.beside["naive"].weights == claim.contrast.weights
    edges = {gate.of.metric for gate in claim.gates}
    assert edges == {"loss_at_edge"} and {gate.of.arms[0] for gate in claim.gates} == {
        *claim.contrast.arms
    }


def test_the_interaction_is_the_full_batch_minus_the_small_one():
    (claim,) = (c for c in momentum.CLAIMS if c.under.startswith("more so"))
    losses = {"sgd_full": 8.0, "momentum_full": 1.0, "sgd_16": 4.0, "momentum_16": 2.0}
    values = {(arm, "train_loss"): loss for arm, loss in losses.items()}
    assert claim.contrast.value(values) == pytest.approx(math.log(8 / 2))


def test_a_rate_that_diverges_counts_as_the_worst():
    scales = {"smoke": momentum.SCALES["smoke"] | {"rates": (0.01, 0.1, 1e20)}}
    experiment = momentum.Experiment(
        title="", source="", arms=momentum.ARMS, scales=scales, claims=[], run=momentum.run
    )
    trial = Trial("momentum", experiment, "sgd_16", 0, SETTING, load_model("mlp"))
    metrics = CarriedOut(trial, momentum.run).metrics
    assert metrics["train_loss@1e+20"] == momentum.WORST
    assert metrics["learning_rate"] < 1 and metrics["train_loss"] < 3

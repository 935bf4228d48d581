"""The snapshot experiment: budgets, members, choices, and a whole smoke run of every arm."""

import dataclasses

import numpy as np
import pytest

from callbacks import recalibrate_batchnorm
from experiments.ensembles import snapshot_ensemble as experiment
from lab.claims.discovery import load_model
from lab.claims.vocabulary import Setting
from lab.engines.ensembles import equivalent
from lab.engines.predictions import probabilities, scores
from lab.sweeps.trial import Trial
from tests.carried_out import CarriedOut, assert_all_have_what_is_needed

SETTING = Setting("smoke", "digits", "mlp", "tensorflow")
ONE_BUDGET = ("single_cosine", "single_step", "no_cycle", "short_runs", "cyclic")
ONE_BUDGET += ("cyclic_low", "cyclic_high")
FIVE_BUDGETS = ("long_single", "independent", "repeated", "mixed")
CYCLES = experiment.CYCLES


def carry_out(arm, **scale):
    spec = experiment.EXPERIMENT
    spec = dataclasses.replace(spec, scales={"smoke": spec.scales["smoke"] | scale})
    trial = Trial("snapshot_ensemble", spec, arm, 0, SETTING, load_model("mlp"))
    return CarriedOut(trial, experiment.run)


@pytest.fixture(scope="module")
def ran():
    return {arm: carry_out(arm) for arm in experiment.ARMS}


def updates(fits):
    return sum(fit.epochs * -(-len(fit.data[0]) // fit.batch_size) for fit in fits)


def test_every_claim_and_figure_has_what_it_needs(ran):
    assert_all_have_what_is_needed(experiment.EXPERIMENT, ran)
    assert all("naive" in claim.beside for claim in experiment.CLAIMS)


def test_equal_budgets_are_equal_in_steps(ran):
    """Trap 8: steps as the optimizers have counted them, and as the fits ask for them."""
    budget = updates(ran["single_cosine"].rounds[0][:1])
    for arm in (*ONE_BUDGET, *FIVE_BUDGETS):
        assert ran[arm].metrics["steps"] == budget * (1 if arm in ONE_BUDGET else CYCLES), arm
    for arm in ("single_cosine", "single_step", "no_cycle", "short_runs", "cyclic"):
        rates = len(ran[arm].trial.scale["rates"])
        assert updates(ran[arm].rounds[0]) == budget * rates, arm  # as many candidates, as long
    assert updates(ran["cyclic_high"].rounds[0]) == budget
    searched = [
        [updates(fits) for fits in ran[arm].rounds[:CYCLES]] for arm in ("mixed", "repeated")
    ]
    assert searched[0] == searched[1]


def test_short_runs_of_full_length_fail_the_gate(ran, monkeypatch):
    """Trap 8, the control taken out: the gate of equal budgets notices."""

    def full(trial, data, arm, rate, member):
        return one_run(trial, data, {"schedule": arm["schedule"]}, rate, member)

    def failure(short):
        gate = experiment.fair("short_runs", "single_cosine")[-1]
        both = {("short_runs", "steps"): short, ("single_cosine", "steps"): single}
        return gate.failure([gate.of.value(both)])

    one_run, single = experiment.one_run, ran["single_cosine"].metrics["steps"]
    assert failure(ran["short_runs"].metrics["steps"]) is None
    monkeypatch.setattr(experiment, "one_run", full)
    assert "as many steps" in failure(carry_out("short_runs", rates=(0.1,)).metrics["steps"])


def test_arms_share_weights_data_and_order(ran):
    first = ran["single_cosine"].rounds[0][0]
    for arm in ("single_step", "no_cycle", "short_runs", "cyclic", "independent", "mixed"):
        fit = ran[arm].rounds[0][0]
        assert np.array_equal(fit.data[0], first.data[0]) and fit.seed == first.seed
    fits = ran["short_runs"].rounds[0][:CYCLES]
    assert len({fit.seed for fit in fits}) == CYCLES
    # The first of the independent models is the single model, not one that is like it.
    single, several = ran["single_cosine"].metrics, ran["independent"].metrics
    for metric in ("test_accuracy", "nll"):
        assert several[f"{metric}@1"] == single[metric]
    gain = several["test_accuracy"] - single["test_accuracy"]
    assert several[f"test_accuracy@{CYCLES}"] - several["test_accuracy@1"] == gain


def test_plain_snapshots_come_from_the_very_run_of_step_decay(ran):
    for plain, kept in zip(ran["single_step"].rounds[0], ran["no_cycle"].rounds[0], strict=True):
        kept.model.set_weights(kept.callbacks[0].snapshots[-1])
        pairs = zip(plain.model.trainable_variables, kept.model.trainable_variables, strict=True)
        assert all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)
        rate = kept.model.optimizer._learning_rate
        steps = updates([kept])
        shares = [float(rate(int(steps * share))) for share in (0.0, 0.49, 0.6, 0.74, 0.9, 1.0)]
        falls = np.array([1, 1, 0.1, 0.1, 0.01, 0.01])
        assert np.array(shares) / shares[0] == pytest.approx(falls, rel=1e-5)


@pytest.mark.parametrize("arm", ["no_cycle", "cyclic", "cyclic_low", "cyclic_high"])
def test_members_are_all_snapshots_of_one_run_and_nothing_else(ran, arm):
    """Trap 8: no best checkpoint among them, none left out, none weighted."""
    fits = ran[arm].rounds[0]
    rates = ran[arm].trial.scale["rates"]
    rate = ran[arm].metrics["learning_rate"]
    fit = fits[0] if len(fits) == 1 else fits[[pytest.approx(rate) == r for r in rates].index(True)]
    snapshots = fit.callbacks[0].snapshots
    assert len(snapshots) == CYCLES == ran[arm].metrics["members"]
    data = ran[arm].trial.data()
    test, each = data.test, []
    for weights in snapshots:
        fit.model.set_weights(weights)
        recalibrate_batchnorm(fit.model, data.train.x)
        each.append(probabilities(fit.model, test.x))
    assert ran[arm].metrics["test_accuracy"] == scores(np.mean(each, 0), test.y)["accuracy"]
    assert ran[arm].metrics["last_member_accuracy"] == scores(each[-1], test.y)["accuracy"]
    two = scores(np.mean(each[-2:], 0), test.y)["accuracy"]
    assert ran[arm].metrics["test_accuracy@2"] == two
    assert ran[arm].metrics["raw_nll"] == pytest.approx(scores(np.mean(each, 0), test.y)["nll"])


def test_cycles_are_worth_as_many_of_this_seed_s_independent_models_as_they_say(ran):
    own, independent = ran["cyclic"].metrics, ran["independent"].metrics
    alone = [independent[f"nll@{m}"] for m in range(1, CYCLES + 1)]
    assert own["deep_ensemble_equivalent"] == equivalent(own["nll"], alone)


def test_mixed_members_differ_in_their_settings_and_repeated_ones_in_their_seeds(ran):
    def described(fits):
        models = [fit.model for fit in fits]
        return [
            (repr([layer.get_config().get("activation") for layer in model.layers]),
             [tuple(v.shape) for v in model.trainable_variables], len(model.layers),
             model.optimizer.weight_decay)
            for model in models
        ]  # fmt: skip

    mixed = [fits[0] for fits in ran["mixed"].rounds]
    assert len(mixed) == CYCLES and len({repr(one) for one in described(mixed)}) == CYCLES
    again = ran["repeated"].rounds[CYCLES]
    assert len(again) == CYCLES - 1 and len({repr(one) for one in described(again)}) == 1
    # Found by the search, each with a seed of its own.
    assert repr(described(again)[0]) in {repr(one) for one in described(mixed)}
    assert len({fit.seed for fit in again}) == CYCLES - 1


@pytest.mark.parametrize("model", experiment.SETTINGS)
def test_settings_cost_no_more_than_the_first(model):
    build = load_model(model)
    for shape in ((8, 8, 1), (40, 1)):
        sizes = [
            build(
                shape, 10, **{k: v for k, v in setting.items() if k != "weight_decay"}
            ).count_params()
            for setting in experiment.SETTINGS[model]
        ]
        assert len(sizes) == CYCLES and max(sizes) <= 1.03 * sizes[0]


def chosen(one):
    """What a trial has chosen, as far as it can be seen from what it recorded."""
    return [one.metrics[name] for name in ("learning_rate", "tuned_at_edge", "train_loss")]


def with_wrong_test_labels(monkeypatch):
    from lab.data import loading

    load = loading.load

    def wrong(*args, **kwargs):
        loaded = load(*args, **kwargs)
        test = loaded._test
        labels = ((test.y + 1) % loaded.classes).astype(test.y.dtype)
        return dataclasses.replace(loaded, _test=type(test)(test.x, labels))

    monkeypatch.setattr(loading, "load", wrong)


def choosing_on_test(trial, data, *args):
    """The mistake: `trained` by test data (behind the back of `Data.test`)."""
    return trained(trial, dataclasses.replace(data, validation=data._test), *args)


trained = experiment.trained


@pytest.mark.parametrize("arm", ["single_cosine", "no_cycle", "repeated"])
def test_nothing_is_chosen_on_test_data(ran, monkeypatch, arm):
    """Traps 8 and 11; with the control taken out, other test labels choose other models."""
    # On wrong labels the rate that learns nothing is better, or the worst setting.
    rates = {"rates": (0.1,) if arm == "repeated" else (1e-4, 0.1)}
    honest = chosen(carry_out(arm, **rates))
    monkeypatch.setattr(experiment, "trained", choosing_on_test)
    careless = chosen(carry_out(arm, **rates))
    with_wrong_test_labels(monkeypatch)
    assert chosen(carry_out(arm, **rates)) != careless
    monkeypatch.setattr(experiment, "trained", trained)
    assert chosen(carry_out(arm, **rates)) == honest


def test_test_data_is_read_after_the_last_training(monkeypatch):
    """Trap 11: the engine refuses what follows a look at test data."""

    def peeking(trial, data, *args):
        data.test  # noqa: B018
        return trained(trial, data, *args)

    monkeypatch.setattr(experiment, "trained", peeking)
    with pytest.raises(RuntimeError, match=r"read `data\.test`"):
        carry_out("single_cosine")


@pytest.mark.parametrize("arm", ["no_cycle", "short_runs"])
def test_every_member_has_batch_norm_statistics_of_its_own(monkeypatch, arm):
    """Trap 2: wherever probabilities are taken, to choose or to measure; and the control off."""
    import callbacks
    from lab.engines import predictions

    take, off = predictions.probabilities, []

    def watched(model, x):
        before = [np.array(v) for v in model.non_trainable_variables]
        recalibrate_batchnorm(model, train.x)
        pairs = zip(before, model.non_trainable_variables, strict=True)
        off.append(max(np.abs(a - np.array(b)).max() for a, b in pairs))
        for variable, value in zip(model.non_trainable_variables, before, strict=True):
            variable.assign(value)
        return take(model, x)

    train = Trial("snapshot_ensemble", experiment.EXPERIMENT, arm, 0, SETTING).data().train
    monkeypatch.setattr(predictions, "probabilities", watched)
    carry_out(arm)
    assert off and max(off) < 1e-5
    off.clear()
    monkeypatch.setattr(callbacks, "recalibrate_batchnorm", lambda model, x: None)
    carry_out(arm)
    assert min(off) > 1e-2


def test_a_rate_that_diverges_is_not_chosen():
    for arm in ("no_cycle", "short_runs"):
        metrics = carry_out(arm, rates=(0.03, 1e12)).metrics
        assert metrics["learning_rate"] == pytest.approx(0.03)


def test_a_trial_gives_the_same_rows_again(ran):
    assert carry_out("no_cycle").trial.rows == ran["no_cycle"].trial.rows

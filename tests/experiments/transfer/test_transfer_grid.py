"""The transfer experiment: budgets, what is taken over and trained, what is chosen on what."""

import dataclasses
import sys

import numpy as np
import pytest

import callbacks
from experiments.transfer import transfer_grid
from lab.claims.discovery import load_model
from lab.claims.vocabulary import Setting
from lab.data import loading as lab_data
from lab.sweeps.trial import Trial
from tests.carried_out import CarriedOut, assert_all_have_what_is_needed

METHODS, CELLS, ARMS = transfer_grid.METHODS, transfer_grid.CELLS, transfer_grid.ARMS
RATIOS = transfer_grid.SCALES["smoke"]["ratios"]


def batchnorm_mlp(shape, classes, **options):
    from models.mlp import mlp

    return mlp(shape, classes, normalization="batch", widths=(16, 16), **options)


def trial(arm, seed=0, experiment=transfer_grid.EXPERIMENT, build=None, data="digits"):
    build = build or load_model("mlp")
    setting = Setting("smoke", data, build.__name__, "tensorflow")
    return Trial("transfer_grid", experiment, arm, seed, setting, build)


def carry_out(arm, **options):
    return CarriedOut(trial(arm, **options), transfer_grid.run)


@pytest.fixture(scope="module")
def done():
    return {arm: carry_out(arm) for arm in ARMS}


def last(one):
    """The target's last training at the first rate, and the weights that went into it."""
    first = len(one.fits) - len(one.rounds[-1])
    assert one.fits[first] is one.rounds[-1][0]
    return one.fits[first], one.starts[first]


def updates(fit):
    return fit.epochs * -(-fit.size // fit.batch_size)


def forget_pretrainings():
    sys.modules["lab.engines.once"]._kept.clear()


@pytest.fixture
def none_kept():
    """No pretraining of another test, and none of this one for another."""
    forget_pretrainings()
    yield
    forget_pretrainings()


def test_every_claim_and_figure_has_what_it_needs(done):
    assert_all_have_what_is_needed(transfer_grid.EXPERIMENT, done)
    for lines in transfer_grid.FIGURES[-1].panels.values():
        for _, arm, name in lines:
            assert {f"{name}@{ratio:g}" for ratio in RATIOS} <= set(done[arm].metrics)


def test_metrics_of_the_candidates_are_those_of_the_choice(done):
    for one in done.values():
        m = one.metrics
        assert m["test_accuracy"] == m[f"test_accuracy_ratio@{m['learning_rate_ratio']:g}"]
        assert m["untuned_accuracy"] == m["test_accuracy_ratio@1"]
        gain = m["test_accuracy_ratio@0.1"] - m["test_accuracy_ratio@1"]
        assert m["lower_rate_gain"] == pytest.approx(gain)
        assert m["lower_rate_gain_chosen_on_test"] >= m["lower_rate_gain"] - 1e-12


def test_all_arms_have_the_same_budget_but_scratch_ten_times_it(done):
    """Trap 10: also that the claim reads the ten times, and names the equal steps naive."""
    usual = 2 * 50 // 25
    for arm, one in done.items():
        expected = usual * (10 if arm.endswith("_10x") else 1)
        assert sum(updates(candidates[0]) for candidates in one.rounds) == expected
        assert one.metrics["steps"] == expected
        for candidates in one.rounds:
            assert len({updates(fit) for fit in candidates}) == 1
            assert {fit.batch_size for fit in candidates} == {25}
    (claim,) = (claim for claim in transfer_grid.CLAIMS if claim.id == "T3")
    assert claim.contrast.weights["similar_little_scratch_10x"] == -1
    assert claim.beside["naive"].weights["similar_little_scratch"] == -1


def test_all_arms_try_the_same_rates(done):
    for one in done.values():
        for candidates in one.rounds:
            schedules = [fit.model.optimizer._learning_rate for fit in candidates]
            tried = [schedule.initial_learning_rate for schedule in schedules]
            assert tried == pytest.approx([0.03 * ratio for ratio in RATIOS])
            assert {schedule.decay_steps for schedule in schedules} == {updates(candidates[0])}


def test_all_arms_of_a_seed_see_the_same_batches(done):
    """Also those that need no pretraining: it counts as asked for in every arm."""
    firsts = [[fit.seed for fit in one.rounds[0]] for one in done.values()]
    assert all(seeds == firsts[0] for seeds in firsts)
    assert len(set(firsts[0])) == len(RATIOS)


def test_little_data_is_repeated_to_the_size_of_much(done):
    little, much = (last(done[f"similar_{size}_full"])[0] for size in ("little", "much"))
    assert little.size == much.size == 50
    _, counts = np.unique(little.data[0].reshape(50, -1), axis=0, return_counts=True)
    assert counts.tolist() == [2] * 25


def test_arms_train_what_they_say(done):
    """Kernels and biases of three layers; of the probes those of one."""
    changed = {}
    for method in METHODS:
        one = done[f"similar_much_{method}"]
        fit, start = last(one)
        after = fit.model.get_weights()
        changed[method] = [(a != b).any() for a, b in zip(start, after, strict=True)]
    whole = [True] * 6
    assert changed["full"] == changed["lp_ft"] == changed["scratch"] == whole
    assert changed["last2"] == [False] * 2 + [True] * 4
    for probe in ("probe_top", "probe_early", "random_features"):
        assert changed[probe] == [True] * 2


def test_what_arms_start_from(done):
    starts = {method: last(done[f"similar_much_{method}"])[1] for method in METHODS}
    scratch, full = starts["scratch"], starts["full"]
    for a, b in zip(full, starts["last2"], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(full[:4], starts["lp_ft"][:4], strict=True):  # the same body, a trained head
        np.testing.assert_array_equal(a, b)
    assert (full[4] != starts["lp_ft"][4]).any()
    assert (full[0] != scratch[0]).any() and (full[4] == scratch[4]).all()  # another body
    for a, b in zip(scratch, starts["scratch_10x"], strict=True):
        np.testing.assert_array_equal(a, b)
    for probe in ("probe_top", "probe_early", "random_features"):
        assert not any(weight.any() for weight in starts[probe])


def test_a_new_head_does_not_start_where_the_old_one_did():
    """Found in design: both were drawn from the trial's seed, and both have 5 classes."""
    t = trial("similar_little_full")
    source, target = transfer_grid.tasks(t)
    old = transfer_grid.pretraining(t, source).model.layers[-1].get_weights()[0]
    new = transfer_grid.fresh_network(t, target).layers[-1].get_weights()[0]
    assert old.shape == new.shape and abs(np.corrcoef(old.ravel(), new.ravel())[0, 1]) < 0.2


def test_probes_see_the_features_of_their_layer(done):
    """A second computation in NumPy; the pretrained body is that of the fine-tuned arm."""
    _, target = transfer_grid.tasks(trial("different_little_probe_top"))
    seen = {"top": "random_features", "pretrained top": "probe_top", "early": "probe_early"}
    bodies = {"random_features": "scratch"}
    for method in seen.values():
        weights = last(done[f"different_little_{bodies.get(method, 'full')}"])[1]
        expected = target.train.x.reshape(25, -1)
        for kernel, bias in [weights[:2], weights[2:4]][: 1 if method == "probe_early" else 2]:
            expected = np.maximum(expected @ kernel + bias, 0)
        x, y = last(done[f"different_little_{method}"])[0].data
        np.testing.assert_allclose(x[:25], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(y[:25], target.train.y)


def test_the_last_two_layers_of_a_convolutional_network():
    fit, start = last(carry_out("different_little_last2", build=load_model("convnet")))
    after = fit.model.get_weights()
    changed = [(a != b).any() for a, b in zip(start, after, strict=True)]
    assert changed == [False] * (len(after) - 4) + [True] * 4


def rows_of_second_arm():
    """Rows of an arm that follows another of its seed in one process."""
    carry_out("similar_little_probe_top")
    return carry_out("similar_little_full").trial.rows


def test_rows_do_not_depend_on_who_pretrained(none_kept, monkeypatch):
    taken_over = rows_of_second_arm()
    forget_pretrainings()
    assert carry_out("similar_little_full").trial.rows == taken_over

    # The control taken out: a pretraining that depends on the arm is noticed.
    usual = transfer_grid.pretraining

    def of_the_arm(trial, source):
        fit = usual(trial, source)
        fit.epochs = 1 + trial.arm_name.endswith("probe_top")
        return fit

    monkeypatch.setattr(transfer_grid, "pretraining", of_the_arm)
    forget_pretrainings()
    taken_over = rows_of_second_arm()
    forget_pretrainings()
    assert carry_out("similar_little_full").trial.rows != taken_over


def test_seeds_draw_the_subset_and_methods_share_it():
    def target(arm, seed=0):
        return transfer_grid.tasks(trial(arm, seed))[1]

    one, same = target("similar_little_full"), target("similar_little_scratch_10x")
    np.testing.assert_array_equal(one.train.x, same.train.x)
    other = target("similar_little_full", seed=1)
    assert one.train.x.shape == other.train.x.shape and (one.train.x != other.train.x).any()


def test_little_and_much_are_chosen_and_measured_on_the_same_examples():
    little, much = (
        transfer_grid.tasks(trial(f"similar_{size}_full"))[1] for size in ("little", "much")
    )
    np.testing.assert_array_equal(little.validation.y, much.validation.y)
    np.testing.assert_array_equal(little.test.y, much.test.y)


CHOICES = ("learning_rate", "tuned_at_edge", "validation_accuracy", "head_ratio", "train_loss")


def choices(done):
    return {name: done.metrics.get(name) for name in CHOICES}


@pytest.mark.parametrize("method", ["probe_top", "lp_ft", "full"])
def test_test_data_chooses_nothing(done, method, monkeypatch):
    """Trap 11: with other labels of the test data only what is measured on it changes."""
    arm = f"different_little_{method}"
    usual = lab_data.load

    def spoiled(part, *args, **kwargs):
        data = usual(*args, **kwargs)
        split = data._test if part == "_test" else data.validation
        wrong = split._replace(y=(split.y + 1) % data.classes)
        return dataclasses.replace(data, **{part: wrong})

    with monkeypatch.context() as patch:
        patch.setattr(lab_data, "load", lambda *a, **k: spoiled("_test", *a, **k))
        other = carry_out(arm)
    assert choices(other) == choices(done[arm])
    assert other.metrics["test_accuracy"] != done[arm].metrics["test_accuracy"]

    # The control taken out: choosing on what was spoiled is noticed.
    with monkeypatch.context() as patch:
        patch.setattr(lab_data, "load", lambda *a, **k: spoiled("validation", *a, **k))
        assert choices(carry_out(arm)) != choices(done[arm])


@pytest.mark.parametrize("arm", ["similar_little_probe_top", "different_little_lp_ft"])
def test_reading_the_target_s_test_data_before_a_training_is_refused(arm, monkeypatch):
    """The trial keeps the data as they were loaded; what is read is a view of them."""
    usual = callbacks.recalibrate_batchnorm
    read = []

    def tasks(trial):
        source, target = original(trial)
        read.append(target)
        return source, target

    def early(model, x):  # what comes between the source's training and the target's
        usual(model, x)
        assert len(read[-1].through(lambda x: x[:, :1]).test.y)

    original = transfer_grid.tasks
    monkeypatch.setattr(transfer_grid, "tasks", tasks)
    carry_out(arm)
    assert read[-1].test_was_read
    monkeypatch.setattr(callbacks, "recalibrate_batchnorm", early)
    with pytest.raises(RuntimeError, match=r"data\.test"):
        carry_out(arm)


@pytest.mark.parametrize("method", ["full", "last2", "scratch"])
def test_batchnorm_statistics_are_those_of_the_target_when_measured(method, none_kept, monkeypatch):
    """Trap 2, in each kind of arm that has such layers; without recomputation they are stale."""
    usual = callbacks.recalibrate_batchnorm

    def difference():
        one = carry_out(f"different_little_{method}", build=batchnorm_mlp)
        model = last(one)[0].model
        before = model.get_weights()
        usual(model, transfer_grid.tasks(one.trial)[1].train.x)
        after = model.get_weights()
        return max(float(np.abs(a - b).max()) for a, b in zip(before, after, strict=True))

    assert difference() < 1e-5
    monkeypatch.setattr(callbacks, "recalibrate_batchnorm", lambda model, x: None)
    assert difference() > 0.01


@pytest.mark.parametrize("target", ["similar", "different"])
def test_a_class_missing_from_the_little_data_is_said(target):
    scales = {"smoke": transfer_grid.SCALES["smoke"] | {"little": 1}}
    experiment = dataclasses.replace(transfer_grid.EXPERIMENT, scales=scales)
    with pytest.raises(ValueError, match=r"every one of \d classes.*train_size=1"):
        carry_out(f"{target}_little_full", experiment=experiment)


@pytest.mark.parametrize(
    ("data", "different"), [("digits", "photo_patches"), ("mnist1d", "photo_rows")]
)
def test_targets(data, different, monkeypatch):
    loaded = []
    usual = lab_data.load
    monkeypatch.setattr(
        lab_data, "load", lambda name, *a, **k: loaded.append((name, k)) or usual(name, *a, **k)
    )
    for arm in ("similar_much_full", "different_much_full"):
        transfer_grid.tasks(trial(arm, data=data))
    names = [(name, k["classes"]) for name, k in loaded if k.get("test_size") is None]
    assert names == [
        (data, range(5)),
        (data, range(5, 10)),
        (data, range(5)),
        (different, range(2)),
    ]

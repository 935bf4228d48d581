"""The batch-size experiment: budgets, rules, and a whole smoke run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.generalization import batch_size
from lab.claims.discovery import load_model
from lab.claims.vocabulary import Setting
from lab.records import store
from lab.sweeps.trial import Trial
from tests.needs import assert_has_what_it_needs, measured_in

ROOT = Path(__file__).resolve().parents[3]
SETTING = Setting("smoke", "digits", "mlp", "tensorflow")


def trial(arm):
    return Trial("batch_size", batch_size.EXPERIMENT, arm, 0, SETTING, load_model("mlp"))


@pytest.fixture(scope="module")
def fits():
    made = {}
    for arm in batch_size.TRAINED_ARMS:
        t = trial(arm)
        rate = 0.05 if t.arm["rule"] == "tuned" else None
        made[arm] = batch_size.fit(t, t.data(), t.arm, rate)
    return made


def updates(fit):
    return fit.epochs * -(-len(fit.data[0]) // fit.batch_size)


@pytest.mark.parametrize("arm", batch_size.TRAINED_ARMS)
def test_budgets_are_what_the_arm_says(fits, arm):
    small = fits["small"]
    if "epochs" in arm or arm.startswith("small"):
        assert fits[arm].epochs == small.epochs
    if "steps" in arm or arm.startswith("small"):
        assert updates(fits[arm]) == updates(small)
    assert fits[arm].batch_size == (16 if arm.startswith("small") else 64)


@pytest.mark.parametrize(("rule", "factor"), [("same", 1), ("sqrt", 2), ("linear", 4)])
def test_rates_follow_their_rule(fits, rule, factor):
    import numpy as np

    base = batch_size.SCALES["smoke"]["learning_rate"]
    fit = fits[f"large_steps_{rule}"]
    schedule = fit.model.optimizer._learning_rate
    rates = np.array([float(schedule(step)) for step in range(updates(fit) + 1)])
    assert rates.max() == pytest.approx(base * factor, rel=1e-5)
    assert rates[-1] == pytest.approx(0, abs=1e-8)
    if rule == "linear":
        assert rates[0] == pytest.approx(base, rel=1e-5) and rates.argmax() == updates(fit) // 20
    else:
        assert rates.argmax() == 0


def test_arms_of_a_seed_start_from_the_same_weights_and_data(fits):
    import numpy as np

    first = fits["small"]
    for fit in fits.values():
        assert np.array_equal(fit.data[0], first.data[0])
        for a, b in zip(fit.model.trainable_variables, first.model.trainable_variables):  # noqa: B905
            assert np.array_equal(np.asarray(a), np.asarray(b))


def run(results, *words):
    command = [sys.executable, "-m", "lab", "experiment", "--name=batch_size", "--scale=smoke"]
    return subprocess.run(
        [*command, "--seeds=1", f"--results={results}", *words],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    done = run(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_claim_and_figure_has_what_it_needs(results):
    measured = measured_in(results)
    assert_has_what_it_needs(batch_size.EXPERIMENT, measured)
    assert {arm for arm, *_ in measured.epochs} == set(batch_size.ARMS) - {"line"}


def test_one_seed_of_two_is_incomplete_for_every_claim(results):
    lines = (results / "verdicts.csv").read_text().splitlines()[1:]
    assert len(lines) == len(batch_size.CLAIMS)
    assert all(",incomplete,1 of 2 seeds" in line for line in lines)


@pytest.mark.slow
def test_a_trial_gives_the_same_rows_in_another_process_and_order(results, tmp_path):
    before = (results / "batch_size.csv").read_bytes()
    shutil.copytree(results, tmp_path / "again")
    setting = tmp_path / "again/batch_size" / SETTING.folder
    for arm in ("large_steps_tuned", "small", "line"):
        shutil.rmtree(setting / arm)
    done = run(tmp_path / "again", "--jobs=1")
    assert done.returncode == 0 and "3 to run" in done.stdout
    assert (tmp_path / "again/batch_size.csv").read_bytes() == before


def test_the_line_ends_at_the_two_solutions(results):
    def metrics(arm):
        _, rows = store.read(results, store.Key("batch_size", SETTING, arm, 0))
        return {metric: value for _, metric, value in rows}

    line = metrics("line")
    for name in ("train_loss", "test_accuracy"):
        assert line[f"line_{name}@0"] == pytest.approx(metrics("small")[name], rel=1e-5)
        # The second training of a trial visits the examples in another order: near, not equal.
        large = metrics("large_steps_same")[name]
        assert line[f"line_{name}@1"] == pytest.approx(large, abs=0.1)

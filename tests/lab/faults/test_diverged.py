"""Losses and measurements that are not finite: told, kept, counted; never dropped or averaged."""

import csv
import io
import json
import re

import pytest

RATES = """
from lab import Claim, Contrast, Experiment, Fit
def run(trial):
    import keras
    data = trial.data(train_size=200)
    rate = 1e30 if trial.arm["wild"] and trial.seed == 1 else 0.05
    model = trial.classifier(data, keras.optimizers.SGD(rate))
    trial.record_history((yield Fit(model, data.train, batch_size=50, epochs=3)))
    trial.record(test_accuracy=model.evaluate(*data.test, verbose=0)[1])
EXPERIMENT = Experiment(title="t", source="s", run=run, scales={"smoke": {"seeds": 3}},
    arms={"calm": {"wild": 0}, "wild": {"wild": 1}}, claims=[Claim(id="A", says="x", margin=0.1,
    contrast=Contrast("test_accuracy", {"wild": 1, "calm": -1}), unit="u", literature="none"),
    Claim(id="B", says="y", contrast=Contrast("test_accuracy", {"calm": 1}), margin=0.1,
    unit="u", literature="none")])
"""


def verdicts(project):
    text = (project.results / "verdicts.csv").read_text()
    return {row["claim"]: row for row in csv.DictReader(io.StringIO(text))}


@pytest.mark.parametrize("engine", ["fused", pytest.param("plain", marks=pytest.mark.faults)])
def test_a_training_whose_loss_overflows_is_diverged_and_rules_its_claims_out(project, engine):
    project.experiment("rates", RATES)
    done = project.run("rates", "--engine", engine, timeout=300)
    assert done.returncode == 1
    assert "DIVERGED: wild, seed 1: the training loss became" in done.stdout
    status = {}
    for name, content in project.files().items():
        if name.endswith(("seed-0.json", "seed-1.json", "seed-2.json")):
            arm, seed = name.split("/")[2:]
            status[arm, int(seed[5])] = json.loads(content)["status"]
    arms = [(arm, seed) for arm in ("calm", "wild") for seed in range(3)]
    assert status == {one: "diverged" if one == ("wild", 1) else "done" for one in arms}
    (trial,) = [text for name, text in project.files().items() if name.endswith("wild/seed-1.csv")]
    assert trial.decode().splitlines()[-1].endswith(",,diverged,1.0")
    found = verdicts(project)
    assert found["A"]["verdict"] == "invalid"
    assert found["A"]["reason"] == "1 trials diverged in wild"
    assert found["B"]["verdict"] == "supported"  # its arm is not touched
    page = (project.results / "report.html").read_text()
    assert "1 trial diverged" in re.sub(r"\s+", " ", re.sub("<[^>]+>", "", page))
    again = project.run("rates", "--engine", engine)
    assert again.returncode == 1 and "6 cached, 0 to run" in again.stdout


@pytest.mark.parametrize(
    "value", ["nan", *(pytest.param(inf, marks=pytest.mark.faults) for inf in ("inf", "-inf"))]
)
def test_a_measurement_that_is_not_finite_is_kept_and_makes_its_claim_invalid(project, value):
    source = (project.folder / "experiments/toy.py").read_text()
    odd = source.replace(
        "trial.record(score=", f"odd = float('{value}') if trial.seed == 1 else 0.0\n"
        "    trial.record(score=odd + "
    )  # fmt: skip
    project.experiment("toy", odd)
    done = project.run()
    assert done.returncode == 0, done.stderr  # a trial may measure this; a verdict may not use it
    found = verdicts(project)
    for claim in ("A1", "A2", "A3"):
        assert found[claim]["verdict"] == "invalid" and found[claim]["n"] == "3"
        assert found[claim]["effect"] in ("", "nan")
    assert found["A1"]["reason"] == "1 of 3 seeds gave no finite value"
    assert (project.results / "toy.csv").read_text().count(f",score,{value}\n") == 2

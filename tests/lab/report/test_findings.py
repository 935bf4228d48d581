"""What a lecture should say differently: paragraphs that say what the CSV files say."""

import csv

import pytest

from lab.claims import discovery
from lab.claims.measures import factor, points
from lab.claims.vocabulary import Experiment
from lab.records import ledger
from lab.report import findings


def run(trial):
    """Of no story."""


LOSS, ACCURACY = factor("loss", naive="naive_loss"), points("test_accuracy")
EXPERIMENT = Experiment(
    "A title",
    "s",
    {"a": {}, "b": {}},
    {"quick": {"seeds": 2}, "smoke": {"seeds": 2}},
    [
        LOSS.claim("A1", "A is | more", "a", "b", literature="Somebody 1999."),
        ACCURACY.claim("A1", "A is | more", "a", "b", literature="Somebody 1999."),
        ACCURACY.claim("B1", "Never measured", "b", "a", literature="none"),
    ],
    run,
)
# Data, metric, effect, low, high, verdict, reason; in what a measure is kept in.
ROWS = [
    ("quick", "digits", "loss", 0.6931, 0.5, 0.9, "supported", "strongly"),
    ("quick", "mnist1d", "loss", 0.0, -0.1, 0.1, "refuted", "equivalent"),
    ("quick", "cifar10", "loss", 0.1, -0.1, 0.3, "inconclusive", "about 44 seeds would decide"),
    ("smoke", "digits", "loss", 0.1, -0.1, 0.3, "invalid", "gate failed: x"),
    ("quick", "digits", "test_accuracy", 0.011, 0.001, 0.021, "untested", "not tested"),
]
NAIVE = [("digits", -0.6931), ("mnist1d", 0.05), ("cifar10", 1.0986)]


@pytest.fixture
def told(tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "load_experiment", {"one": EXPERIMENT}.__getitem__)
    with open(tmp_path / ledger.VERDICTS, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(ledger.VERDICT_COLUMNS)
        for scale, data, metric, *numbers, word, reason in ROWS:
            where = ["one", "A1", scale, data, "mlp", "tensorflow", metric]
            rows.writerow([*where, 10, *numbers, 0.01, 0.1, word, reason])
    with open(tmp_path / ledger.COMPARISONS, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(ledger.COMPARISON_COLUMNS)
        for data, effect in NAIVE:
            where = ["one", "A1", "quick", data, "mlp", "tensorflow", "loss"]
            rows.writerow([*where, "naive", 10, effect, effect - 0.1, effect + 0.1])
    return findings.text(tmp_path)


def test_a_paragraph_tells_where_a_claim_holds_and_what_is_open(told):
    assert "## A title" in told
    assert (
        "**A1. A is &#124; more.** By loss: holds on digits (×2 [×1.65, ×2.46], 10 seeds);" in told
    )
    assert "does not hold on mnist1d (×1 [×0.905, ×1.11], 10 seeds; equivalent);" in told
    assert "open on cifar10 (×1.11 [×0.905, ×1.35], 10 seeds; about 44 seeds would decide);" in told
    assert "invalid on digits, mlp (smoke, tensorflow) (" in told
    assert "Measured otherwise: test_accuracy · digits 1.1 [0.1, 2.1] points." in told
    assert told.count("Literature: Somebody 1999.") == 1 and "1999.." not in told


def test_the_careless_comparison_is_told_where_it_says_another_thing(told):
    assert "On digits the careless comparison says the opposite: ×0.5." in told
    assert "On cifar10 the careless comparison says more: ×3." in told
    assert "On mnist1d the careless" not in told


def test_what_was_not_measured_is_no_paragraph(told, tmp_path):
    assert "B1" not in told
    assert findings.text(tmp_path / "nothing").strip() == ""


def test_every_claim_of_the_reference_has_its_paragraph():
    reference = discovery.ROOT / "results" / "reference"
    text = findings.text(reference)
    for row in ledger.verdicts(reference):
        assert f"**{row['claim']}. " in text
    assert text.count("What goes wrong:") == len(
        {r["experiment"] for r in ledger.verdicts(reference)}
    )

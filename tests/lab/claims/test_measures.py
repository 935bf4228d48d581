"""Measures: the contrasts, gates and naive figures that follow from how a metric was made."""

import pytest

from lab.claims.contrasts import recorded
from lab.claims.gates import learned
from lab.claims.measures import factor, points
from lab.claims.vocabulary import Contrast

TEXT = {"id": "X1", "says": "It helps", "literature": "none"}


def test_points_and_factors_differ_in_unit_margin_and_logarithm():
    a, b = points("accuracy"), factor("loss")
    assert (a.margin, a.unit, a.scale_by, a.log) == (0.005, "points", 100, False)
    assert (b.margin, b.unit, b.scale_by, b.log) == (0.0953, "ratio", 1, True)
    assert points("accuracy", 0.01).margin == a.at(0.01).margin == 0.01


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("make", [points, factor])
def test_a_contrast_is_positive_where_the_arm_is_better(make, lower):
    values = {("new", "m"): 3.0, ("old", "m"): 2.0, ("b", "m"): 1.0, ("c", "m"): 1.0}
    if lower:
        values |= {("new", "m"): 2.0, ("old", "m"): 3.0}
    measure = make("m", lower=lower)
    assert measure.compared("new", "old").value(values) > 0
    assert measure.compared(("old", "new")).value(values) < 0
    assert measure.interaction(("new", "old"), than=("b", "c")).value(values) > 0
    assert measure.interaction(("b", "c"), than=("new", "old")).value(values) < 0


def test_one_arm_alone_has_recorded_the_comparison_and_a_contrast_stays_as_it_is():
    other = Contrast("n", {"a": 2})
    assert points("gain").compared("a") == recorded("gain", "a")
    assert points("gain").compared(other) is other


def test_a_claim_has_what_is_said_of_its_measure():
    claim = points("accuracy").claim(
        **TEXT, of="new", over="old", under="tuned", naive=("new", "untuned"), beside={"x": "new"}
    )
    assert (claim.id, claim.says, claim.metric) == ("X1", "It helps", "accuracy (tuned)")
    assert (claim.margin, claim.unit, claim.scale_by) == (0.005, "points", 100)
    assert list(claim.beside) == ["naive", "x"] and not claim.gates
    assert claim.beside["naive"].weights == {"new": 1, "untuned": -1}
    assert claim.beside["x"] == recorded("accuracy", "new")


@pytest.mark.parametrize(
    "of", [("new", "old"), Contrast("accuracy", {"new": 1, "old": -1, "third": -1})]
)
def test_naive_is_the_same_comparison_of_another_metric(of):
    claim = points("accuracy", naive="untuned_accuracy").claim(**TEXT, of=of)
    assert claim.beside["naive"].metric == "untuned_accuracy"
    assert claim.beside["naive"].weights == claim.contrast.weights
    given = points("accuracy", naive="untuned_accuracy").claim(**TEXT, of=of, naive=("a", "b"))
    assert given.beside["naive"].weights == {"a": 1, "b": -1}


def test_gates_follow_from_tuning():
    claim = points("accuracy", edge="at_edge", room=0.9).claim(**TEXT, of="new", over="old")
    asked = [(gate.of.metric, gate.of.arms, gate.high) for gate in claim.gates]
    assert asked == [
        ("accuracy", ("old",), 0.9),
        ("at_edge", ("new",), 0.5),
        ("at_edge", ("old",), 0.5),
    ]
    pair = points("accuracy", edge="at_edge", room=0.9).claim(**TEXT, of=("new", "old"))
    assert pair == claim
    wide = points("accuracy", edge="at_edge").interaction(("a", "b"), than=("c", "d"))
    whole = points("accuracy", edge="at_edge").claim(**TEXT, of=wide)
    assert [gate.of.arms for gate in whole.gates] == [("a",), ("c",), ("b",), ("d",)]


@pytest.mark.parametrize(("accuracies", "holds"), [([0.65, 0.75], True), ([0.65, 0.74], False)])
def test_what_an_arm_builds_on_was_learned(accuracies, holds):
    gate = learned("student", 0.7, "teacher")
    assert gate.of == recorded("teacher_accuracy", "student")
    assert gate.says == "the teacher was learned (student): accuracy at least 0.7"
    assert (gate.failure(accuracies) is None) is holds

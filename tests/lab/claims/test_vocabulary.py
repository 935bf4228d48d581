"""Declarations are checked when they are made."""

import math

import pytest

from lab.claims.vocabulary import (
    Claim,
    Contrast,
    Curves,
    Experiment,
    Gate,
    RankCorrelation,
    Scatter,
    check_name,
)

ARMS = {"small": {}, "large": {}}


def claim(**change):
    parts = {
        "id": "A",
        "says": "x",
        "contrast": Contrast("m", {"large": 1, "small": -1}),
        "margin": 0.1,
        "unit": "u",
        "literature": "none",
    }
    return Claim(**(parts | change))


def experiment(**change):
    parts = {
        "title": "t",
        "source": "s",
        "arms": ARMS,
        "scales": {"quick": {"seeds": 2}},
        "claims": [claim()],
        "run": lambda trial: None,
    }
    return Experiment(**(parts | change))


def test_contrasts_are_weighted_sums_and_interactions():
    values = {("a", "m"): 1.0, ("b", "m"): 10.0, ("c", "m"): 100.0, ("d", "m"): 1000.0}
    both = Contrast("m", {"d": 1, "c": -1, "b": -1, "a": 1})
    assert both.value(values) == 1000 - 100 - 10 + 1
    assert Contrast("m", {"b": 1, "a": -1}, log=True).value(values) == pytest.approx(math.log(10))


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_logarithm_that_does_not_exist_is_nan(value):
    contrast = Contrast("m", {"large": 1, "small": -1}, log=True)
    assert math.isnan(contrast.value({("large", "m"): value, ("small", "m"): 1.0}))


def test_rank_correlation_over_arms():
    contrast = RankCorrelation("x", "y", over=("a", "b", "c"))
    values = {("a", "x"): 1, ("b", "x"): 2, ("c", "x"): 3}
    values |= {("a", "y"): 9, ("b", "y"): 5, ("c", "y"): 1}
    assert contrast.value(values) == pytest.approx(-1)
    assert set(contrast.needs()) == set(values)


def test_a_gate_holds_within_its_bounds_and_says_why_not():
    gate = Gate("losses match", Contrast("m", {"large": 1}), -0.5, 0.5)
    assert gate.failure([0.4, 0.6]) is None
    assert "losses match" in gate.failure([0.6, 0.6])
    assert gate.failure([math.nan]) is not None
    assert gate.failure([]) is not None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"claims": [claim(contrast=Contrast("m", {"huge": 1}))]}, "huge"),
        ({"claims": [claim(beside={"naive": Contrast("m", {"tiny": 1})})]}, "tiny"),
        ({"claims": [claim(gates=[Gate("g", Contrast("m", {"gone": 1}))])]}, "gone"),
        ({"claims": [claim(), claim()]}, "share"),
        ({"scales": {"quick": {}}}, "seeds"),
        ({"scales": {"quick": {"seeds": 0}}}, "seeds"),
        ({"scales": {}}, "missing"),
        ({"arms": {"../x": {}}}, r"\.\./x"),
        ({"arms": {"NA": {}}}, "NA"),
        ({"arms": {}}, "missing"),
        ({"figures": [Scatter("f", "t", "x", "y", "x", "y", arms=("nope",))]}, "nope"),
        ({"figures": [Curves("f", "t", "x", {"y": [("l", "nope", "m")]})]}, "nope"),
        ({"figures": [Scatter("a/b", "t", "x", "y", "x", "y")]}, "a/b"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        experiment(**change)


@pytest.mark.parametrize("name", ["", "A", "a-b", "a b", "a\n", "é", "a" * 65, "1a", None, "аrm"])
def test_names_that_cannot_be_folders_are_refused(name):
    with pytest.raises(ValueError, match="Received"):
        check_name("Arm", name)

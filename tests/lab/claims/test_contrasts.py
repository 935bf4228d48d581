"""Slopes and interactions against what numpy and plain differences say."""

import numpy as np
import pytest

from lab.claims.contrasts import difference, interaction, slope

ARMS = ("a", "b", "c", "d")


def table(values):
    return {(arm, "m"): value for arm, value in zip(ARMS, values, strict=True)}


@pytest.mark.parametrize("seed", range(3))
def test_a_slope_is_that_of_least_squares(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=4), rng.uniform(1, 9, size=4)
    over = dict(zip(ARMS, x, strict=True))
    assert slope("m", over).value(table(y)) == pytest.approx(np.polyfit(x, y, 1)[0])
    found = slope("m", over, log=True).value(table(y))
    assert found == pytest.approx(np.polyfit(x, np.log(y), 1)[0])


@pytest.mark.parametrize("over", [{}, {"a": 1.0}, {"a": 2, "b": 2}])
def test_arms_that_do_not_differ_have_no_slope(over):
    with pytest.raises(ValueError, match="different numbers"):
        slope("m", over)


def test_an_interaction_is_the_difference_of_two_gains():
    values = table([1.0, 10.0, 100.0, 1000.0])
    gains = difference("m", "d", "c").value(values), difference("m", "b", "a").value(values)
    found = interaction("m", ("d", "c"), ("b", "a"))
    assert found.value(values) == gains[0] - gains[1] == 900 - 9
    of_logs = interaction("m", ("d", "c"), ("b", "a"), log=True)
    assert of_logs.value(values) == pytest.approx(0)  # both are tenfold

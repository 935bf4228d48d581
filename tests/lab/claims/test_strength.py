"""What stands beside a verdict, against second computations."""

import math

import numpy as np
import pytest
from scipy import stats

from lab.claims.strength import detectable, finite_test_share, probability_better


def test_the_share_is_that_of_seeds_and_its_interval_wilson_s():
    found = probability_better([1.0, -1.0, 2.0, 0.0, 0.5])
    assert found.share == pytest.approx(3.5 / 5)
    z, n, p = stats.norm.isf(0.025), 5, 3.5 / 5
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert found.low == pytest.approx(middle - half) and found.high == pytest.approx(middle + half)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_without_an_answer_it_is_nan(values):
    assert all(map(math.isnan, probability_better(values)))
    assert math.isnan(detectable(values))


@pytest.mark.parametrize(("n", "alpha"), [(10, 0.05), (40, 0.05 / 3)])
def test_an_effect_of_that_size_is_found_in_80_percent(n, alpha):
    rng = np.random.default_rng(0)
    values = rng.normal(size=n)
    values = (values - values.mean()) / values.std(ddof=1)
    effect = detectable(values, alpha)
    drawn = rng.normal(effect, 1.0, (4000, n))
    p = stats.ttest_1samp(drawn, 0.0, axis=1).pvalue
    assert np.mean(p < alpha) == pytest.approx(0.8, abs=0.03)


def test_a_finite_test_set_alone_explains_all_of_its_own_spread():
    rng = np.random.default_rng(0)
    a, b = (rng.binomial(500, p, 4000) / 500 for p in (0.9, 0.8))
    arms = [(1.0, 0.9, 500), (-1.0, 0.8, 500)]
    assert finite_test_share(a - b, arms) == pytest.approx(1.0, abs=0.05)
    noisy = a - b + rng.normal(0, (a - b).std(), 4000)
    assert finite_test_share(noisy, arms) == pytest.approx(0.5, abs=0.05)
    assert finite_test_share([0.01] * 3 + [0.011], arms) == 1.0
    assert math.isnan(finite_test_share([0.1, 0.1], arms))

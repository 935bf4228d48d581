"""How strong the evidence for a verdict is: what stands beside it, and decides nothing."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lab.claims.stats import POWER, moments


class Share(NamedTuple):
    """A share of seeds with its interval."""

    share: float
    low: float
    high: float


def probability_better(differences: ArrayLike, alpha: float = 0.05) -> Share:
    """P(A > B): in which share of seeds the claim holds, with Wilson's interval (1927).

    Bouthillier et al. 2021, Accounting for Variance in Machine Learning Benchmarks, section 4.1. A
    tie counts half. All NaN without seeds, or if a value is not finite.

    Example:
        >>> found = probability_better([0.5, 0.1, -0.2, 0.3, 0.4])
        >>> [round(number, 2) for number in found]
        [0.8, 0.38, 0.96]
    """
    values = np.asarray(differences, float)
    if not values.size or not np.isfinite(values).all():
        return Share(math.nan, math.nan, math.nan)
    from statsmodels.stats.proportion import proportion_confint

    better = float((values > 0).sum() + (values == 0).sum() / 2)
    low, high = proportion_confint(better, values.size, alpha, method="wilson")
    return Share(better / values.size, float(low), float(high))


def detectable(differences: ArrayLike, alpha: float = 0.05) -> float:
    """The smallest true mean that so many seeds of such a spread would find, with power 0.8.

    Two-sided t test at level alpha. NaN without a spread, or if a value is not finite.

    Example:
        >>> round(detectable([0.0, 1.0] * 10), 3)  # a standard deviation of 0.513
        0.339
    """
    values = np.asarray(differences, float)
    _, deviation, unit = moments(values)
    if deviation == 0:
        return math.nan
    from statsmodels.stats.power import TTestPower

    size = TTestPower().solve_power(nobs=values.size, alpha=alpha, power=POWER)
    return float(np.ravel(size)[0] * deviation * unit)


def finite_test_share(
    differences: ArrayLike, accuracies: Iterable[tuple[float, float, int]]
) -> float:
    """The share of the spread over seeds that the finite test set alone explains, at most 1.

    Binomial: an accuracy p over n examples varies by p (1 - p) / n. Errors that arms have in
    common make it less, so this is the most that it may be.

    Args:
        differences: One contrast value per seed.
        accuracies: For each arm its weight in the contrast, its accuracy and the number of test
            examples.

    Example:
        >>> round(finite_test_share([0.0, 0.02, 0.04], [(1, 0.9, 500), (-1, 0.9, 500)]), 2)
        0.9
    """
    _, deviation, unit = moments(np.asarray(differences, float))
    sampled = sum(weight**2 * p * (1 - p) / n for weight, p, n in accuracies)
    spread = deviation * unit
    return min(1.0, sampled / spread / spread) if spread > 0 else math.nan

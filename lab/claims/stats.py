"""From one number per seed to a verdict: pure functions on arrays.

One seed is one observation, a claim is one contrast per seed (claimed direction positive), and
its Student-t interval decides. Values that allow no answer (NaN, infinite, too few, constant)
are answered with NaN or a verdict; arguments of the wrong kind raise `ValueError`. What a masked
array leaves out does not count.
"""

import math
import warnings
from bisect import bisect_left
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

VERDICTS = ("supported", "refuted", "inconclusive", "invalid", "incomplete", "untested")

POWER = 0.8  # the customary power (Cohen 1988, section 2.4)
SEED_LIMIT = 10_000  # nobody trains more; beyond it the exact number says nothing
RESAMPLES = 20_000  # enough for every sign pattern of 14 seeds (2**14 = 16,384)
ROUNDING = 1e-12  # a relative spread below this is the rounding of a constant, not noise


@dataclass(frozen=True)
class Judgement:
    """Mean, its interval, two-sided p of a mean of 0 (NaN if undefined), seeds, verdict and why."""

    effect: float
    low: float
    high: float
    p: float
    n: int
    verdict: str
    reason: str


@dataclass(frozen=True)
class Sensitivity:
    """Checks beside the t interval, never a verdict."""

    sign_flip_p: float
    bootstrap_low: float
    bootstrap_high: float


def judge(
    differences: ArrayLike,
    margin: float,
    alpha: float = 0.05,
    *,
    wanted: float = 1.0,
    plan: bool = True,
) -> Judgement:
    """Judges one claim by the interval mean ± t(1 - alpha/2, n - 1) * sd / sqrt(n) (Student 1908).

    - `supported`: low > 0 and mean >= margin; the reason starts with "strongly" if low > margin.
    - `refuted`: high < margin; the reason starts with "reversed" (high < 0), "real but
      negligible" (low > 0), "equivalent" (-margin < low) or "smaller than the margin".
    - `inconclusive`: neither; the reason says how many seeds would decide.
    - `invalid`: a value is not finite (even if alone: more seeds do not cure it), or all are
      equal up to rounding ("degenerate").
    - `incomplete`: no seed or one.

    "Equivalent" is TOST, two one-sided tests (Schuirmann 1987). At level a they pass when the
    interval at 1 - 2a is within ± margin. The interval shown, at 1 - alpha, makes it TOST at
    alpha/2: stricter than usual, so that the verdict is what the interval shows.

    Example:
        >>> found = judge([0.9, 1.4, 1.1, 0.7, 1.2], margin=0.5)
        >>> f"{found.effect:.2f} [{found.low:.2f}, {found.high:.2f}], n={found.n}"
        '1.06 [0.72, 1.40], n=5'
        >>> found.verdict, found.reason
        ('supported', 'strongly: the whole interval is above the margin')

    Args:
        differences: One contrast value per seed, claimed direction positive, 1-D.
        margin: The smallest effect that matters, in the same unit; finite, at least 0.
        alpha: The interval is at level 1 - alpha; for several claims see `holm_levels`.
        wanted: The mean that support wants, in margins: more than 1 before the last of several
            looks (`lab.claims.looks`).
        plan: Whether to compute how many seeds would decide, which takes a hundred times as long
            as all the rest.
    """
    values = _vector("differences", differences)
    _check(margin, alpha)
    n, nan = len(values), math.nan
    mean, deviation, unit = moments(values)
    effect = mean * unit
    if lost := n - int(np.isfinite(values).sum()):
        reason = f"{lost} of {n} seeds gave no finite value"
        return Judgement(nan, nan, nan, nan, n, "invalid", reason)
    if n < 2:
        reason = f"{'one seed' if n else 'no seeds'}: no interval"
        return Judgement(effect, nan, nan, nan, n, "incomplete", reason)
    if deviation == 0:
        reason = f"degenerate: all {n} seeds give {effect:.6g}, so there is no spread to judge by"
        return Judgement(effect, nan, nan, nan, n, "invalid", reason)

    from scipy.stats import t

    error = deviation / math.sqrt(n)
    half = abs(float(t.isf(alpha / 2, n - 1))) * error  # abs: scipy gives -inf for alpha=1e-300
    low, high = (mean - half) * unit, (mean + half) * unit
    p = min(1.0, 2 * float(t.sf(abs(mean) / error, n - 1)))
    verdict, reason = _decide(effect, low, high, float(margin), wanted)
    if verdict == "inconclusive" and plan:
        reason = would_decide(values, margin, alpha)
    return Judgement(effect, low, high, p, n, verdict, reason)


def would_decide(differences: ArrayLike, margin: float, alpha: float = 0.05) -> str:
    """`seeds_to_decide` as a sentence, the reason of what is inconclusive."""
    seeds = seeds_to_decide(differences, margin, alpha)
    count = f"about {seeds:,}" if seeds else f"more than {SEED_LIMIT:,}"
    return f"{count} seeds would decide, if mean and spread stay as observed"


def _decide(
    effect: float, low: float, high: float, margin: float, wanted: float
) -> tuple[str, str]:
    if low > 0 and effect >= wanted * margin:
        if low > margin:
            return "supported", "strongly: the whole interval is above the margin"
        return "supported", "the interval is above 0 and the mean reaches the margin"
    if high >= margin:
        return "inconclusive", ""
    if high < 0:
        return "refuted", "reversed: the whole interval is below 0"
    if low > 0:
        return "refuted", "real but negligible: above 0, but below the margin"
    if low > -margin:
        return "refuted", "equivalent: the whole interval is within ± the margin"
    return "refuted", "smaller than the margin; a reversed effect is not excluded"


def seeds_to_decide(differences: ArrayLike, margin: float, alpha: float = 0.05) -> int | None:
    """The number of seeds, in all, that would decide, if mean and spread stay as observed.

    Below the margin, to decide is to refute: the interval ends short of the margin with
    probability 0.8. At or above it, to decide is to support: with probability 0.8 the interval
    excludes 0, and with probability 0.8 the mean reaches the margin. (Power against 0 alone would
    promise too much: a true effect of just the margin misses it half the time at any n.)
    It plans a new experiment; it is no licence to add seeds to this one.

    Example:
        >>> seeds_to_decide([-0.5, 0.5, 1.5], margin=0)  # a mean of half a standard deviation
        34

    Returns:
        At least 2; None if more than `SEED_LIMIT`, or if the values have no spread to plan with.
    """
    _check(margin, alpha)
    mean, deviation, unit = moments(_vector("differences", differences))
    if deviation == 0:
        return None

    from statsmodels.stats.power import TTestPower

    excess = (mean - float(margin) / unit) / deviation
    size = mean / deviation if excess >= 0 else -excess
    size = min(size, 1e4)  # beyond, few seeds do anyway and the noncentral t becomes NaN

    def power(n: int) -> float:
        # One side of the two-sided test: on the other lies the opposite decision.
        test = float(TTestPower().power(size, n, alpha / 2, alternative="larger"))
        reach = NormalDist().cdf(excess * math.sqrt(n)) if excess >= 0 and margin > 0 else 1.0
        return reach if math.isnan(test) else min(test, reach)  # NaN: scipy, near power 1

    n = 2 + bisect_left(range(2, SEED_LIMIT + 1), POWER, key=power)
    return n if n <= SEED_LIMIT else None


def holm_levels(p_values: ArrayLike, alpha: float = 0.05) -> list[float]:
    """The alpha for each claim's interval, such that it excludes 0 when Holm (1979) rejects.

    Of m claims, the rejected one of ascending rank i gets alpha/(m - i + 1), the level it was
    tested at; all others get the level at which the first of them failed. Ties share the lower
    rank. NaN, a claim without a test, does not count towards m and gets alpha. Only "excludes 0"
    is protected over the family; a margin meets the interval of its own claim.

    Example:
        >>> [round(level, 4) for level in holm_levels([0.30, 0.001, float("nan"), 0.02])]
        [0.05, 0.0167, 0.05, 0.025]
    """
    p = _p_values(p_values)
    _check(0, alpha)
    levels, tested = np.full(p.shape, float(alpha)), p[~np.isnan(p)]
    if tested.size:
        rejected = (_holm(tested) <= alpha).sum()
        smaller = np.searchsorted(np.sort(tested), tested)
        levels[~np.isnan(p)] = alpha / (tested.size - np.minimum(smaller, rejected))
    return levels.tolist()


def holm_adjusted(p_values: ArrayLike) -> list[float]:
    """Holm's adjusted p-values; NaN stays NaN and does not count.

    Example:
        >>> [round(p, 4) for p in holm_adjusted([0.30, 0.001, float("nan"), 0.02])]
        [0.3, 0.003, nan, 0.04]
    """
    p = _p_values(p_values)
    tested = ~np.isnan(p)
    p[tested] = _holm(p[tested])
    return p.tolist()


def _holm(p: np.ndarray) -> np.ndarray:
    # Not statsmodels' `multipletests`, which collects garbage at each call: 50 ms, and simulations
    # of looks make 100,000. A test holds the two against each other.
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def sensitivity(differences: ArrayLike, alpha: float = 0.05, seed: int = 0) -> Sensitivity:
    """Two-sided sign-flip test (Fisher 1935) and BCa bootstrap interval (Efron 1987) of the mean.

    Neither assumes a normal distribution. The test is exact up to 14 seeds, then drawn 20,000
    times; the interval covers too little at few seeds. All NaN where `judge` has no interval.

    Example:
        >>> sensitivity([0.9, 1.4, 1.1, 0.7, 1.2]).sign_flip_p  # five seeds can do no better
        0.0625
    """
    values = _vector("differences", differences)
    _check(0, alpha)
    _, deviation, unit = moments(values)
    if deviation == 0:
        return Sensitivity(math.nan, math.nan, math.nan)

    from scipy.stats import bootstrap

    interval = {"method": "BCa", "confidence_level": 1 - alpha}
    common = {"statistic": np.mean, "vectorized": True, "batch": 1_000}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BCa warns where it returns NaN, which says it already
        boot = bootstrap((values / unit,), **interval, **common, rng=np.random.default_rng(seed))
    low, high = boot.confidence_interval
    return Sensitivity(_sign_flip_p(values / unit, seed), float(low) * unit, float(high) * unit)


def _sign_flip_p(values: np.ndarray, seed: int) -> float:
    """Twice the smaller tail, all sign patterns or `RESAMPLES` drawn ones and the observed one."""
    n = len(values)
    exact = 2**n <= RESAMPLES
    rng = np.random.default_rng(seed)
    if exact:
        flipped = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        flipped = rng.integers(0, 2, (RESAMPLES, n), dtype=np.int8)
    drawn, observed = (1 - 2 * flipped) @ values, values.sum()
    equal = 1e-12 * np.abs(values).sum()  # sums of the same numbers in another order
    tails = np.sum(drawn <= observed + equal), np.sum(drawn >= observed - equal)
    share = (min(tails) + (not exact)) / (len(drawn) + (not exact))
    return float(min(1.0, 2 * share))


def arm_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's r between two arms over seeds, which is what makes pairing worth while.

    NaN with fewer than 3 seeds, a value that is not finite, or an arm without spread.

    Example:
        >>> round(arm_correlation([1, 2, 3, 4], [1, 3, 2, 4]), 3)
        0.8
    """
    x, y = _pairs(a, b)
    (mean_x, sd_x, unit_x), (mean_y, sd_y, unit_y) = moments(x), moments(y)
    if len(x) < 3 or sd_x == 0 or sd_y == 0:
        return math.nan
    product = (x / unit_x - mean_x) / sd_x * ((y / unit_y - mean_y) / sd_y)
    return max(-1.0, min(1.0, math.fsum(product) / (len(x) - 1)))


def rank_correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN where `arm_correlation` is.

    Example:
        >>> rank_correlation([1, 2, 3, 4], [1, 10, 100, 1000])
        1.0
    """
    if math.isnan(arm_correlation(a, b)):
        return math.nan
    from scipy.stats import rankdata

    x, y = _pairs(a, b)
    return arm_correlation(rankdata(x), rankdata(y))


def slope_weights(x: ArrayLike) -> np.ndarray:
    """Weights w = (x - mean) / sum((x - mean)**2): sum(w * y) is the least-squares slope of y on x.

    They make one contrast of ordered arms. x needs at least two different finite values.

    Example:
        >>> slope_weights([0, 1, 2]).tolist()
        [-0.5, 0.0, 0.5]
    """
    if np.ma.is_masked(x):
        raise ValueError(f"x must not be masked: each arm needs a weight. Received: x={x!r}")
    values = _vector("x", x)
    mean, deviation, unit = moments(values)
    if deviation == 0:
        raise ValueError(f"x must be finite, with two different values. Received: x={x!r}")
    return (values / unit - mean) / ((len(values) - 1) * deviation**2) / unit


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Two vectors of equal length, without the seeds that either leaves out."""
    x, y = _vector("a", np.ma.getdata(a)), _vector("b", np.ma.getdata(b))
    if len(x) != len(y):
        raise ValueError(f"Arms share seeds. Received: len(a)={len(x)}, len(b)={len(y)}")
    kept = ~(np.ma.getmaskarray(np.ma.asarray(a)) | np.ma.getmaskarray(np.ma.asarray(b)))
    return x[kept], y[kept]


def _vector(name: str, values: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(values)
        if isinstance(values, np.ma.MaskedArray) and values.ndim == 1:
            array = values.compressed()
    except ValueError:  # ragged
        array = np.empty((), dtype=object)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise ValueError(f"{name} must be a 1-D array of real numbers. Received: {name}={values!r}")
    return array.astype(float)


def _p_values(values: ArrayLike) -> np.ndarray:
    if np.ma.is_masked(values):  # a claim that is left out has no test, and keeps its place
        values = np.ma.asarray(values, dtype=float).filled(math.nan)
    p = _vector("p_values", values)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p-values must be in [0, 1] or NaN. Received: p_values={values!r}")
    return p


def _check(margin: float, alpha: float) -> None:
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin must be finite and at least 0. Received: margin={margin!r}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1. Received: alpha={alpha!r}")


def moments(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and standard deviation in units of the third number; a deviation of 0 means no spread.

    That is: constant up to rounding, fewer than two values, or one that is not finite. The unit
    is a power of two near the largest value, so dividing is exact and squares neither overflow
    nor vanish; `fsum` rounds once, so the order of seeds cannot matter.
    """
    if not len(values) or not np.isfinite(values).all():
        return math.nan, 0.0, 1.0
    top = float(np.abs(values).max())
    unit = 2.0 ** (math.frexp(top)[1] - 1)
    mean = math.fsum(values / unit) / len(values)
    distance = values / unit - mean
    if np.abs(distance).max() <= ROUNDING * top / unit:
        return mean, 0.0, unit
    return mean, math.sqrt(math.fsum(distance**2) / (len(values) - 1)), unit

"""The contrasts and units that most claims are made of."""

from collections.abc import Mapping
from typing import Any

from lab.claims.vocabulary import Contrast

# Margins that `claims.md` uses throughout: half a point of accuracy, a tenth.
POINTS: dict[str, Any] = {"margin": 0.005, "unit": "points", "scale_by": 100}
RATIO: dict[str, Any] = {"margin": 0.0953, "unit": "ratio"}


def difference(metric: str, of: str, minus: str) -> Contrast:
    """A metric of one arm minus that of another."""
    return Contrast(metric, {of: 1, minus: -1})


def ratio(metric: str, of: str, to: str) -> Contrast:
    """The logarithm of the ratio of a metric of two arms."""
    return Contrast(metric, {of: 1, to: -1}, log=True)


def recorded(metric: str, arm: str) -> Contrast:
    """What a trial has recorded as a comparison already (a gain, a slope)."""
    return Contrast(metric, {arm: 1})


def slope(metric: str, over: Mapping[str, float], log: bool = False) -> Contrast:
    """The least-squares slope of a metric over arms that differ in a number.

    Args:
        metric: Name of the metric.
        over: Each arm's number; its `math.log2` makes the slope one per doubling.
        log: Whether it is the slope of the metric's logarithm.

    Raises:
        ValueError: If all numbers are alike.

    >>> slope("test_accuracy", {"small": 0, "medium": 1, "large": 2}).weights
    {'small': -0.5, 'medium': 0.0, 'large': 0.5}
    """
    mean = sum(over.values()) / len(over) if over else 0.0
    spread = sum((x - mean) ** 2 for x in over.values())
    if not spread:
        raise ValueError(f"A slope needs arms with different numbers. Received: {dict(over)!r}")
    return Contrast(metric, {arm: (x - mean) / spread for arm, x in over.items()}, log=log)


def interaction(
    metric: str, of: tuple[str, str], minus: tuple[str, str], log: bool = False
) -> Contrast:
    """What one pair of arms gains minus what another gains: the interaction of a 2x2.

    Args:
        metric: Name of the metric.
        of: An arm and its base; what it gains is its metric minus that of the base.
        minus: The same of the other pair.
        log: Whether gains are differences of the metric's logarithm.

    >>> interaction("test_accuracy", ("both", "first"), ("second", "none")).weights
    {'both': 1, 'second': -1, 'first': -1, 'none': 1}
    """
    return Contrast(metric, {of[0]: 1, minus[0]: -1, of[1]: -1, minus[1]: 1}, log=log)

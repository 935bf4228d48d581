"""The contrasts and units that most claims are made of."""

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

"""Where an effect and its interval lie between the edges of a small drawing, in percent."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lab.records.verdicts import Verdict

NARROWEST, WIDEST = 2.0, 3.0  # 10 and 100 margins to either side of zero: see `_spread`


@dataclass(frozen=True)
class Bar:
    """Positions in percent of the width; None where there is no such number.

    Attributes:
        beyond: Which of effect, low, high and naive lie outside of the drawing (at its edge).
    """

    zero: float
    margin: float
    effect: float | None
    low: float | None
    high: float | None
    naive: float | None
    beyond: frozenset[str]


class Scale:
    """One scale for many bars: linear up to a margin, a margin being 1, then logarithmic.

    Example:
    >>> scale = Scale(2)
    >>> scale.percent(0), scale.percent(1), scale.percent(10), scale.percent(-1000)
    (50.0, 75.0, 100.0, 0.0)
    """

    def __init__(self, reach: float):
        self.reach = reach

    def percent(self, margins: float) -> float:
        """The place of a value that is given in margins; what lies beyond is put at the edge."""
        return round(50 + 50 * max(-1.0, min(1.0, _spread(margins) / self.reach)), 2)

    def ticks(self) -> list[tuple[int, float]]:
        """Numbers of margins with their places: 0, 1, 10 and so on, to both sides."""
        shown = [10**power for power in range(math.floor(self.reach))]
        return [(t, self.percent(t)) for t in [*(-tick for tick in reversed(shown)), 0, *shown]]

    def bar(self, verdict: Verdict) -> Bar:
        """The places of a verdict's numbers."""
        values = _values(verdict)
        places = {
            what: self.percent(value) if math.isfinite(value) else None
            for what, value in values.items()
        }
        beyond = {what for what, value in values.items() if abs(_spread(value)) > self.reach}
        return Bar(self.percent(0), self.percent(1), beyond=frozenset(beyond), **places)


def scale_for(verdicts: Iterable[Verdict]) -> Scale:
    """The narrowest scale that holds all effects, or 100 margins."""
    every = (_values(verdict).values() for verdict in verdicts)
    sizes = [abs(_spread(value)) for values in every for value in values if math.isfinite(value)]
    return Scale(min(WIDEST, max(NARROWEST, max(sizes, default=0.0))))


def _values(verdict: Verdict) -> dict[str, float]:
    """Effect, interval and naive effect in margins."""
    judged, naive = verdict.judgement, verdict.beside.get("naive")
    unit = verdict.claim.margin or 1.0
    found = {"effect": judged.effect, "low": judged.low, "high": judged.high}
    found["naive"] = naive.effect if naive else math.nan
    return {what: value / unit for what, value in found.items()}


def _spread(margins: float) -> float:
    size = abs(margins)
    return math.copysign(size if size <= 1 else 1 + math.log10(size), margins)

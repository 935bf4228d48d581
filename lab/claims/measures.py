"""A metric with its unit and the smallest difference that matters: what claims are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lab.claims.contrasts import POINTS, RATIO, recorded
from lab.claims.vocabulary import AnyContrast, Claim, Contrast, Gate

# A comparison by its arms alone: one that recorded it, or two of which the second is the base.
Compared = AnyContrast | str | tuple[str, str]


@dataclass(frozen=True)
class Measure:
    """A metric, and how differences of it are told and judged. Made by `points` and `factor`.

    Args:
        metric: Name of the end-of-run metric, as `Trial.record` was given it.
        margin: The smallest difference that matters, in the units of the contrast.
        unit: As of a `Claim`.
        scale_by: As of a `Claim`.
        log: Whether arms are compared by the logarithm of their ratio.
    """

    metric: str
    margin: float
    unit: str
    scale_by: float = 1.0
    log: bool = False

    def compared(self, of: Compared, over: str = "") -> AnyContrast:
        """What a claim about it can be judged by.

        Args:
            of: An arm, a pair of arms (the second is the base), or a contrast, which is returned.
            over: The base, if `of` is an arm; without one `of` has recorded a comparison.

        >>> points("test_accuracy").compared("momentum", "sgd").weights
        {'momentum': 1, 'sgd': -1}
        """
        if isinstance(of, tuple):
            of, over = of
        if not isinstance(of, str):
            return of
        if not over:
            return recorded(self.metric, of)
        return Contrast(self.metric, {of: 1, over: -1}, log=self.log)

    def claim(
        self,
        id: str,
        says: str,
        of: Compared,
        over: str = "",
        *,
        literature: str,
        naive: Compared | None = None,
        beside: Mapping[str, Compared] | None = None,
        gates: Sequence[Gate] = (),
        under: str = "",
    ) -> Claim:
        """The claim that this metric is greater in one arm than in another.

        Args:
            id: As of a `Claim`, as `says`, `literature`, `gates` and `under`.
            says: The claim, as one sentence.
            of: The arm that the claim is about, or what `compared` takes.
            over: The arm it is compared with.
            literature: What others measured.
            naive: What a careless reproduction would have compared.
            beside: What else is shown beside it, unjudged, by name.
            gates: Conditions for the comparison to be valid.
            under: The condition, where one claim is tested under several.
        """
        shown = {} if naive is None else {"naive": naive}
        shown |= beside or {}
        return Claim(
            id=id,
            says=says,
            contrast=self.compared(of, over),
            margin=self.margin,
            unit=self.unit,
            literature=literature,
            gates=gates,
            under=under,
            beside={label: self.compared(each) for label, each in shown.items()},
            scale_by=self.scale_by,
        )

    def at(self, margin: float) -> "Measure":
        """The same with another margin."""
        return replace(self, margin=margin)


def points(metric: str, margin: float = POINTS["margin"]) -> Measure:
    """A share (accuracy) in percentage points; half a point matters unless told otherwise."""
    return Measure(metric, **POINTS | {"margin": margin})


def factor(metric: str, margin: float = RATIO["margin"]) -> Measure:
    """A positive number compared by ratios; a factor of 1.1 matters unless told otherwise.

    Args:
        metric: Name of the metric.
        margin: The logarithm of the smallest factor that matters.
    """
    return Measure(metric, **RATIO | {"margin": margin}, log=True)

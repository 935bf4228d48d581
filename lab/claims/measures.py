"""A metric with its unit and the smallest difference that matters: what claims are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lab.claims.contrasts import POINTS, RATIO, interaction, recorded
from lab.claims.gates import leaves_room, not_at_edge
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
        lower: Whether the lower value is the better one (losses, steps to a loss).
        naive: The metric that a careless reproduction would have reported from the same arms.
        edge: The metric that says whether an arm's rate was an edge of those it was tuned over.
            Its gate then follows for every arm that is compared.
        room: The most that a base may have reached; that gate follows too.
    """

    metric: str
    margin: float
    unit: str
    scale_by: float = 1.0
    log: bool = False
    lower: bool = False
    naive: str = ""
    edge: str = ""
    room: float | None = None

    def compared(self, of: Compared, over: str = "") -> AnyContrast:
        """What a claim about it can be judged by, positive where `of` is better.

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
        better, other = (over, of) if self.lower else (of, over)
        return Contrast(self.metric, {better: 1, other: -1}, log=self.log)

    def interaction(self, gain: tuple[str, str], than: tuple[str, str]) -> Contrast:
        """How much more one pair of arms differs than another, such as in the cells of a 2 x 2.

        Args:
            gain: The arm that gains, and its base.
            than: The same of the other pair.

        >>> points("m").interaction(("a", "b"), than=("c", "d")).weights
        {'a': 1, 'c': -1, 'b': -1, 'd': 1}
        """
        if self.lower:
            gain, than = (gain[1], gain[0]), (than[1], than[0])
        return interaction(self.metric, gain, than, log=self.log)

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
            naive: What a careless reproduction would have compared, if not the metric `naive`.
            beside: What else is shown beside it, unjudged, by name.
            gates: Conditions for the comparison to be valid, beside those that follow from tuning.
            under: The condition, where one claim is tested under several.
        """
        contrast = self.compared(of, over)
        if naive is None and self.naive:
            naive = replace(self, metric=self.naive).compared(of, over)
            if isinstance(naive, Contrast):
                naive = replace(naive, metric=self.naive)
        shown = {} if naive is None else {"naive": naive}
        shown |= beside or {}
        base = of[1] if isinstance(of, tuple) else over
        follow = [leaves_room(base, self.room, self.metric)] if base and self.room else []
        follow += not_at_edge(*contrast.arms, metric=self.edge) if self.edge else []
        return Claim(
            id=id,
            says=says,
            contrast=contrast,
            margin=self.margin,
            unit=self.unit,
            literature=literature,
            gates=[*follow, *gates],
            under=under,
            beside={label: self.compared(each) for label, each in shown.items()},
            scale_by=self.scale_by,
        )

    def at(self, margin: float) -> "Measure":
        """The same with another margin."""
        return replace(self, margin=margin)


def points(metric: str, margin: float = POINTS["margin"], **more) -> Measure:
    """A share (accuracy) in percentage points; half a point matters unless told otherwise.

    Args:
        metric: Name of the metric.
        margin: As a share.
        **more: As of a `Measure`.
    """
    return Measure(metric, **POINTS | {"margin": margin} | more)


def factor(metric: str, margin: float = RATIO["margin"], **more) -> Measure:
    """A positive number compared by ratios; a factor of 1.1 matters unless told otherwise.

    Args:
        metric: Name of the metric.
        margin: The logarithm of the smallest factor that matters.
        **more: As of a `Measure`.

    >>> factor("train_loss", lower=True).compared("momentum", "sgd").weights
    {'sgd': 1, 'momentum': -1}
    """
    return Measure(metric, **RATIO | {"margin": margin} | more, log=True)

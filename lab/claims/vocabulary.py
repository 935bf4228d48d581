"""The words an experiment is written in: arms, scales, contrasts, gates, claims, figures.

Plain frozen data, checked when it is made. Nothing here imports Keras, numpy or pandas, so that
listing and planning answer at once.
"""

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lab.claims.figures import (  # noqa: F401 - these words are read from here as well
    AnyFigure,
    Curves,
    Heatmap,
    Scatter,
)

# A metric of one arm, for one seed. Contrasts and gates read tables of these.
ArmMetric = tuple[str, str]
Values = Mapping[ArmMetric, float]

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


def check_name(kind: str, name: str) -> str:
    """Return `name` if it can be a folder and a CSV cell anywhere, else raise ValueError."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"{kind} names are a lower-case letter, then at most 63 letters, digits and "
            f"underscores. Received: {name!r}"
        )
    return name


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of arm metrics within one seed, positive in the claimed direction.

    Args:
        metric: Name of the end-of-run metric, as `Trial.record` was given it.
        weights: Weight of each arm. `{"large": 1, "small": -1}` is a difference; the slope over
            ordered arms and the interaction of a 2x2 grid are weights too.
        log: Whether to take the natural logarithm of each metric first (ratios: sharpness, time).

    Example:
    >>> c = Contrast("sharpness", {"large": 1, "small": -1}, log=True)
    >>> round(c.value({("large", "sharpness"): 20.0, ("small", "sharpness"): 10.0}), 4)
    0.6931
    """

    metric: str
    weights: Mapping[str, float]
    log: bool = False

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it reads."""
        return tuple(self.weights)

    def needs(self) -> list[ArmMetric]:
        """The (arm, metric) pairs that one seed must have."""
        return [(arm, self.metric) for arm in self.weights]

    def value(self, values: Values) -> float:
        """The contrast of one seed; NaN where a logarithm does not exist."""
        total = 0.0
        for arm, weight in self.weights.items():
            value = values[arm, self.metric]
            if self.log:
                value = math.log(value) if value > 0 else math.nan
            total += weight * value
        return total


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation of two metrics over several arms, within one seed."""

    x: str
    y: str
    over: Sequence[str]

    @property
    def metric(self) -> str:
        """What the verdict is about, as one string."""
        return f"rank correlation of {self.x} and {self.y}"

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms it reads."""
        return tuple(self.over)

    def needs(self) -> list[ArmMetric]:
        """The (arm, metric) pairs that one seed must have."""
        return [(arm, metric) for metric in (self.x, self.y) for arm in self.over]

    def value(self, values: Values) -> float:
        """The correlation of one seed, NaN where it is undefined."""
        from lab.claims.stats import rank_correlation

        x, y = ([values[arm, metric] for arm in self.over] for metric in (self.x, self.y))
        return float(rank_correlation(x, y))


class AnyContrast(Protocol):
    """What a claim can be judged by: one number per seed."""

    @property
    def metric(self) -> str: ...  # noqa: D102
    @property
    def arms(self) -> tuple[str, ...]: ...  # noqa: D102
    def needs(self) -> list[ArmMetric]: ...  # noqa: D102
    def value(self, values: Values) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Gate:
    """A condition without which a comparison is invalid, whatever its number.

    The mean over seeds of `of` must lie in [low, high].

    Args:
        says: What is required, as a sentence fragment ("training losses match within 50 %").
        of: A contrast (`Contrast("train_loss", {"large": 1, "small": -1}, log=True)`).
        low: Lower bound, in the units of `of`.
        high: Upper bound.
    """

    says: str
    of: AnyContrast
    low: float = -math.inf
    high: float = math.inf

    def failure(self, values: Sequence[float]) -> str | None:
        """Why the gate fails for these per-seed values, or None."""
        mean = sum(values) / len(values) if values else math.nan
        if self.low <= mean <= self.high:
            return None
        bounds = f"[{self.low:g}, {self.high:g}]"
        return f"gate failed: {self.says} (mean {mean:.3g}, must be in {bounds})"


@dataclass(frozen=True)
class Claim:
    """A sentence of the lecture and the contrast that decides it.

    Args:
        id: Its number in the ledger of claims ("G1a").
        says: The claim, as one sentence.
        contrast: One number per seed, positive where the claim holds.
        margin: The smallest effect that matters, in the contrast's units. Written before it runs.
        unit: What the number is in: "points", "log ratio", "slope".
        gates: Conditions for the comparison to be valid.
        literature: What others measured, with the source.
        under: The condition, where one claim is tested under several ("equal steps").
        beside: Other contrasts to show beside it, unjudged, by name; the naive one is called
            "naive" and is what a careless reproduction would have reported.
        scale_by: Factor for display (100 turns accuracy into points).
    """

    id: str
    says: str
    contrast: AnyContrast
    margin: float
    unit: str
    literature: str
    gates: Sequence[Gate] = ()
    under: str = ""
    beside: Mapping[str, AnyContrast] = field(default_factory=dict)
    scale_by: float = 1.0

    @property
    def metric(self) -> str:
        """The metric column of `verdicts.csv`: unique within the claim."""
        return f"{self.contrast.metric} ({self.under})" if self.under else self.contrast.metric

    @property
    def arms(self) -> tuple[str, ...]:
        """Every arm that its verdict needs: the contrast's and the gates'."""
        each = [self.contrast, *(gate.of for gate in self.gates)]
        return tuple(dict.fromkeys(arm for one in each for arm in one.arms))


Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """One file of `experiments/`: what is claimed, under which arms, and how one trial goes.

    Of the claims of one id the first is the primary one: what the lecture would mean, chosen from
    its words and never from results. The others are tested after it, in their order.

    Args:
        title: In a few words.
        source: Of the claims, and of the protocol.
        arms: Settings by name.
        scales: Settings by name; each has its number of `seeds`.
        claims: What is judged.
        run: A trial: `run(trial)`.
        figures: What is drawn beside the figures that all have.
        data: What `DATA=` is if it is not given.
        model: Likewise.
        looks: Numbers of seeds at which verdicts may be made, for scales whose `seeds` is the
            first of them; others have that one look.
        seen: For data whose first seeds were looked at before looks were declared, their number:
            these have one look of their own, and what that leaves open is judged from later
            seeds alone. (At scale quick, with the usual model.)

    Raises:
        ValueError: If a claim, gate or figure names an arm that does not exist, two claims share
            id and metric, a scale lacks `seeds`, looks do not grow, or a name cannot be a folder.
    """

    title: str
    source: str
    arms: Mapping[str, Settings]
    scales: Mapping[str, Settings]
    claims: Sequence[Claim]
    run: Callable
    figures: Sequence[AnyFigure] = ()
    data: str = "digits"
    model: str = "mlp"
    looks: Sequence[int] = (10, 20, 40)
    seen: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self):
        """Check that the parts fit together."""
        for kind, names in (("Arm", self.arms), ("Scale", self.scales)):
            if not names:
                raise ValueError(f"{kind}s are missing. Received: {names!r}")
            for name in names:
                check_name(kind, name)
        for name, scale in self.scales.items():
            if not isinstance(scale.get("seeds"), int) or scale["seeds"] < 1:
                raise ValueError(f"Scale {name!r} needs a number of `seeds`. Received: {scale!r}")
        self._check_looks()
        named = set()
        for claim in self.claims:
            if (claim.id, claim.metric) in named:
                raise ValueError(f"Two claims share id and metric. Received: {claim.id!r}")
            named.add((claim.id, claim.metric))
            self._check_arms(f"Claim {claim.id!r}", claim.arms)
            for contrast in claim.beside.values():
                self._check_arms(f"Claim {claim.id!r}", contrast.arms)
        for figure in self.figures:
            check_name("Figure", figure.name)
            self._check_arms(f"Figure {figure.name!r}", figure.arms_drawn)

    def looks_at(self, scale: str) -> tuple[int, ...]:
        """The looks of a scale."""
        seeds = self.scales[scale]["seeds"]
        return tuple(self.looks) if seeds == self.looks[0] else (seeds,)

    def seen_in(self, setting: "Setting") -> int:
        """How many seeds of a setting were looked at before looks were declared."""
        usual = setting.scale == "quick" and setting.model == self.model
        return self.seen.get(setting.data, 0) if usual else 0

    def _check_looks(self) -> None:
        whole = all(isinstance(n, int) and n >= 1 for n in self.looks)
        if not self.looks or not whole or any(a >= b for a, b in itertools.pairwise(self.looks)):
            raise ValueError(
                f"`looks` must be numbers of seeds that grow. Received: looks={self.looks!r}"
            )

    def _check_arms(self, who: str, arms: Sequence[str]) -> None:
        unknown = [arm for arm in arms if arm not in self.arms]
        if unknown:
            raise ValueError(f"{who} names an arm that does not exist. Received: {unknown[0]!r}")


@dataclass(frozen=True, order=True)
class Setting:
    """What a verdict never mixes: scale, data, model and backend."""

    scale: str
    data: str
    model: str
    backend: str

    @property
    def folder(self) -> str:
        """Its folder below `results/<experiment>/`."""
        return f"{self.scale}-{self.data}-{self.model}-{self.backend}"

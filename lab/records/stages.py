"""Which seeds decide a claim: of what was seen before looks were declared, and of later looks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from lab.claims import looks
from lab.claims.looks import ALPHA, Member, Standing
from lab.claims.stats import Judgement
from lab.claims.vocabulary import AnyContrast, Claim, Experiment, Gate
from lab.records.measured import Measured


@dataclass(frozen=True)
class Looked:
    """At which look a verdict was made.

    Attributes:
        number: Of the look, from 1; 0 before the first.
        seeds: The numbers of seeds of all looks.
        after: The first seed that counts.
        closed: Whether no further look can change the verdict.
        next: How many seeds there must be, the first being 0, for the next look; or None.
    """

    number: int
    seeds: tuple[int, ...]
    after: int = 0
    closed: bool = True
    next: int | None = None

    @property
    def judged(self) -> range:
        """The seeds that the verdict is made from; before the first look, those it waits for."""
        return range(self.after, self.after + self.seeds[max(self.number, 1) - 1])


@dataclass(frozen=True)
class Stood:
    """Where a claim stands.

    Attributes:
        primary: Whether it is the primary contrast of its claim; the others are tested after it.
        standing: After the looks so far.
        looked: At which look.
        before: What the seeds said that were seen before looks were declared, if others decide.
    """

    primary: bool
    standing: Standing
    looked: Looked
    before: Judgement | None = None


def stand(experiment: Experiment, measured: Measured) -> list[Stood]:
    """Where every claim of an experiment stands, in their order."""
    stages = _stages(experiment, measured)
    claims = experiment.claims
    follows = _follows(claims)
    first = _Stage(experiment, measured, *stages[0])
    family = [first.member(claim, place) for claim, place in zip(claims, follows, strict=True)]
    standing = looks.standings(family, first.looks, first.alpha)
    told = [first.looked(i, family, standing) for i in range(len(claims))]
    before: list[Judgement | None] = [None] * len(claims)
    for later in (_Stage(experiment, measured, *stage) for stage in stages[1:]):
        going = [i for i, one in enumerate(standing) if _goes_on(one)]
        places = {i: place for place, i in enumerate(going)}
        family = [later.member(claims[i], _place(follows[i], places, standing)) for i in going]
        small = sum(
            follows[i] is None and not _goes_on(one) and not one.rejected
            for i, one in enumerate(standing)
        )
        anew = looks.standings(family, later.looks, later.alpha, small)
        for place, i in enumerate(going):
            waits = later.looked(place, family, anew)
            if anew[place].look or anew[place].judgement.n:
                before[i], standing[i], told[i] = standing[i].judgement, anew[place], waits
            else:
                told[i] = replace(told[i], closed=waits.next is None, next=waits.next)
    return [Stood(follows[i] is None, standing[i], told[i], before[i]) for i in range(len(claims))]


def values_of(measured: Measured, contrast: AnyContrast, seeds: range) -> dict[int, float]:
    """A contrast by seed, of those among `seeds` that have all it needs."""
    return {s: value for s, value in measured.per_seed(contrast).items() if s in seeds}


def failure(measured: Measured, gate: Gate, seeds: range) -> str | None:
    """Why a gate fails for some seeds, or None."""
    return gate.failure(list(values_of(measured, gate.of, seeds).values()))


def _stages(experiment: Experiment, measured: Measured) -> list[tuple[int, tuple[int, ...], float]]:
    """First seed, looks and alpha of what is judged one after the other."""
    scale = measured.setting.scale
    usual = experiment.scales[scale]["seeds"]
    declared, times = measured.declared(usual)
    if (declared, times) != (usual, 1):  # SEEDS= was given: more seeds after a look at fewer
        return [(0, (declared,), ALPHA / times)]
    seen = experiment.seen_in(measured.setting)
    return [
        *([(0, (seen,), ALPHA)] if seen else []),
        (seen, experiment.looks_at(scale), ALPHA),
    ]


def _follows(claims: Sequence[Claim]) -> list[int | None]:
    """For each claim the place of the one of the same id before it; None for a primary one."""
    last: dict[str, int] = {}
    found: list[int | None] = []
    for place, claim in enumerate(claims):
        found.append(last.get(claim.id))
        last[claim.id] = place
    return found


def _goes_on(standing: Standing) -> bool:
    """Whether seeds that were not seen before are to decide it."""
    return standing.judgement.verdict in ("inconclusive", "untested", "incomplete")


def _place(follows: int | None, places: dict[int, int], standing: Sequence[Standing]):
    """What a claim follows among those that go on, or where it stands."""
    if follows is None:
        return None
    return places.get(follows, standing[follows])


@dataclass(frozen=True)
class _Stage:
    experiment: Experiment
    measured: Measured
    after: int
    looks: tuple[int, ...]
    alpha: float

    def member(self, claim: Claim, follows) -> Member:
        values = self.measured.per_seed(claim.contrast)
        counted = {seed - self.after: value for seed, value in values.items() if seed >= self.after}

        @cache
        def broken(n: int) -> str:
            return self.mixed or self._diverged(claim, range(self.after, self.after + n))

        @cache
        def invalid(n: int) -> str | None:
            seeds = range(self.after, self.after + n)
            failures = (failure(self.measured, gate, seeds) for gate in claim.gates)
            return next(filter(None, failures), None)

        return Member(counted, claim.margin, follows, broken, invalid)

    @cached_property
    def mixed(self) -> str:
        return self.measured.mixed(self.experiment.arms)

    def _diverged(self, claim: Claim, seeds: range) -> str:
        found = sorted(self.measured.diverged)
        arms = [arm for arm, seed in found if arm in claim.arms and seed in seeds]
        return f"{len(arms)} trials diverged in {', '.join(dict.fromkeys(arms))}" if arms else ""

    def looked(self, place: int, family: Sequence[Member], found: Sequence[Standing]) -> Looked:
        waits = looks.next_look(place, family, found)
        until = None if waits is None else self.after + self.looks[waits - 1]
        standing = found[place]
        return Looked(standing.look, self.looks, self.after, standing.closed, until)

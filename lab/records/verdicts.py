"""From what was measured to one verdict per claim: gates, looks, Holm over the claims."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from lab.claims import looks, strength, wording
from lab.claims.looks import ALPHA, Member, Standing
from lab.claims.stats import Judgement, arm_correlation, judge, sensitivity, would_decide
from lab.claims.strength import Share
from lab.claims.vocabulary import AnyContrast, Claim, Contrast, Experiment, Setting
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


@dataclass(frozen=True)
class Verdict:
    """A claim in one setting with its judgement.

    Attributes:
        primary: Whether it is the primary contrast of its claim; the others are tested after it.
        p: Two-sided, adjusted for the claims of the experiment (Holm) and for the looks.
        level: The level at which the interval is drawn.
        differences: The contrast of every seed that it was judged from, by seed.
        beside: Unjudged comparisons (the naive one among them): effect and unadjusted interval.
        gates: For each gate what it asks and whether it held.
        correlation: Of the two arms over seeds, for a difference of two arms.
        looked: At which look.
        before: What the seeds said that were seen before looks were declared, if others decide.
        better: In which share of seeds the claim holds.
        detectable: The smallest effect that so many seeds would find, with power 0.8.
        test_share: Of the spread over seeds, what the finite test set alone explains, at most.
    """

    experiment: str
    setting: Setting
    claim: Claim
    primary: bool
    judgement: Judgement
    p: float
    level: float
    differences: dict[int, float]
    beside: dict[str, Judgement]
    gates: tuple[tuple[str, bool], ...]
    correlation: float
    looked: Looked
    before: Judgement | None
    better: Share
    detectable: float
    test_share: float


def judge_all(name: str, experiment: Experiment, measured: Measured) -> list[Verdict]:
    """Judge every claim of an experiment in one setting."""
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
    return [
        _verdict(name, measured, claim, follows[i] is None, standing[i], told[i], before[i])
        for i, claim in enumerate(claims)
    ]


def robustness(verdict: Verdict):
    """The sensitivity check of a verdict: sign-flip test and bootstrap interval."""
    return sensitivity(list(verdict.differences.values()), verdict.level)


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
        def failure(n: int) -> str | None:
            seeds = range(self.after, self.after + n)
            failures = (_failure(self.measured, gate, seeds) for gate in claim.gates)
            return next(filter(None, failures), None)

        return Member(counted, claim.margin, follows, broken, failure)

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


def _verdict(name, measured: Measured, claim: Claim, primary, standing, told, before) -> Verdict:
    seeds = range(told.after, told.after + _counted(standing, told))
    judgement = standing.judgement
    values = {s: v for s, v in measured.per_seed(claim.contrast).items() if s in seeds}
    if judgement.verdict == "inconclusive":
        reason = would_decide(list(values.values()), claim.margin, standing.level)
        judgement = replace(judgement, reason=reason)
    for more in (_look_says(told), _before_says(claim, before)):
        if more:
            judgement = replace(judgement, reason=f"{judgement.reason}; {more}")
    if kept := sum(measured.kept_trials.values()):
        reason = f"{judgement.reason}; stale trials kept (KEEP_STALE=1): {kept}"
        judgement = replace(judgement, reason=reason)
    beside = {
        label: judge(_of(measured, contrast, seeds), 0.0, ALPHA)
        for label, contrast in claim.beside.items()
    }
    return Verdict(
        name,
        measured.setting,
        claim,
        primary,
        judgement,
        standing.p,
        standing.level,
        values,
        beside,
        tuple((gate.says, _failure(measured, gate, seeds) is None) for gate in claim.gates),
        _correlation(measured, claim.contrast, seeds),
        told,
        before,
        strength.probability_better(list(values.values())),
        strength.detectable(list(values.values()), standing.level),
        _test_share(measured, claim.contrast, values),
    )


def _look_says(told: Looked) -> str:
    """At which of several looks it was made, and what it waits for."""
    said = []
    if told.number and len(told.seeds) > 1:
        said.append(f"look {told.number} of {len(told.seeds)}")
    if told.number and told.next is not None:
        said.append(f"next look after {told.next} seeds")
    return ", ".join(said)


def _before_says(claim: Claim, before: Judgement | None) -> str:
    if before is None:
        return ""
    effect = wording.effect(claim, before)
    return f"from seed {before.n} on; the first {before.n}, seen before: {effect}, {before.verdict}"


def _counted(standing: Standing, told: Looked) -> int:
    """How many seeds the shown judgement is of."""
    return told.seeds[max(standing.look, 1) - 1]


def _of(measured: Measured, contrast: AnyContrast, seeds: range) -> list[float]:
    return [value for seed, value in measured.per_seed(contrast).items() if seed in seeds]


def _failure(measured: Measured, gate, seeds: range) -> str | None:
    return gate.failure(_of(measured, gate.of, seeds))


def _correlation(measured: Measured, contrast: AnyContrast, seeds: range) -> float:
    if not isinstance(contrast, Contrast) or len(contrast.weights) != 2:
        return math.nan
    needs = contrast.needs()
    full = [v for s, v in measured.values.items() if s in seeds and all(n in v for n in needs)]
    return arm_correlation(*([v[need] for v in full] for need in needs))


def _test_share(measured: Measured, contrast: AnyContrast, values: dict[int, float]) -> float:
    """For differences of test accuracies, where manifests tell the number of test examples."""
    if not isinstance(contrast, Contrast) or contrast.metric != "test_accuracy":
        return math.nan
    accuracies = []
    for arm, weight in contrast.weights.items():
        sizes = [measured.test_size(arm, seed) for seed in values]
        if not all(sizes):
            return math.nan
        mean = sum(measured.values[seed][arm, contrast.metric] for seed in values) / len(values)
        accuracies.append((weight, mean, round(sum(sizes) / len(sizes))))
    return strength.finite_test_share(list(values.values()), accuracies)

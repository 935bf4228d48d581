"""From what was measured to one verdict per claim, and what stands beside it."""

import math
from dataclasses import dataclass, replace

from lab.claims import strength, wording
from lab.claims.looks import ALPHA
from lab.claims.stats import Judgement, arm_correlation, judge, sensitivity, would_decide
from lab.claims.strength import Share
from lab.claims.vocabulary import AnyContrast, Claim, Contrast, Experiment, Setting
from lab.records.measured import Measured
from lab.records.stages import Looked, Stood, failure, stand, values_of


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
    stood = stand(experiment, measured)
    each = zip(experiment.claims, stood, strict=True)
    return [_verdict(name, measured, claim, one) for claim, one in each]


def robustness(verdict: Verdict):
    """The sensitivity check of a verdict: sign-flip test and bootstrap interval."""
    return sensitivity(list(verdict.differences.values()), verdict.level)


def _verdict(name: str, measured: Measured, claim: Claim, stood: Stood) -> Verdict:
    standing, seeds = stood.standing, stood.looked.judged
    judgement = standing.judgement
    values = values_of(measured, claim.contrast, seeds)
    if judgement.verdict == "inconclusive":
        reason = would_decide(list(values.values()), claim.margin, standing.level)
        judgement = replace(judgement, reason=reason)
    for more in (_look_says(stood.looked), _before_says(claim, stood.before)):
        if more:
            judgement = replace(judgement, reason=f"{judgement.reason}; {more}")
    if kept := sum(measured.kept_trials.values()):
        reason = f"{judgement.reason}; stale trials kept (KEEP_STALE=1): {kept}"
        judgement = replace(judgement, reason=reason)
    beside = {
        label: judge(list(values_of(measured, contrast, seeds).values()), 0.0, ALPHA)
        for label, contrast in claim.beside.items()
    }
    return Verdict(
        name,
        measured.setting,
        claim,
        stood.primary,
        judgement,
        standing.p,
        standing.level,
        values,
        beside,
        tuple((gate.says, failure(measured, gate, seeds) is None) for gate in claim.gates),
        _correlation(measured, claim.contrast, seeds),
        stood.looked,
        stood.before,
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

"""From what was measured to one verdict per claim: gates, Holm over the claims, and the verdict."""

import math
from dataclasses import dataclass, replace

from lab.claims.stats import (
    Judgement,
    arm_correlation,
    holm_adjusted,
    holm_levels,
    judge,
    sensitivity,
)
from lab.claims.vocabulary import AnyContrast, Claim, Contrast, Experiment, Setting
from lab.records.measured import Measured

ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """A claim in one setting with its judgement.

    Attributes:
        p: Two-sided, adjusted for the claims of the experiment (Holm).
        level: The level at which the interval is drawn.
        differences: The contrast of every seed, by seed.
        beside: Unjudged comparisons (the naive one among them): effect and unadjusted interval.
        gates: For each gate what it asks and whether it held.
        correlation: Of the two arms over seeds, for a difference of two arms.
    """

    experiment: str
    setting: Setting
    claim: Claim
    judgement: Judgement
    p: float
    level: float
    differences: dict[int, float]
    beside: dict[str, Judgement]
    gates: tuple[tuple[str, bool], ...]
    correlation: float


def judge_all(name: str, experiment: Experiment, measured: Measured) -> list[Verdict]:
    """Judge every claim of an experiment in one setting."""
    declared, looks = measured.declared(experiment.scales[measured.setting.scale]["seeds"])
    mixed = measured.mixed(experiment.arms)
    kept = sum(measured.kept_trials.values())
    alpha = ALPHA / looks  # more seeds after a look at fewer: each look costs its share
    differences = [measured.per_seed(claim.contrast) for claim in experiment.claims]
    first = [
        judge(list(d.values()), claim.margin, alpha)
        for claim, d in zip(experiment.claims, differences, strict=True)
    ]
    levels = holm_levels([j.p for j in first], alpha)
    adjusted = holm_adjusted([j.p for j in first])
    verdicts = []
    for claim, values, level, p in zip(
        experiment.claims, differences, levels, adjusted, strict=True
    ):
        judgement = judge(list(values.values()), claim.margin, level)
        gates = tuple((gate.says, _gate(measured, gate)) for gate in claim.gates)
        obstacle = _obstacle(measured, mixed, claim, len(values), declared, [g for _, g in gates])
        if obstacle:
            judgement = replace(judgement, verdict=obstacle[0], reason=obstacle[1])
        if kept:
            reason = f"{judgement.reason}; stale trials kept (KEEP_STALE=1): {kept}"
            judgement = replace(judgement, reason=reason)
        beside = {
            label: judge(list(measured.per_seed(contrast).values()), 0.0, ALPHA)
            for label, contrast in claim.beside.items()
        }
        verdicts.append(
            Verdict(
                name,
                measured.setting,
                claim,
                judgement,
                p,
                level,
                values,
                beside,
                tuple((says, failure is None) for says, failure in gates),
                _correlation(measured, claim.contrast),
            )
        )
    return verdicts


def robustness(verdict: Verdict):
    """The sensitivity check of a verdict: sign-flip test and bootstrap interval."""
    return sensitivity(list(verdict.differences.values()), verdict.level)


def _gate(measured: Measured, gate) -> str | None:
    return gate.failure(list(measured.per_seed(gate.of).values()))


def _obstacle(measured, mixed, claim, n, declared, failures) -> tuple[str, str] | None:
    """What stands before any verdict, the gravest first."""
    if mixed:
        return "invalid", mixed
    diverged = [(arm, seed) for arm, seed in sorted(measured.diverged) if arm in claim.arms]
    if diverged:
        arms = ", ".join(dict.fromkeys(arm for arm, _ in diverged))
        return "invalid", f"{len(diverged)} trials diverged in {arms}"
    if n < declared:
        return "incomplete", f"{n} of {declared} seeds"
    return next((("invalid", failure) for failure in failures if failure), None)


def _correlation(measured: Measured, contrast: AnyContrast) -> float:
    if not isinstance(contrast, Contrast) or len(contrast.weights) != 2:
        return math.nan
    needs = contrast.needs()
    full = [v for v in measured.values.values() if all(need in v for need in needs)]
    return arm_correlation(*([v[need] for v in full] for need in needs))

"""The tables of the report, of one experiment in one setting and of all of it."""

import math
from collections.abc import Sequence

import pandas as pd

from lab.claims import wording
from lab.claims.stats import Judgement, Sensitivity
from lab.claims.strength import Share
from lab.claims.vocabulary import Claim
from lab.records.measured import Measured
from lab.records.verdicts import Verdict
from lab.report.tabular import Quantity, Table

WIDEST = 10  # metrics in the table of arms


def ledger(verdicts: Sequence[Verdict]) -> Table:
    """Every claim with its verdict, its effect, and what a careless comparison would say."""
    heading = (
        *("claim", "measure", "verdict", "effect [interval]", "naive", "n", "margin"),
        *("setting", "experiment", "literature"),
    )
    rows = [
        (
            f"{v.claim.id} {v.claim.says}",
            v.claim.metric,
            wording.verdict(v.judgement.verdict),
            _effect(v.claim, v.judgement),
            _effect(v.claim, v.beside["naive"]) if "naive" in v.beside else "",
            v.judgement.n,
            _amount(v.claim, v.claim.margin),
            wording.setting(v.setting),
            v.experiment,
            v.claim.literature,
        )
        for v in verdicts
    ]
    return Table("ledger", "Every claim and its verdict", heading, rows)


def judged(verdicts: Sequence[Verdict]) -> Table:
    """The verdict on every claim in one setting, and why."""
    rows = [
        (
            v.claim.id,
            v.claim.metric,
            wording.verdict(v.judgement.verdict),
            _effect(v.claim, v.judgement),
            _amount(v.claim, v.claim.margin),
            v.judgement.n,
            v.judgement.reason,
        )
        for v in verdicts
    ]
    heading = ("claim", "measure", "verdict", "effect [interval]", "margin", "n", "why")
    return Table("verdicts", "Verdicts", heading, rows)


def beside(verdicts: Sequence[Verdict]) -> Table:
    """The controlled effect with the naive one, and others that are not judged."""
    labels = dict.fromkeys(["naive"])
    labels |= dict.fromkeys(label for v in verdicts for label in v.beside)
    rows = []
    for v in verdicts:
        rows.append((v.claim.id, v.claim.metric, "controlled", _effect(v.claim, v.judgement)))
        for label in labels:
            if label in v.beside:
                rows.append((v.claim.id, v.claim.metric, label, _effect(v.claim, v.beside[label])))
    heading = ("claim", "measure", "comparison", "effect [interval]")
    return Table("comparisons", "The controlled comparison and, unjudged, others", heading, rows)


def gates(verdicts: Sequence[Verdict]) -> Table:
    """What had to hold for a comparison to be valid, and whether it did."""
    rows = [
        (v.claim.id, v.claim.metric, says, "held" if held else "FAILED")
        for v in verdicts
        for says, held in v.gates
    ]
    return Table(
        "gates",
        "Gates: what must hold for a comparison to be valid",
        ("claim", "measure", "gate", "outcome"),
        rows,
    )


def sensitivity(verdicts: Sequence[Verdict], checks: Sequence[Sensitivity]) -> Table:
    """The same effects by two other methods; never a verdict."""
    rows = [
        (
            v.claim.id,
            v.claim.metric,
            v.level,
            v.p,
            check.sign_flip_p,
            _interval(v.claim, check.bootstrap_low, check.bootstrap_high),
            v.correlation,
            _share(v.better),
            _amount(v.claim, v.detectable),
            "" if math.isnan(v.test_share) else f"{v.test_share:.0%}",
        )
        for v, check in zip(verdicts, checks, strict=True)
    ]
    heading = (
        *("claim", "measure", "level (Holm)", "adjusted p", "sign-flip p"),
        *("bootstrap interval", "correlation of the arms over seeds"),
        *("share of seeds where it holds", "smallest effect found with power 0.8"),
        "spread that the finite test set explains, at most",
    )
    return Table("sensitivity", "How sure: the same by other methods", heading, rows)


def _share(found: Share) -> Quantity:
    numbers = {"": found.share, "low": found.low, "high": found.high}
    if math.isnan(found.share):
        return Quantity("–", numbers)
    return Quantity(f"{found.share:.2f} [{found.low:.2f}, {found.high:.2f}]", numbers)


def arms(measured: Measured, verdicts: Sequence[Verdict]) -> Table:
    """Each arm's mean ± standard deviation over seeds (and n) per metric, judged ones first."""
    frame = pd.DataFrame(
        [
            (arm, metric, value)
            for table in measured.values.values()
            for (arm, metric), value in table.items()
            if "@" not in metric
        ],
        columns=["arm", "metric", "value"],
    )
    used = [
        metric
        for v in verdicts
        for contrast in (v.claim.contrast, *(gate.of for gate in v.claim.gates))
        for _, metric in contrast.needs()
    ]
    metrics = list(dict.fromkeys([*used, *frame["metric"]]))[:WIDEST]
    found = frame.groupby(["arm", "metric"], sort=False)["value"].agg(["mean", "std", "count"])
    stats = {key: tuple(row) for key, row in zip(found.index, found.to_numpy(), strict=True)}
    rows = [
        (arm, *(_spread(*stats[arm, m]) if (arm, m) in stats else "" for m in metrics))
        for arm in frame["arm"].unique()
    ]
    caption = "Arms: mean ± standard deviation over seeds (number of seeds)"
    return Table("arms", caption, ("arm", *metrics), rows)


def _spread(mean: float, deviation: float, count: float) -> Quantity:
    said = f" ± {wording.number(deviation)}" if count > 1 else ""
    text = f"{wording.number(mean)}{said} ({int(count)})"
    return Quantity(text, {"mean": float(mean), "sd": float(deviation), "n": int(count)})


def _amount(claim: Claim, value: float) -> Quantity:
    return Quantity(wording.quantity(claim, value), {"": float(value)})


def _effect(claim: Claim, judged: Judgement) -> Quantity:
    numbers = {"": judged.effect, "low": judged.low, "high": judged.high}
    return Quantity(wording.effect(claim, judged), numbers)


def _interval(claim: Claim, low: float, high: float) -> Quantity:
    text = f"[{wording.quantity(claim, low)}, {wording.quantity(claim, high)}]"
    return Quantity("–" if low != low else text, {"low": low, "high": high})

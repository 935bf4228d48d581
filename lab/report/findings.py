"""`docs/findings.md`: what a lecture should say differently, a paragraph per claim.

Of a claim's measures the primary one is told in full, the others by their marks. No sentence is
about numbers that the files do not hold; why a careless comparison errs is the experiment's word.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from lab.claims import discovery, wording
from lab.claims.stats import Judgement
from lab.claims.vocabulary import Claim, Experiment, Setting
from lab.records import inert, ledger
from lab.report import sections

WENT_WRONG = "What goes wrong:"  # how an experiment's story begins the paragraph on it


@dataclass(frozen=True)
class _Found:
    """One measure of a claim in one setting."""

    where: str
    claim: Claim
    judged: Judgement
    naive: Judgement | None

    @property
    def effect(self) -> str:
        return wording.effect(self.claim, self.judged)

    @property
    def seeds(self) -> str:
        return f"{self.judged.n} seeds"


def text(results: Path) -> str:
    """Markdown: an experiment a section, a claim a paragraph."""
    rows = ledger.verdicts(results)
    naive = {
        tuple(row[column] for column in ledger.WHERE): ledger.judgement(row)
        for row in ledger.comparisons(results)
        if row["comparison"] == "naive"
    }
    parts = []
    for name in dict.fromkeys(row["experiment"] for row in rows):
        experiment = discovery.load_experiment(name)
        parts.append(f"\n## {inert.markdown(experiment.title)}\n")
        story = sections.story(experiment)
        parts += [f"{inert.markdown(p)}\n" for p in story if p.startswith(WENT_WRONG)]
        own = [row for row in rows if row["experiment"] == name]
        for (claim_id, says), group in groupby(experiment.claims, key=lambda c: (c.id, c.says)):
            measures = [_everywhere(claim, own, naive, experiment) for claim in group]
            told = _paragraph([found for found in measures if found])
            if told:
                parts.append(f"**{claim_id}. {inert.markdown(says)}.** {told}\n")
    return "\n".join(parts) + "\n"


def _everywhere(claim: Claim, rows, naive, experiment: Experiment) -> list[_Found]:
    return [
        _Found(
            _where(row, experiment),
            claim,
            ledger.judgement(row),
            naive.get(tuple(row[column] for column in ledger.WHERE)),
        )
        for row in rows
        if (row["claim"], row["metric"]) == (claim.id, claim.metric)
        and row["verdict"] in wording.SHAPES
    ]


def _where(row, experiment: Experiment) -> str:
    setting = Setting(row["scale"], row["data"], row["model"], row["backend"])
    usual = setting.scale == "quick" and setting.model == experiment.model
    return setting.data if usual else wording.setting(setting)


def _paragraph(measures: Sequence[Sequence[_Found]]) -> str:
    if not measures:
        return ""
    primary, *others = measures
    said = [_verdicts(primary), *map(_careless, primary)]
    if others:
        said.append(f"Measured otherwise: {'; '.join(map(_marks, others))}.")
    said.append(f"Literature: {inert.markdown(primary[0].claim.literature.rstrip('.'))}.")
    return " ".join(filter(None, said))


def _verdicts(found: Sequence[_Found]) -> str:
    """Where it held, where it did not, and what is open, of the primary measure."""
    by_word = {
        word: [one for one in found if one.judged.verdict == word] for word in wording.SHAPES
    }
    said = []
    if held := by_word["supported"]:
        said.append(f"holds on {_list(held)}")
    if failed := by_word["refuted"]:
        said.append(f"does not hold on {_list(failed, reasons=True)}")
    if unsure := by_word["inconclusive"]:
        said.append(f"open on {_list(unsure, reasons=True)}")
    for word in ("invalid", "incomplete", "untested"):
        if by_word[word]:
            said.append(f"{word} on {_list(by_word[word], reasons=True)}")
    measure = inert.markdown(found[0].claim.metric)
    return f"By {measure}: {'; '.join(said)}."


def _list(found: Sequence[_Found], reasons: bool = False) -> str:
    return ", ".join(
        f"{one.where} ({one.effect}, {one.seeds}"
        + (f"; {inert.markdown(one.judged.reason)})" if reasons else ")")
        for one in found
    )


def _careless(one: _Found) -> str:
    """What the uncontrolled comparison of the same runs would have said, if it is another thing."""
    if one.naive is None or math.isnan(one.naive.effect) or math.isnan(one.judged.effect):
        return ""
    naive, effect = one.naive.effect, one.judged.effect
    if one.judged.low <= naive <= one.judged.high:
        return ""
    how = "more" if naive > effect else "less"
    if naive * effect < 0:
        how = "the opposite"
    shown = wording.quantity(one.claim, naive)
    unit = "" if one.claim.unit == "ratio" else f" {one.claim.unit}"
    return f"On {one.where} the careless comparison says {how}: {shown}{unit}."


def _marks(found: Sequence[_Found]) -> str:
    marks = ", ".join(
        f"{wording.SHAPES[one.judged.verdict]} {one.where} {one.effect}" for one in found
    )
    return f"{inert.markdown(found[0].claim.metric)} {marks}"

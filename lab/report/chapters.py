"""How the page is divided: an experiment is a chapter, with its claims and its settings."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from lab.claims import wording
from lab.claims.vocabulary import Claim, Experiment, Setting
from lab.records.verdicts import Verdict
from lab.report import sections
from lab.report.bars import Bar, Scale
from lab.report.sections import Section

# The letter that a claim's id begins with is the part of the lecture it belongs to.
PARTS = {
    "B": "Batch normalization",
    "E": "Ensembles and averaging",
    "G": "Generalization",
    "H": "Hyperparameters",
    "O": "Optimization",
    "R": "Regularization",
    "T": "Transfer",
}


@dataclass(frozen=True)
class Entry:
    """A row of the ledger.

    Attributes:
        anchor: Its id on the page.
        reference: The committed result of the same claim in the same setting, as read.
    """

    verdict: Verdict
    section: Section
    anchor: str
    bar: Bar
    reference: str
    reference_word: str


@dataclass(frozen=True)
class Group:
    """A sentence of the lecture with the ways it was measured."""

    id: str
    says: str
    part: str
    anchor: str
    literature: list[str]
    entries: list[Entry]

    def rows(self) -> list[tuple[str, dict[Setting, Entry]]]:
        """The grid: for each measure, its entry in every setting."""
        found: dict[str, dict[Setting, Entry]] = {}
        for entry in self.entries:
            row = found.setdefault(entry.verdict.claim.metric, {})
            row[entry.section.setting] = entry
        return list(found.items())


@dataclass(frozen=True)
class Chapter:
    """An experiment with everything that was measured for it."""

    name: str
    experiment: Experiment | None
    story: list[str]
    sections: list[Section]
    groups: list[Group]

    @property
    def counts(self) -> list[tuple[str, int]]:
        """How many verdicts of each kind it has."""
        return count(entry for group in self.groups for entry in group.entries)


def divide(
    every: Sequence[Section], scale: Scale, reference: Sequence[dict[str, str]]
) -> list[Chapter]:
    """The chapters, in the order of the sections; `reference` as rows of `verdicts.csv`."""
    ids: Counter[str] = Counter()
    chapters = []
    for name, own in groupby(every, key=lambda section: section.name):
        same = list(own)
        groups: dict[tuple[str, str], list[Entry]] = {}
        for verdict, section in _by_claim(same):
            claim = verdict.claim
            row = _reference(verdict, reference)
            entry = Entry(
                verdict,
                section,
                anchor(f"{name} {claim.id} {claim.metric} {section.setting.folder}", ids),
                scale.bar(verdict),
                _told(claim, verdict, row) if row else "",
                row["verdict"] if row else "",
            )
            groups.setdefault((claim.id, claim.says), []).append(entry)
        chapters.append(
            Chapter(
                name,
                same[0].experiment,
                sections.story(same[0].experiment),
                same,
                [_group(name, key, entries, ids) for key, entries in groups.items()],
            )
        )
    return chapters


def count(entries: Iterable[Entry]) -> list[tuple[str, int]]:
    """How many entries have each verdict, in the usual order."""
    found = Counter(entry.verdict.judgement.verdict for entry in entries)
    return [(word, found[word]) for word in wording.SHAPES if found[word]]


def part(claim_id: str) -> str:
    """The part of the lecture that a claim belongs to.

    >>> part("G1a"), part("X2"), part("7")
    ('Generalization', 'X', 'other')
    """
    letters = re.match(r"[A-Za-z]*", claim_id)
    found = letters[0] if letters else ""
    return PARTS.get(found, found or "other")


def anchor(text: str, ids: Counter[str]) -> str:
    """An id on the page, made of a claim's experiment and id, say.

    Args:
        text: What it is made of.
        ids: How often each was given away; is added to.

    >>> given = Counter()
    >>> anchor("batch_size G1a", given), anchor("batch size G1a", given)
    ('batch-size-g1a', 'batch-size-g1a--2')
    """
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    ids[slug] += 1
    return slug if ids[slug] == 1 else f"{slug}--{ids[slug]}"


def _group(name: str, key: tuple[str, str], entries: list[Entry], ids: Counter[str]) -> Group:
    claim_id, says = key
    literature = list(dict.fromkeys(entry.verdict.claim.literature for entry in entries))
    place = anchor(f"{name} {claim_id}", ids)
    return Group(claim_id, says, part(claim_id), place, literature, entries)


def _by_claim(every: list[Section]) -> list[tuple[Verdict, Section]]:
    """Verdicts in the order in which the experiment lists its claims, then by setting."""
    found = [(v, section) for section in every for v in section.verdicts]
    keys = [(v.claim.id, v.claim.metric) for v, _ in found]
    rank = {key: place for place, key in reversed(list(enumerate(keys)))}
    return sorted(found, key=lambda pair: rank[pair[0].claim.id, pair[0].claim.metric])


def _reference(verdict: Verdict, rows: Sequence[dict[str, str]]) -> dict[str, str] | None:
    """The row of the same claim in the same setting, of the same backend if there is one."""
    s = verdict.setting
    wanted = {"experiment": verdict.experiment, "claim": verdict.claim.id, "data": s.data}
    wanted |= {"metric": verdict.claim.metric, "model": s.model, "scale": s.scale}
    same = [row for row in rows if wanted.items() <= row.items()]
    same = [row for row in same if row["verdict"] in wording.SHAPES]
    return min(same, key=lambda row: row["backend"] != s.backend, default=None)


def _told(claim: Claim, verdict: Verdict, row: dict[str, str]) -> str:
    from lab.records import ledger

    try:
        said = wording.effect(claim, ledger.judgement(row))
    except ValueError:
        return ""
    other = "" if row["backend"] == verdict.setting.backend else f" ({row['backend']})"
    return f"{said}{other}"

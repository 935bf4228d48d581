"""The ledger in the README and, with its numbers, in `docs/results.md`: from the reference results.

Both stand between markers. A claim is a line, in the README of marks alone.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.claims import discovery, wording
from lab.claims.vocabulary import Claim, Experiment, Setting
from lab.machine import files
from lab.records import inert, ledger
from lab.report import chapters, findings

START, END = "<!-- ledger: written by make report RESULTS=results/reference -->", "<!-- /ledger -->"
REFERENCE = Path("results") / "reference"
UNTOLD = ("scale", "backend")  # of a column, where they are the usual ones
PAGE = (REFERENCE / "report.html").as_posix()


def update(results: Path) -> bool:
    """Rewrite what stands between markers if `results` is the reference; whether it changed."""
    if results.resolve() != discovery.ROOT / REFERENCE:
        return False
    places = {
        "README.md": marks,
        "docs/results.md": numbers,
        "docs/findings.md": findings.text,
    }
    return any([_renew(discovery.ROOT / name, made, results) for name, made in places.items()])


def _renew(path: Path, made: Callable[[Path], str], results: Path) -> bool:
    text = path.read_text("utf-8") if path.is_file() else ""
    if START not in text or END not in text:
        return False
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    new = f"{before}{START}\n{made(results)}{END}{after}"
    if new != text:
        files.write_atomically(path, new.encode())
    return new != text


@dataclass(frozen=True)
class _Line:
    """A sentence of the lecture as one experiment tests it, with the claims that measure it."""

    experiment: str
    id: str
    says: str
    anchor: str
    claims: list[Claim]


def marks(results: Path) -> str:
    """What the marks mean, and a Markdown table: a row per claim, a column per data set.

    In each cell a mark for each of the claim's measures. A column is told apart from others by
    more than its data only where it must be.
    """
    rows = ledger.verdicts(results)
    experiments = _experiments(rows)
    usual = {part: Counter(row[part] for row in rows).most_common(1) for part in UNTOLD}
    words: dict[tuple, str] = {}
    columns: Counter[str] = Counter()
    for row in rows:
        column = _column(row, experiments[row["experiment"]], usual)
        words[row["experiment"], row["claim"], row["metric"], column] = row["verdict"]
        columns[column] += 1
    titles = [column for column, _ in columns.most_common()]
    lines = [_legend(rows, usual), "", *_head("claim", *titles)]
    for line in sorted(_lines(experiments), key=lambda line: _natural(line.id)):
        cells = [f"[{inert.markdown(line.id)}]({PAGE}#{line.anchor}) {inert.markdown(line.says)}"]
        for title in titles:
            told = [words.get((line.experiment, line.id, c.metric, title)) for c in line.claims]
            cells.append("".join(map(_mark, told)) if any(told) else "")
        lines.append(_row(*cells))
    return "\n".join(lines) + "\n"


def _column(row, experiment: Experiment, usual) -> str:
    """Short for a setting: its data, and what else is not as in most."""
    told = [row["data"]]
    told += [row["model"]] if row["model"] != experiment.model else []
    told += [row[part] for part in UNTOLD if row[part] != usual[part][0][0]]
    return "<br>".join(told)


def _legend(rows, usual) -> str:
    said = ", ".join(f"{shape} {word}" for word, shape in wording.SHAPES.items())
    seeds = sorted({int(row["n"]) for row in rows})
    over = f", over {' to '.join(map(str, dict.fromkeys(seeds[:1] + seeds[-1:])))} paired seeds"
    of = "".join(f"{part} {found[0][0]}, " for part, found in usual.items() if found)
    same = f"Where a column says no more: {of}the experiment's own model."
    return f"{said}; one mark a measure{over if seeds else ''}. {same}"


def _mark(word: str | None) -> str:
    return wording.SHAPES[word or "incomplete"]


def _natural(claim_id: str) -> list:
    """To sort by: O2 before O10.

    >>> sorted(["O10", "O2b", "G1", "O2"], key=_natural)
    ['G1', 'O2', 'O2b', 'O10']
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", claim_id)]


def numbers(results: Path) -> str:
    """Markdown tables, one per experiment: a row per measure, a column per setting."""
    rows = ledger.verdicts(results)
    naive = {_key(row): row for row in ledger.comparisons(results) if row["comparison"] == "naive"}
    found = {_key(row): row for row in rows}
    experiments = _experiments(rows)
    parts = []
    for name in experiments:
        of = list(dict.fromkeys(_setting(row) for row in rows if row["experiment"] == name))
        path = Path("experiments", discovery.part_of(name), f"{name}.py").as_posix()
        parts.append(f"\n### {name}\n\n[{path}](../{path})\n")
        parts += _head("claim", "measure", *map(wording.setting, of))
        for line in _lines({name: experiments[name]}):
            for i, claim in enumerate(line.claims):
                says = inert.markdown("" if i else f"{line.id} {line.says}")
                cells: list[str] = [says, inert.markdown(claim.metric)]
                for s in of:
                    key = (name, claim.id, s.scale, s.data, s.model, s.backend, claim.metric)
                    cells.append(_cell(claim, found.get(key), naive.get(key)))
                parts.append(_row(*cells))
    return "\n".join(parts) + "\n\n"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(*cells: str) -> list[str]:
    return [_row(*cells), _row(*["---"] * len(cells))]


def _experiments(rows) -> dict[str, Experiment]:
    names = dict.fromkeys(row["experiment"] for row in rows)
    return {name: discovery.load_experiment(name) for name in names}


def _lines(experiments: dict[str, Experiment]) -> list[_Line]:
    """As on the page: an experiment's claims of one sentence together, and their place there."""
    ids: Counter[str] = Counter()
    lines = []
    for name, experiment in experiments.items():
        found: dict[tuple[str, str], list[Claim]] = {}
        for claim in experiment.claims:
            found.setdefault((claim.id, claim.says), []).append(claim)
        for (claim_id, says), claims in found.items():
            place = chapters.anchor(f"{name} {claim_id}", ids)
            lines.append(_Line(name, claim_id, says, place, claims))
    return lines


def _setting(row) -> Setting:
    return Setting(row["scale"], row["data"], row["model"], row["backend"])


def _key(row) -> tuple:
    return tuple(row[column] for column in ledger.WHERE)


def _cell(claim: Claim, row, other) -> str:
    if row is None:
        return ""
    said = f"**{wording.verdict(row['verdict'])}** {wording.effect(claim, ledger.judgement(row))}"
    if other is None:
        return said
    return f"{said}; naive {wording.quantity(claim, ledger.judgement(other).effect)}"

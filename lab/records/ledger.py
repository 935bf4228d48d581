"""The ledger on disk: `verdicts.csv`, a row per claim and setting, and `comparisons.csv`."""

import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path

from lab.claims.stats import Judgement
from lab.claims.vocabulary import Setting
from lab.machine import files
from lab.records import inert

VERDICTS, COMPARISONS = "verdicts.csv", "comparisons.csv"
WHERE = ("experiment", "claim", "scale", "data", "model", "backend", "metric")
VERDICT_COLUMNS = (*WHERE, "n", "effect", "low", "high", "p", "margin", "verdict", "reason")
COMPARISON_COLUMNS = (*WHERE, "comparison", "n", "effect", "low", "high")


def save(results: Path, verdicts: Iterable) -> None:
    """Write both files from `Verdict`s. Numbers round-trip; undefined ones are empty.

    In `verdicts.csv`, `p` is adjusted for the claims of the experiment (Holm) and for looks, so
    that it is below 0.05 exactly where [low, high] excludes 0. `comparisons.csv` holds what is
    shown beside a claim but not judged, with unadjusted intervals; the one called "naive" is the
    uncontrolled one.
    """
    rows, beside = [], []
    for v in verdicts:
        s, j = v.setting, v.judgement
        where = [v.experiment, v.claim.id, s.scale, s.data, s.model, s.backend, v.claim.metric]
        numbers = [_cell(x) for x in (j.effect, j.low, j.high, v.p, v.claim.margin)]
        where = [inert.spreadsheet(cell) for cell in where]
        rows.append([*where, j.n, *numbers, j.verdict, inert.spreadsheet(j.reason)])
        for label, other in v.beside.items():
            numbers = [_cell(x) for x in (other.effect, other.low, other.high)]
            beside.append([*where, inert.spreadsheet(label), other.n, *numbers])
    for name, columns, table in (
        (VERDICTS, VERDICT_COLUMNS, rows),
        (COMPARISONS, COMPARISON_COLUMNS, beside),
    ):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *table])
        files.write_atomically(results / name, text.getvalue().encode())


def verdicts(results: Path) -> list[dict[str, str]]:
    """The rows of `verdicts.csv`; none if it cannot be read."""
    return _read(results / VERDICTS, VERDICT_COLUMNS)


def comparisons(results: Path) -> list[dict[str, str]]:
    """The rows of `comparisons.csv`; none if it cannot be read."""
    return _read(results / COMPARISONS, COMPARISON_COLUMNS)


def judgement(row: dict[str, str]) -> Judgement:
    """The numbers of a row of either file."""
    effect, low, high, p = (float(row.get(k) or "nan") for k in ("effect", "low", "high", "p"))
    said = row.get("verdict", ""), row.get("reason", "")
    return Judgement(effect, low, high, p, int(row["n"]), *said)


def at(row: dict[str, str], experiment: str, setting: Setting) -> bool:
    """Whether a row belongs to an experiment and setting."""
    wanted = (experiment, setting.scale, setting.data, setting.model, setting.backend)
    return wanted == tuple(row[k] for k in WHERE if k not in ("claim", "metric"))


def _read(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        text = files.content(path).decode("utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if tuple(reader.fieldnames or ()) != columns:
            return []
        return [{c: inert.as_written(row[c] or "") for c in columns} for row in reader]
    except (files.Broken, csv.Error, UnicodeDecodeError):
        return []


def _cell(value: float) -> str:
    return "" if math.isnan(value) else repr(float(value))

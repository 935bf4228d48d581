"""The ledger in the README, written between markers from the reference results."""

from pathlib import Path

from lab.claims import discovery, wording
from lab.claims.vocabulary import Claim, Setting
from lab.machine import files
from lab.records import ledger

START, END = "<!-- ledger: written by make report RESULTS=results/reference -->", "<!-- /ledger -->"
REFERENCE = Path("results") / "reference"


def update(results: Path) -> bool:
    """Rewrite the README's ledger if `results` is the reference; returns whether it did."""
    readme = discovery.ROOT / "README.md"
    if results.resolve() != discovery.ROOT / REFERENCE or not readme.is_file():
        return False
    text = readme.read_text("utf-8")
    if START not in text or END not in text:
        return False
    before, rest = text.split(START, 1)
    after = rest.split(END, 1)[1]
    new = f"{before}{START}\n{grid(results)}{END}{after}"
    if new != text:
        files.write_atomically(readme, new.encode())
    return new != text


def grid(results: Path) -> str:
    """A Markdown table: a row per claim and measure, a column per data set and model."""
    rows = ledger.verdicts(results)
    naive = {_key(row): row for row in ledger.comparisons(results) if row["comparison"] == "naive"}
    settings = list(dict.fromkeys(_setting(row) for row in rows))
    cells = {(row["experiment"], row["claim"], row["metric"], _setting(row)): row for row in rows}
    lines = ["| claim | measure | " + " | ".join(settings) + " |"]
    lines.append("| --- | --- |" + " --- |" * len(settings))
    for experiment, claim in _claims(rows):
        line = [f"{claim.id} {claim.says}", claim.metric]
        for setting in settings:
            row = cells.get((experiment, claim.id, claim.metric, setting))
            line.append(_cell(claim, row, naive) if row else "")
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines) + "\n"


def _claims(rows) -> list[tuple[str, Claim]]:
    names = dict.fromkeys(row["experiment"] for row in rows)
    return [(name, c) for name in names for c in discovery.load_experiment(name).claims]


def _setting(row) -> str:
    return wording.setting(Setting(row["scale"], row["data"], row["model"], row["backend"]))


def _key(row) -> tuple:
    return tuple(row[column] for column in ledger.WHERE)


def _cell(claim: Claim, row, naive) -> str:
    said = f"**{wording.verdict(row['verdict'])}** {wording.effect(claim, ledger.judgement(row))}"
    other = naive.get(_key(row))
    if other is None:
        return said
    return f"{said}; naive {wording.quantity(claim, ledger.judgement(other).effect)}"

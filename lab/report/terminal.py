"""The terminal, and the table of verdicts that an experiment ends with there."""

from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lab.claims import wording
from lab.claims.vocabulary import Claim, Experiment, Setting
from lab.records import ledger


class Terminal(Console):
    """Rich's console; but a reader who has seen enough (`| head`) is the caller's to handle."""

    def on_broken_pipe(self) -> None:
        """Raise, where Rich would exit with status 1."""
        raise BrokenPipeError


def show(results: Path, name: str, experiment: Experiment, setting: Setting) -> None:
    """Print claim, effect, naive effect, n, verdict and literature, and where everything is."""
    console = Terminal(highlight=False)
    rows = {
        (row["claim"], row["metric"]): row
        for row in ledger.verdicts(results)
        if ledger.at(row, name, setting)
    }
    naive = {
        (row["claim"], row["metric"]): row
        for row in ledger.comparisons(results)
        if ledger.at(row, name, setting) and row["comparison"] == "naive"
    }
    console.print(f"\n[bold]{escape(experiment.title)}[/]")
    for _, group in groupby(experiment.claims, key=lambda claim: claim.id):
        claims = [claim for claim in group if (claim.id, claim.metric) in rows]
        if claims:
            _claim(console, claims, rows, naive)
    if setting.scale == "smoke":
        console.print(
            "[yellow]Scale smoke only checks the machinery: its verdicts mean nothing.[/]"
        )
    for what, path in (
        ("rows", results / f"{name}.csv"),
        ("verdicts", results / ledger.VERDICTS),
        ("report", results / "report.html"),
        ("Markdown", results / "REPORT.md"),
        ("figures", results / "figures" / name / setting.folder),
    ):
        console.print(f"{what:>9}: {escape(str(path))}", soft_wrap=True)


def _claim(console: Console, claims: list[Claim], rows: dict, naive: dict) -> None:
    console.print(f"\n[bold]{escape(claims[0].id)}  {escape(claims[0].says)}[/]")
    table = Table(box=None, pad_edge=False, expand=True, header_style="dim")
    for heading, ratio in (("measure", 4), ("effect [interval]", 5), ("naive", 3)):
        table.add_column(heading, ratio=ratio, overflow="fold")
    table.add_column("n", justify="right", width=3)
    table.add_column("verdict", width=14)
    table.add_column("why", ratio=6, overflow="fold")
    for claim in claims:
        row = rows[claim.id, claim.metric]
        other = naive.get((claim.id, claim.metric))
        colour = wording.COLOURS[row["verdict"]]
        table.add_row(
            escape(claim.metric),
            escape(wording.effect(claim, ledger.judgement(row))),
            escape(wording.quantity(claim, ledger.judgement(other).effect)) if other else "",
            row["n"],
            f"[{colour}]{wording.verdict(row['verdict'])}[/]",
            f"[dim]{escape(row['reason'])}[/]",
        )
    console.print(table)
    for literature in dict.fromkeys(claim.literature for claim in claims):
        console.print(f"[dim]literature: {escape(literature)}[/]")

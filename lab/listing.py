"""`make list`: every experiment with its claims and their last verdicts."""

import sys
from itertools import groupby
from pathlib import Path

from rich.markup import escape

from lab.claims import discovery, wording
from lab.claims.vocabulary import Experiment
from lab.records import ledger
from lab.report.terminal import Terminal


def show(results: Path) -> int:
    """Print the list by part of the lecture; reads `verdicts.csv`, never imports Keras or pandas.

    Returns:
        The exit status: 2 if a file of `experiments/` is no experiment; the others are listed.
    """
    usable, wrong = discovery.load_usable()
    last = _last_verdicts(results)
    terminal = Terminal(highlight=False)
    for part, names in groupby(usable, key=discovery.part_of):
        terminal.print(f"[bold reverse] {escape(_title(part))} [/]\n")
        for name in names:
            _show_one(terminal, name, usable[name], last)
    for sentence in wrong:
        print(sentence, file=sys.stderr)
    return 2 if wrong else 0


def _title(part: str) -> str:
    """A part of the lecture, from the name of its folder."""
    return part.replace("_", " ").replace("/", ", ").capitalize() or "Of your own"


def _show_one(terminal: Terminal, name: str, experiment: Experiment, last) -> None:
    trials = ", ".join(
        f"{scale} {len(experiment.arms) * settings['seeds']}"
        for scale, settings in experiment.scales.items()
    )
    terminal.print(f"[bold]{name}[/]: {escape(experiment.title)}")
    terminal.print(f"  source: {escape(experiment.source)}")
    terminal.print(f"  {len(experiment.arms)} arms; trials at each scale: {trials}")
    for number, claims in groupby(experiment.claims, key=lambda claim: claim.id):
        for i, claim in enumerate(claims):
            if i == 0:
                terminal.print(f"  [bold]{escape(number)}[/] {escape(claim.says)}")
            verdicts = "; ".join(last.get((name, number, claim.metric), ["not run yet"]))
            terminal.print(f"      {escape(claim.metric)}: {escape(verdicts)}")
    terminal.print(f"  run: make experiment NAME={name}\n")


def _last_verdicts(results: Path) -> dict[tuple[str, str, str], list[str]]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in ledger.verdicts(results):
        where = f"{row['scale']} on {row['data']}, {row['model']}, {row['backend']}"
        said = wording.verdict(row["verdict"]) if row["verdict"] in wording.SHAPES else "unreadable"
        key = (row["experiment"], row["claim"], row["metric"])
        found.setdefault(key, []).append(f"{said} ({where})")
    return found

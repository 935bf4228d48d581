"""`make list`: every experiment with its claims and their last verdicts."""

from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from lab import discovery, ledger, wording


def show(results: Path) -> int:
    """Print the list; reads `verdicts.csv` and never imports Keras or pandas."""
    console = Console(highlight=False)
    last = _last_verdicts(results)
    for name in discovery.experiment_names():
        experiment = discovery.load_experiment(name)
        trials = ", ".join(
            f"{scale} {len(experiment.arms) * settings['seeds']}"
            for scale, settings in experiment.scales.items()
        )
        console.print(f"[bold]{name}[/]: {escape(experiment.title)}")
        console.print(f"  source: {escape(experiment.source)}")
        console.print(f"  {len(experiment.arms)} arms; trials at each scale: {trials}")
        for number, claims in groupby(experiment.claims, key=lambda claim: claim.id):
            for i, claim in enumerate(claims):
                if i == 0:
                    console.print(f"  [bold]{escape(number)}[/] {escape(claim.says)}")
                verdicts = "; ".join(last.get((name, number, claim.metric), ["not run yet"]))
                console.print(f"      {escape(claim.metric)}: {escape(verdicts)}")
        console.print(f"  run: make experiment NAME={name}\n")
    return 0


def _last_verdicts(results: Path) -> dict[tuple[str, str, str], list[str]]:
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in ledger.verdicts(results):
        where = f"{row['scale']} on {row['data']}, {row['model']}, {row['backend']}"
        said = wording.verdict(row["verdict"]) if row["verdict"] in wording.SHAPES else "unreadable"
        key = (row["experiment"], row["claim"], row["metric"])
        found.setdefault(key, []).append(f"{said} ({where})")
    return found

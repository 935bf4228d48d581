"""`REPORT.md` from the sections of the report: a template and the tables it shows."""

from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from lab import wording
from lab.measured import Measured
from lab.verdicts import Verdict, robustness

WIDEST = 10  # metrics in the table of arms
TEMPLATE = "report.md.jinja"


def render(sections: list[dict]) -> str:
    """The report as Markdown; text from files is inert in HTML and in tables."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_inert,
    )
    environment.globals |= {"wording": wording, "robustness": robustness}
    for section in sections:
        section["arms"] = arms_table(section["measured"], section["verdicts"])
        section["cost"] = cost(section["measured"])
    return environment.get_template(TEMPLATE).render(sections=sections)


def arms_table(measured: Measured, verdicts: list[Verdict]) -> tuple[list[str], list[list[str]]]:
    """Heading and rows: each arm's mean ± standard deviation over seeds (and n) per metric."""
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
    stats = frame.groupby(["arm", "metric"], sort=False)["value"].agg(["mean", "std", "count"])
    rows = []
    for arm in frame["arm"].unique():
        cells = [arm]
        for metric in metrics:
            if (arm, metric) not in stats.index:
                cells.append("")
                continue
            mean, deviation, count = stats.loc[(arm, metric)]
            spread = f" ± {wording.number(deviation)}" if count > 1 else ""
            cells.append(f"{wording.number(mean)}{spread} ({int(count)})")
        rows.append(cells)
    return ["arm", *metrics], rows


def cost(measured: Measured) -> str:
    """Trials, summed time and device."""
    seconds = sum(float(m.get("seconds", 0)) for m in measured.manifests.values())
    devices = sorted({str(m.get("device", "unknown")) for m in measured.manifests.values()})
    return (
        f"{len(measured.manifests)} trials, {wording.duration(seconds)} of one worker, "
        f"on {', '.join(devices) or 'nothing'}"
    )


def _inert(value):
    """Keep text from files inside its table cell; HTML is escaped by autoescape."""
    if isinstance(value, Markup):
        return value
    text = " ".join(str(value).split())
    escaped = str(escape(text))
    for character in "|`*_[]":
        escaped = escaped.replace(character, f"&#{ord(character)};")
    return Markup(escaped)

"""`report.html`: one page that opens from disk, with everything inside it and nothing else."""

from collections.abc import Sequence

from markupsafe import Markup

from lab.report import embed, tables
from lab.report.bars import scale_for
from lab.report.chapters import count, divide
from lab.report.sections import Section, verdicts
from lab.report.templates import FOLDER, environment

TEMPLATE = "page.html.jinja"


def render(
    sections: Sequence[Section],
    reference: Sequence[dict[str, str]] = (),
    strangers: Sequence[str] = (),
    live: str = "",
) -> str:
    """The page.

    Args:
        sections: Of one experiment after the other.
        reference: Rows of the committed `verdicts.csv`, to be shown beside; none for itself.
        strangers: A sentence for each file that is left out.
        live: The version of a page that is served, and asks the server for the next one.
    """
    every = verdicts(sections)
    scale = scale_for(every)
    chapters = divide(sections, scale, reference)
    entries = [entry for c in chapters for group in c.groups for entry in group.entries]
    style, script, news = (
        (FOLDER / name).read_text("utf-8") for name in ("page.css", "page.js", "live.js")
    )
    scripts = [script, news] if live else [script]
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            chapters=chapters,
            counts=count(entries),
            ledger=tables.ledger(every),
            scale=scale,
            compared=any(entry.reference for entry in entries),
            trials=sum(len(section.measured.manifests) for section in sections),
            broken=sum(len(section.measured.broken) for section in sections),
            strangers=strangers,
            diverged=sum(len(section.measured.diverged) for section in sections),
            parts=sorted({group.part for chapter in chapters for group in chapter.groups}),
            data=sorted({section.setting.data for section in sections}),
            picture_uri=embed.picture,
            live=live,
            policy=embed.policy(style, scripts, served=bool(live)),
            style=Markup(style),  # our own files
            scripts=[Markup(each) for each in scripts],
        )
    )

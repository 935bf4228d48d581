"""`REPORT.md` from the sections of the report."""

from collections.abc import Sequence

from lab.report import tables
from lab.report.sections import Section, story, verdicts
from lab.report.templates import environment

TEMPLATE = "report.md.jinja"


def render(sections: Sequence[Section], strangers: Sequence[str] = ()) -> str:
    """The report as Markdown; text from files is inert in HTML and in tables.

    Args:
        sections: Of one experiment after the other.
        strangers: A sentence for each file that is left out.
    """
    ledger = tables.ledger(verdicts(sections))
    template = environment(markdown=True).get_template(TEMPLATE)
    return template.render(sections=sections, strangers=strangers, ledger=ledger, story=story)

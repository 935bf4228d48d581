"""The one Jinja environment: text is escaped, and a name that is not there raises."""

from pathlib import Path

import jinja2

from lab.claims import wording
from lab.records import inert

FOLDER = Path(__file__).parent


def environment(markdown: bool = False) -> jinja2.Environment:
    """For HTML, or for Markdown, where text must also stay inside of its table cell."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=inert.markdown if markdown else None,
    )
    made.globals |= {"wording": wording}
    return made

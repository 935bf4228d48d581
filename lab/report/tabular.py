"""A table once: heading and rows, and from them Markdown, CSV and LaTeX; HTML is a template's."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup

from lab.claims import wording
from lab.records import inert

NUMERIC = re.compile(r"[−×+]?[\d∞].*|–")


@dataclass(frozen=True)
class Quantity:
    """A cell that people read as `text` and programs as numbers, by what they are."""

    text: str
    numbers: Mapping[str, float]

    def __str__(self):
        return self.text


Cell = str | float | Quantity


@dataclass(frozen=True)
class Table:
    """Heading and rows under a name that can be a file's."""

    name: str
    caption: str
    heading: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]

    @property
    def shown(self) -> list[list[str]]:
        """The rows as people read them."""
        return [[_shown(cell) for cell in row] for row in self.rows]

    @property
    def numeric(self) -> list[bool]:
        """For each column whether it holds numbers only, to be set flush right."""
        columns = list(zip(*self.shown, strict=True)) or [()] * len(self.heading)
        return [
            any(column) and all(not cell or NUMERIC.fullmatch(cell) for cell in column)
            for column in columns
        ]

    def markdown(self) -> Markup:
        """A table of GitHub's Markdown, numbers flush right."""
        rule = ("---:" if numeric else "---" for numeric in self.numeric)
        lines = [map(inert.markdown, self.heading), rule]
        lines += [map(inert.markdown, row) for row in self.shown]
        return Markup("".join(f"| {' | '.join(line)} |\n" for line in lines))

    def csv(self) -> str:
        """Comma-separated; a quantity is spread over a column per number."""
        parts: list[dict[str, None]] = [{} for _ in self.heading]
        for row in self.rows:
            for names, cell in zip(parts, row, strict=True):
                names.update(dict.fromkeys(cell.numbers if isinstance(cell, Quantity) else ()))
        heading: list[str] = []
        for title, names in zip(self.heading, parts, strict=True):
            plain = title.partition(" [")[0]  # "effect [interval]": its numbers are columns now
            heading += [f"{plain} {name}".strip() for name in names] or [title]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(map(inert.spreadsheet, heading))
        for row in self.rows:
            cells: list[str] = []
            for cell, names in zip(row, parts, strict=True):
                cells += [_cell(one) for one in _spread(cell, list(names))]
            writer.writerow(cells)
        return text.getvalue()

    def latex(self) -> str:
        """A `tabular` (LaTeX package booktabs), its caption as a comment."""
        frame = pd.DataFrame(
            [list(map(inert.line, row)) for row in self.shown],
            columns=list(map(inert.line, self.heading)),
        )
        aligned = "".join("r" if numeric else "l" for numeric in self.numeric)
        made = frame.to_latex(index=False, escape=True, column_format=aligned)
        return f"% {inert.line(self.caption)}\n{inert.latex(made)}"


def _shown(cell: Cell) -> str:
    return wording.number(cell) if isinstance(cell, int | float) else str(cell)


def _spread(cell: Cell, names: list[str]) -> list[Cell]:
    if not names:
        return [cell]
    if not isinstance(cell, Quantity):
        return [cell, *[""] * (len(names) - 1)]
    return [cell.numbers.get(name, "") for name in names]


def _cell(cell: Cell) -> str:
    if isinstance(cell, int | float):
        return "" if cell != cell else repr(cell)
    return inert.spreadsheet(str(cell))

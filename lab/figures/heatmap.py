"""Grids of numbers, coloured: rows and columns of means over seeds."""

import math

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, Normalize

from lab.claims import wording
from lab.claims.figures import Heatmap
from lab.figures.style import WIDTH, canvas, finish, styled, words, wrapped
from lab.figures.summaries import Drawn, interval, n_seeds, where
from lab.records.measured import Measured

# Vermillion and blue, equally dark at both ends; numbers carry their sign, for grey paper.
AROUND_ZERO = LinearSegmentedColormap.from_list(
    "around_zero", ["#9c3f00", "#e08e5a", "#f3f2f0", "#6fa8d0", "#004f80"]
)
LEVELS = LinearSegmentedColormap.from_list("levels", ["#f1f5f8", "#8fbbdc", "#004f80"])
CELL = 0.6  # inches
ACROSS = 7  # columns of all panels that fit beside each other


def heatmap(spec: Heatmap, measured: Measured) -> Drawn | None:
    """The grids of a `Heatmap`, or None if no cell was measured."""
    grids = {panel: _grid(spec, rows, measured) for panel, rows in spec.panels.items()}
    cells = [cell for _, _, grid in grids.values() for row in grid for cell in row]
    if not (filled := [cell for cell in cells if cell[3]]):
        return None
    digits = _digits([cell[0] for cell in filled])
    norm = _norm([cell[0] for cell in filled], spec.effects)
    beside = sum(len(columns) for _, columns, _ in grids.values()) <= ACROSS
    across = len(grids) if beside else 1
    down = 1 if beside else len(grids)
    said = []
    with styled():
        most_rows = max(len(rows) for rows, _, _ in grids.values())
        widths = [len(columns) for _, columns, _ in grids.values()] if beside else [1]
        height = down * (0.75 + CELL * most_rows) + 0.5
        figure, axes_of = canvas(height, down, across, width_ratios=widths)
        for axes, (panel, (rows, columns, grid)) in zip(axes_of.flat, grids.items(), strict=True):
            _draw(axes, spec, rows, columns, grid, norm, digits)
            axes.set_title(wrapped(panel, (WIDTH - 1.4) / across))
            if spec.y_label and axes in axes_of[:, 0]:
                axes.set_ylabel(wrapped(spec.y_label, CELL * most_rows))
            if beside and axes is not axes_of[0, 0] and rows == next(iter(grids.values()))[0]:
                axes.set_yticklabels([])
            said += [
                f"{words(panel)}, {words(row)}, {words(column)}: {_text(spec, cell, ' ', digits)}"
                for row, line in zip(rows, grid, strict=True)
                for column, cell in zip(columns, line, strict=True)
            ]
        if spec.x_label:
            for axes in axes_of[-1]:
                axes.set_xlabel(wrapped(spec.x_label, (WIDTH - 1.4) / across))
        count = n_seeds(cell[3] for cell in filled)
        finish(figure, spec.title, where(measured, f"in {words(spec.unit)}", count))
    colour = "blue above zero, vermillion below" if spec.effects else "the higher the darker"
    caption = (
        f"Mean over seeds in {words(spec.unit)}, ± half of its 95 % interval (Student's t, each "
        f"cell by itself); {colour}. {count}."
    )
    return Drawn(spec.name, spec.title, caption, "; ".join(said) + ".", figure)


def _grid(spec: Heatmap, rows, measured: Measured):
    """Names of rows and columns, and (mean, low, high, n) of each cell."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))

    def cell(contrast):
        values = measured.per_seed(contrast).values() if contrast else ()
        finite = [value * spec.scale_by for value in values if math.isfinite(value)]
        return (*interval(finite), len(finite)) if finite else (math.nan,) * 3 + (0,)

    return list(rows), columns, [[cell(row.get(c)) for c in columns] for row in rows.values()]


def _norm(means, effects: bool) -> Normalize:
    if effects:
        most = max(map(abs, means)) or 1.0
        return Normalize(-most, most)
    low, high = min(means), max(means)
    return Normalize(low, high if high > low else low + 1)


def _draw(axes, spec: Heatmap, rows, columns, grid, norm: Normalize, digits: int) -> None:
    colours = AROUND_ZERO if spec.effects else LEVELS
    means = np.array([[cell[0] for cell in row] for row in grid])
    axes.pcolormesh(
        np.ma.masked_invalid(means), cmap=colours, norm=norm, edgecolors="#ffffff", linewidth=2.5
    )  # fmt: skip
    for i, row in enumerate(grid):
        for j, cell in enumerate(row):
            dark = (
                cell[3] and _luminance(colours(norm(cell[0]))) < 0.18
            )  # where white is the clearer one
            # Neither is ink: a cell keeps its colour on a dark page.
            axes.text(
                j + 0.5, i + 0.5, _text(spec, cell, "\n", digits), ha="center", va="center",
                color="#fdfdfd" if dark else "#141414" if cell[3] else None, linespacing=1.25,
            )  # fmt: skip
    axes.set_xticks(np.arange(len(columns)) + 0.5, [wrapped(c, 1.05) for c in columns])
    axes.set_yticks(np.arange(len(rows)) + 0.5, [wrapped(r, 1.7) for r in rows])
    axes.invert_yaxis()
    axes.grid(False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _luminance(colour) -> float:
    """Relative luminance (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def _digits(means) -> int:
    """Decimals for all cells alike: three digits of the largest."""
    most = max(map(abs, means))
    return 2 if most == 0 else min(6, max(0, 2 - math.floor(math.log10(most))))


def _text(spec: Heatmap, cell, between: str, digits: int) -> str:
    mean, low, high, n = cell
    if not n:
        return "–"
    sign = "+" if spec.effects and round(mean, digits) > 0 else ""
    half = f"{between}± {_fixed((high - low) / 2, digits)}" if math.isfinite(low) else ""
    return f"{sign}{_fixed(mean, digits)}{half}"


def _fixed(value: float, digits: int) -> str:
    if abs(value) >= 1e6:  # would not fit its cell
        return wording.number(value)
    return f"{value:,.{digits}f}".replace("-", "−")

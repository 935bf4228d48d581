"""How figures look: colours, markers, fonts, and the sheet with title and legend above the panels.

Everything is meant for a projector and for a grey printer: 11 points at 8 inches of width, and
neighbouring series differ in marker and dash as well as in colour.
"""

import math
import textwrap
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("svg")

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from lab.claims import wording

# Ink, sheet and grid are found again by their colours when a dark page asks for others.
INK, MUTED, GRID, SHEET = "#1f2328", "#57606a", "#e6e6e6", "#ffffff"
# Okabe and Ito's colours (2008), which colour-blind readers tell apart; markers do it in grey.
PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK, "#8C6D31"),
    *("#7F7F7F", "#B22222"),
)
MARKERS = "osD^vP*X<>"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (5, 1.5, 1, 1.5)), (0, (1.2, 1.2)))
SHADE = {
    "supported": "#009E73",
    "refuted": "#D55E00",
    "inconclusive": "#B58900",
    "invalid": "#CC79A7",
    "incomplete": "#7F7F7F",
    "untested": "#7F7F7F",
}
WIDTH = 8.0  # inches
SIZE = 11  # points
LETTER = 0.59 * SIZE / 72  # inches; the mean width of a DejaVu Sans letter
LINE = 1.35 * SIZE / 72  # inches
STYLE: Any = {
    "font.family": ["DejaVu Sans"],
    "font.size": SIZE,
    "text.color": INK,
    "text.parse_math": False,  # a name with two dollar signs is a name
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 1,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": SIZE,
    "axes.grid": True,
    "grid.color": GRID,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": SHEET,
    "savefig.facecolor": SHEET,
    "lines.linewidth": 2.2,
    "lines.markersize": 6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "lecture-lab",  # the same figure is the same bytes
    "axes.unicode_minus": True,
}


@contextmanager
def styled():
    """The style, and no word about letters that the font lacks: the browser has others."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def look(i: int) -> dict[str, Any]:
    """Colour, dash and marker of the i-th series."""
    return {
        "color": PALETTE[i % len(PALETTE)],
        "ls": DASHES[i % len(DASHES)],
        "marker": MARKERS[(i + i // len(PALETTE)) % len(MARKERS)],
    }


def words(text: object) -> str:
    """Text from files, fit to be drawn: no control characters, no leading underscore.

    Matplotlib leaves labels with a leading underscore out of legends.

    >>> words("_x" + chr(0))
    ' _x?'
    """
    cleaned = wording.clean(str(text))
    return f" {cleaned}" if cleaned.startswith("_") else cleaned


def shortened(text: object, letters: int) -> str:
    """The text, or its beginning and end where it is too long."""
    whole = words(text)
    if len(whole) <= letters:
        return whole
    return f"{whole[: letters - letters // 3 - 1]}…{whole[-(letters // 3) :]}"


def wrapped(text: object, width: float, size: float = SIZE) -> str:
    """The text in lines of at most `width` inches."""
    letters = max(4, int(width / (LETTER * size / SIZE)))
    return "\n".join(textwrap.wrap(words(text), letters, break_on_hyphens=False))


def stacked(name: str, letters: int = 10) -> str:
    """A name with underscores in lines of about so many letters."""
    lines = [""]
    for part in words(name).replace("_", "_ ").split(" "):
        if lines[-1] and len(lines[-1]) + len(part) > letters:
            lines.append("")
        lines[-1] += part
    return "\n".join(shortened(line, 16) for line in lines)


def canvas(height: float, rows: int = 1, columns: int = 1, **more: Any):
    """A figure of the usual width with panels; `finish` makes room above them.

    Returns:
        The figure and its axes as a 2-D array.
    """
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **more)


def finish(figure: Figure, title: str, note: str, legend: Sequence[Line2D] = ()) -> Figure:
    """Put title, note and legend above the panels, where they can cover nothing."""
    body = figure.get_figheight()
    heading, below = wrapped(title, WIDTH - 0.3, 13.5), wrapped(note, WIDTH - 0.3)
    rows, columns = _legend_shape([handle.get_label() for handle in legend])
    heights = [
        (heading.count("\n") + 1) * LINE * 13 / SIZE + 0.12,
        (below.count("\n") + 1) * LINE if below else 0.0,
        rows * 1.02 * LINE + 0.1 if rows else 0.06,
    ]
    height = body + sum(heights)
    figure.set_figheight(height)
    room = (0.01, 0.005, 0.98, body / height - 0.005)
    figure.set_layout_engine("constrained", rect=room)
    place: Any = {"ha": "left", "va": "top", "linespacing": 1.3, "in_layout": False}
    figure.text(0.012, 1 - 0.08 / height, heading, size=13, weight="bold", **place)
    figure.text(0.012, 1 - heights[0] / height, below, color=MUTED, **place)
    if rows:
        made = figure.legend(
            handles=list(legend), ncols=columns, loc="upper left", borderpad=0, borderaxespad=0,
            bbox_to_anchor=(0.012, 1 - (heights[0] + heights[1] + 0.06) / height),
            columnspacing=1.4, handlelength=3.2, labelspacing=0.35,
        )  # fmt: skip
        made.set_in_layout(False)
    if (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)  # once, for all formats
    figure.set_layout_engine("none")
    return figure


def _legend_shape(labels: Sequence[object]) -> tuple[int, int]:
    """Rows and columns of a legend that fits: as many columns as the page is wide."""
    widths = [len(str(label)) * LETTER + 0.75 for label in labels]
    for columns in range(len(labels), 1, -1):
        rows = -(-len(labels) // columns)
        if -(-len(labels) // rows) == columns and rows * columns - len(labels) < rows:
            parts = [widths[i : i + rows] for i in range(0, len(widths), rows)]
            if sum(map(max, parts)) < WIDTH - 0.1:
                return rows, columns
    return len(labels), 1


def key(label: str, **how: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], label=shortened(label, 60), **how)


def plain(value: float, _=None) -> str:
    """A tick as a plain number."""
    return wording.number(value).replace(".00e", "e")


def log_axis(axes, which: str) -> None:
    """A logarithmic axis labelled with plain numbers, also where it spans less than a decade.

    It stays linear if nothing on it is positive.
    """
    if not math.isfinite(getattr(axes.dataLim, f"minpos{which}")):
        return
    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    if not (math.isfinite(high) and high > low > 0):
        return
    subs = (
        (1.0,) if high > 300 * low else (1.0, 2.0, 5.0) if high > 8 * low else (1.0, 2.0, 3.0, 5.0)
    )
    axis.set_major_locator(LogLocator(subs=subs) if high > 4 * low else MaxNLocator(4))
    axis.set_major_formatter(plain)
    axis.set_minor_locator(NullLocator())

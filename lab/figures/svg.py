"""Small SVG that keeps its text, and changes its colours on a dark page."""

import io
import re

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from lab.figures.style import GRID, INK, MUTED, PALETTE, SHADE, SHEET, SIZE, styled

# What a colour becomes on a dark page: at least 4.5 to 1 against the dark sheet.
DARK = {
    SHEET: "#0d1117",
    INK: "#e6edf3",
    MUTED: "#9da7b3",
    GRID: "#2d333b",
    **{
        "#0072B2": "#4aa3df",
        "#D55E00": "#ff8a3d",
        "#009E73": "#2cc79c",
        "#CC79A7": "#e39ac4",
        "#E69F00": "#f0b429",
        "#56B4E9": "#a6dcff",
        "#8C6D31": "#c9a35a",
        "#7F7F7F": "#a3a3a3",
        "#B22222": "#f4777f",
        "#B58900": "#d9b13b",
    },
}
assert {*PALETTE, *SHADE.values()} <= DARK.keys()
# Of the same widths as DejaVu Sans, which the layout was made with; Arial is narrower.
FONTS = "DejaVu Sans,Verdana,Bitstream Vera Sans,Arial,sans-serif"

_TAG = re.compile(r"<[^<>]+>")
_TENTHS, _HUNDREDTHS = re.compile(r"(\d\.\d)\d+"), re.compile(r"(\d\.\d\d)\d+")
_NAME = re.compile(r'((?:<path id="|<clipPath id="|xlink:href="#|url\(#))([mpC][\w]{8,})')
_RUN = re.compile(r"<g( [^<>]*)?>\s*((?:<use [^<>]*/>\s*)+)</g>")
_USE_STYLE = re.compile(r' style="([^"]*)"')


def svg(figure: Figure) -> bytes:
    """The figure as SVG bytes that do not depend on the day."""
    out = io.StringIO()
    with styled():
        figure.set_dpi(72)
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None})
    return themed(compact(out.getvalue())).encode()


def compact(drawn: str) -> str:
    """The same picture in fewer bytes: tenths of a point, styles once per series, no bare groups.

    Only tags are touched: of texts not a letter.
    """
    drawn = re.sub(r"<metadata>.*?</metadata>\s*", "", drawn, flags=re.DOTALL)
    names: dict[str, str] = {}
    drawn = _NAME.sub(lambda m: m[1] + names.setdefault(m[2], f"{m[2][0]}{len(names)}"), drawn)
    drawn = _RUN.sub(_run, _TAG.sub(_tag, drawn))
    return re.sub(r">\s*\n\s*<", ">\n<", _TAG.sub(_BareGroups(), drawn))


class _BareGroups:
    """Takes out groups that say nothing, their ends with them."""

    def __init__(self):
        self.kept: list[bool] = []

    def __call__(self, found: re.Match) -> str:
        tag = found[0]
        if tag in ("<g/>", "<g />"):  # of a line that has no points
            return ""
        if tag.startswith("<g") and not tag.endswith("/>"):
            self.kept.append(tag != "<g>")
            return tag if self.kept[-1] else ""
        if tag == "</g>":
            return tag if self.kept.pop() else ""
        return tag


def _tag(found: re.Match) -> str:
    tag = found[0]
    if tag.startswith("<g id="):  # nothing refers to groups
        tag = re.sub(r'^<g id="[^"]*"', "<g", tag)
    if tag.startswith("<path"):
        tag = re.sub(r" ?\n", " ", tag).replace(' "', '"')
        return _TENTHS.sub(r"\1", tag)
    tag = _HUNDREDTHS.sub(r"\1", tag)
    if tag.startswith("<text"):
        tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
        tag = re.sub(rf"font-size: {SIZE}px; ", "", tag).replace("font-family: 'DejaVu Sans'; ", "")
        tag = re.sub(r"font: ([^']*)'DejaVu Sans'", rf"font: \1{FONTS}", tag)
    return tag


def _run(found: re.Match) -> str:
    """Markers of one style: the style moves to their group."""
    styles = set(_USE_STYLE.findall(found[2]))
    if len(styles) != 1 or "style=" in (found[1] or ""):
        return found[0]
    return f'<g{found[1] or ""} style="{styles.pop()}">{_USE_STYLE.sub("", found[2])}</g>'


def themed(drawn: str) -> str:
    """With a style sheet that follows the reader's colour scheme.

    The sheet behind the figure changes with it, so that the figure can be read on a page that
    does not follow the scheme.
    """
    rules = "".join(
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in ((light.lower(), dark) for light, dark in DARK.items())
        for part in ("fill", "stroke")
        if f"{part}: {light}" in drawn
    )
    sheet = f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>"
    head, tag, rest = drawn.partition("<defs>")
    font = f'<g style="font-size: {SIZE}px; font-family: {FONTS}">'
    return f"{head}{sheet}\n{font}\n{tag}{rest}".replace("</svg>", "</g>\n</svg>")

"""Which function draws which declared kind of figure."""

from collections.abc import Callable

from lab.claims.figures import AnyFigure, Curves, Heatmap, Scatter
from lab.figures.curves import curves
from lab.figures.heatmap import heatmap
from lab.figures.points import scatter
from lab.figures.summaries import Drawn
from lab.records.measured import Measured

KINDS: dict[type, Callable] = {Scatter: scatter, Curves: curves, Heatmap: heatmap}


def declared(spec: AnyFigure, measured: Measured) -> Drawn | None:
    """A figure that the experiment asks for, or None if nothing of it was measured.

    Raises:
        TypeError: If nothing draws figures of this kind.
    """
    for kind, drawer in KINDS.items():
        if isinstance(spec, kind):
            return drawer(spec, measured)
    raise TypeError(f"Figures are Scatter, Curves or Heatmap. Received: {spec!r}")

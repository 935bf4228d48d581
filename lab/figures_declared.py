"""Which function draws which declared kind of figure."""

from collections.abc import Callable

from lab.figures_curves import curves
from lab.figures_heatmap import heatmap
from lab.figures_measured import Drawn
from lab.figures_points import scatter
from lab.measured import Measured
from lab.vocabulary_figures import AnyFigure, Curves, Heatmap, Scatter

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

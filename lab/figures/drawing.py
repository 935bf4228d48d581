"""Figures from what was measured: the generic ones, and what an experiment declares."""

import io
from collections.abc import Iterator, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lab.claims.vocabulary import Experiment
from lab.figures.declared import declared
from lab.figures.generic import arms, learning_curves
from lab.figures.intervals import intervals, seeds
from lab.figures.style import INK, PALETTE, SHADE, STYLE, styled
from lab.figures.summaries import Drawn
from lab.figures.svg import svg
from lab.records.measured import Measured
from lab.records.verdicts import Verdict

__all__ = ["INK", "PALETTE", "SHADE", "STYLE", "Drawn", "declared", "draw", "png", "svg"]

DPI = 200


def draw(
    experiment: Experiment | None, measured: Measured, verdicts: Sequence[Verdict]
) -> Iterator[Drawn]:
    """Every figure of one experiment in one setting: the generic ones, then what it declares.

    Of an experiment that is not installed (None) there are still its arms and its training.
    """
    taken = {"intervals", "seeds", "arms", "learning_curves"}
    found = [intervals(verdicts, measured), seeds(verdicts, measured)] if verdicts else []
    found += [arms(experiment, measured)]
    for spec in experiment.figures if experiment else ():
        if spec.name not in taken:
            found.append(declared(spec, measured))
    found.append(learning_curves(experiment, measured))
    yield from (one for one in found if one is not None)


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes for slides: white, 1,600 pixels wide, the same on any day."""
    out = io.BytesIO()
    with styled():
        figure.set_dpi(DPI)
        nameless = {"Software": None}  # no version, no date
        # Not through `savefig`, which draws twice; and little compression for the same reason.
        agg = FigureCanvasAgg(figure)
        agg.print_png(out, metadata=nameless, pil_kwargs={"compress_level": 2})
    return out.getvalue()

"""The kinds of figures that an experiment can declare; `lab.figures.drawing` draws them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Readable(Protocol):
    """A contrast, as far as figures are concerned."""

    @property
    def arms(self) -> tuple[str, ...]: ...  # noqa: D102
    def needs(self) -> list[tuple[str, str]]: ...  # noqa: D102
    def value(self, values: Mapping[tuple[str, str], float]) -> float: ...  # noqa: D102


class AnyFigure(Protocol):
    """What an experiment can put among its figures."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def arms_drawn(self) -> tuple[str, ...]: ...  # noqa: D102


@dataclass(frozen=True)
class Scatter:
    """One point per trial: metric `x` against metric `y`, coloured by arm.

    Args:
        name: File name of the figure, without ending.
        title: What it shows, as a sentence.
        x: Metric of the horizontal axis.
        y: Metric of the vertical axis.
        x_label: What `x` is, with its unit.
        y_label: The same for `y`.
        arms: The arms that are drawn, all if none are named.
        log_x: Whether the horizontal axis is logarithmic.
        log_y: The same for the vertical one.
        x_scale: Factor for display (100 turns accuracy into points).
        y_scale: The same for `y`.
        joined: Whether the points of a seed are joined over arms and their mean drawn on top: for
            arms that differ in a number, which is `x`.
    """

    name: str
    title: str
    x: str
    y: str
    x_label: str
    y_label: str
    arms: Sequence[str] = ()
    log_x: bool = False
    log_y: bool = False
    x_scale: float = 1.0
    y_scale: float = 1.0
    joined: bool = False

    @property
    def arms_drawn(self) -> tuple[str, ...]:
        """The arms it names."""
        return tuple(self.arms)


@dataclass(frozen=True)
class Curves:
    """Metrics of `Trial.record_curve` against their coordinate: mean and band over seeds.

    Args:
        name: File name of the figure, without ending.
        title: What it shows, as a sentence.
        x_label: Label and unit of the coordinate.
        panels: For each panel its y label and its lines: (label, arm, metric).
        log_x: Whether the coordinate is drawn on a logarithmic scale.
        log_y: The same for the values.
        marks: Coordinates to mark with a vertical line, by label.
        laws: What was prescribed or is expected, by the y label of its panel: a label, an
            arm with an end-of-run metric, and a function of the coordinates and of that metric's
            mean over seeds. Drawn as a continuous line through the measured points.
    """

    name: str
    title: str
    x_label: str
    panels: Mapping[str, Sequence[tuple[str, str, str]]]
    log_x: bool = False
    log_y: bool = False
    marks: Mapping[str, float] = field(default_factory=dict)
    laws: Mapping[str, tuple[str, str, str, Callable[[Any, float], Any]]] = field(
        default_factory=dict
    )

    @property
    def arms_drawn(self) -> tuple[str, ...]:
        """The arms of its lines and laws."""
        lines = [arm for lines in self.panels.values() for _, arm, _ in lines]
        return (*lines, *(arm for _, arm, _, _ in self.laws.values()))


@dataclass(frozen=True)
class Heatmap:
    """Means over seeds in grids of rows and columns, each cell with its number and interval.

    Args:
        name: File name of the figure, without ending.
        title: What it shows, as a sentence.
        unit: Unit of the printed numbers.
        panels: For each panel its rows, for each row its columns: a contrast. A plain metric is
            the contrast with the weight 1 for its arm.
        x_label: What the columns are.
        y_label: What the rows are.
        scale_by: Factor for display (100 turns accuracy into points).
        effects: Whether the numbers are differences, which are coloured about zero.
    """

    name: str
    title: str
    unit: str
    panels: Mapping[str, Mapping[str, Mapping[str, Readable]]]
    x_label: str = ""
    y_label: str = ""
    scale_by: float = 1.0
    effects: bool = True

    @property
    def arms_drawn(self) -> tuple[str, ...]:
        """The arms that its cells read."""
        cells = [c for rows in self.panels.values() for row in rows.values() for c in row.values()]
        return tuple(dict.fromkeys(arm for cell in cells for arm in cell.arms))


def lines(metric: str, *arms: str) -> list[tuple[str, str, str]]:
    """Lines of a panel of `Curves`, one for each arm and called as it is.

    >>> lines("val_accuracy", "plain", "averaged")
    [('plain', 'plain', 'val_accuracy'), ('averaged', 'averaged', 'val_accuracy')]
    """
    return [(arm, arm, metric) for arm in arms]


def cosine_cycles(x, start):
    """The learning rate after `x` cycles, each a cosine from `start` to 0 (Huang 2017, eq. 2).

    >>> [round(cosine_cycles(x, 0.2), 3) for x in (0, 0.5, 0.75, 1, 1.5)]
    [0.2, 0.1, 0.029, 0.2, 0.1]
    """
    return start / 2 * (1 + math.cos(math.pi * (x % 1)))

"""Figures from what was measured: intervals, every seed, and what an experiment declares."""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib

matplotlib.use("svg")

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lab import wording
from lab.measured import Measured
from lab.verdicts import Verdict
from lab.vocabulary import Contrast, Curves, Experiment, Scatter

# Okabe and Ito's colours (2008), which colour-blind readers tell apart; markers do it in grey.
PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31"),
    *("#7F7F7F", "#B22222"),
)
MARKERS = "osD^vP*X<>"
DASHES = ("-", "--", "-.", ":")
SHADE = {
    "supported": "#009E73",
    "refuted": "#D55E00",
    "inconclusive": "#B58900",
    "invalid": "#CC79A7",
    "incomplete": "#7F7F7F",
}
STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "lecture-lab",  # the same figure is the same bytes
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Drawn:
    """A figure with what must be said of it.

    Attributes:
        name: Its file name, without ending.
        title: What it shows, as a sentence.
        caption: How to read it, and n.
        alt: What somebody who does not see it should know.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


def draw(
    experiment: Experiment | None, measured: Measured, verdicts: Sequence[Verdict]
) -> Iterator[Drawn]:
    """Every figure of one experiment in one setting: the generic ones, then what it declares."""
    if verdicts:
        yield Drawn("intervals", "Effects and intervals", "", "", intervals(verdicts))
        if (paired := seeds(verdicts, measured)) is not None:
            yield Drawn("seeds", "Every seed, paired between arms", "", "", paired)
    for spec in experiment.figures if experiment else ():
        if (figure := declared(spec, measured)) is not None:
            yield Drawn(spec.name, spec.title, "", "", figure)


def svg(figure: Figure) -> bytes:
    """The figure as SVG bytes that do not depend on the day."""
    out = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def intervals(verdicts: Sequence[Verdict]) -> Figure:
    """Each claim's effect and interval in units of its margin, the naive effect beside it."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 1.3 + 0.52 * len(verdicts)), layout="constrained")
        axes = figure.subplots()
        for row, v in enumerate(verdicts):
            unit = v.claim.margin or 1.0
            j, naive = v.judgement, v.beside.get("naive")
            if naive is not None and math.isfinite(naive.effect):
                label = "naive comparison" if row == _first_naive(verdicts) else None
                axes.plot(naive.effect / unit, row + 0.18, "x", color="#555555", label=label)
            if not math.isfinite(j.effect):
                continue
            colour = SHADE[j.verdict]
            if math.isfinite(j.low):
                axes.plot([j.low / unit, j.high / unit], [row, row], color=colour, lw=3)
            axes.plot(j.effect / unit, row, "o", color=colour, ms=8)
        axes.axvline(0, color="black", lw=1)
        axes.axvline(
            1, color="black", lw=1, ls="--", label="margin: the smallest effect that matters"
        )
        axes.set_yticks(
            range(len(verdicts)),
            [
                f"{v.claim.id} {v.claim.metric}\n{wording.verdict(v.judgement.verdict)}"
                for v in verdicts
            ],
            fontsize=9,
        )
        axes.set_ylim(len(verdicts) - 0.4, -0.6)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlabel("effect in the claimed direction, in units of the margin (symlog scale)")
        axes.xaxis.set_major_formatter(_plain)
        figure.legend(loc="outside lower right", ncols=2)
    return figure


def _first_naive(verdicts) -> int:
    return next((i for i, v in enumerate(verdicts) if "naive" in v.beside), -1)


def seeds(verdicts: Sequence[Verdict], measured: Measured) -> Figure | None:
    """Every seed as a line between the two arms of a difference, one panel per claim."""
    pairs = [
        (v, v.claim.contrast)
        for v in verdicts
        if isinstance(v.claim.contrast, Contrast) and len(v.claim.contrast.arms) == 2
    ]
    if not pairs:
        return None
    columns = min(4, len(pairs))
    rows = -(-len(pairs) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.9 * columns, 3.1 * rows), layout="constrained")
        for axes, (v, contrast) in zip(
            figure.subplots(rows, columns, squeeze=False).flat, pairs, strict=False
        ):
            a, b = sorted(contrast.arms, key=contrast.weights.__getitem__)
            scale = v.claim.scale_by
            for values in measured.values.values():
                if {(a, contrast.metric), (b, contrast.metric)} <= values.keys():
                    ys = [values[arm, contrast.metric] * scale for arm in (a, b)]
                    up = ys[1] > ys[0]
                    axes.plot(
                        [0, 1], ys, marker="o", ms=4, lw=1.2,
                        color=PALETTE[0] if up else PALETTE[1], ls="-" if up else "--",
                    )  # fmt: skip
            if contrast.log:
                _log_axis(axes, "y")
            axes.set_xticks([0, 1], [_two_lines(a), _two_lines(b)], fontsize=9)
            axes.set_xlim(-0.35, 1.35)
            unit = f" ({v.claim.unit})" if scale != 1 else ""
            axes.set_title(f"{v.claim.id} {contrast.metric}{unit}\n{v.claim.under}", fontsize=10)
        for axes in figure.axes[len(pairs) :]:
            axes.set_visible(False)
    return figure


def _plain(value: float, _=None) -> str:
    return wording.number(value)


def _log_axis(axes, which: str) -> None:
    """A logarithmic axis labelled with plain numbers, also where it spans less than a decade."""
    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    low, high = axis.get_view_interval()
    subs = (1.0,) if high > 300 * low else (1.0, 2.0, 5.0) if high > 3 * low else range(1, 10)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(_plain)
    axis.set_minor_formatter(NullFormatter())


def _two_lines(name: str) -> str:
    middle = len(name) // 2
    cuts = [i for i, c in enumerate(name) if c == "_"]
    if len(name) < 12 or not cuts:
        return name
    cut = min(cuts, key=lambda i: abs(i - middle))
    return f"{name[:cut]}\n{name[cut:]}"


def declared(spec: Scatter | Curves, measured: Measured) -> Figure | None:
    """A figure that the experiment asks for, or None if nothing of it was measured."""
    return _scatter(spec, measured) if isinstance(spec, Scatter) else _curves(spec, measured)


def _scatter(spec: Scatter, measured: Measured) -> Figure | None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        arms = spec.arms or sorted({arm for table in measured.values.values() for arm, _ in table})
        drawn = 0
        for i, arm in enumerate(arms):
            tables = measured.values.values()
            points = [
                (t[arm, spec.x], t[arm, spec.y])
                for t in tables
                if (arm, spec.x) in t and (arm, spec.y) in t
            ]
            if points:
                drawn += len(points)
                xs, ys = zip(*points, strict=True)
                axes.scatter(
                    xs, ys, label=arm, alpha=0.8, s=34,
                    color=PALETTE[i % len(PALETTE)], marker=MARKERS[i % len(MARKERS)],
                )  # fmt: skip
        if not drawn:
            return None
        if spec.log_x:
            _log_axis(axes, "x")
        if spec.log_y:
            _log_axis(axes, "y")
        axes.set(xlabel=spec.x_label, ylabel=spec.y_label, title=f"{spec.title} ({drawn} trials)")
        figure.legend(loc="outside right upper", fontsize=9)
    return figure


def _curves(spec: Curves, measured: Measured) -> Figure | None:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 0.8 + 3.2 * len(spec.panels)), layout="constrained")
        panels = figure.subplots(len(spec.panels), 1, sharex=True, squeeze=False)[:, 0]
        n = 0
        for axes, (y_label, lines) in zip(panels, spec.panels.items(), strict=True):
            for i, (label, arm, metric) in enumerate(lines):
                xs, ys = _family(measured, arm, metric)
                if not len(xs):
                    continue
                n = max(n, len(ys))
                look = {"color": PALETTE[i], "ls": DASHES[i % 4], "marker": MARKERS[i], "ms": 4}
                axes.plot(xs, ys.mean(0), label=label, lw=2, **look)
                if len(ys) > 1:
                    low, high = ys.min(0), ys.max(0)
                    axes.fill_between(xs, low, high, color=PALETTE[i], alpha=0.15, lw=0)
            for label, x in spec.marks.items():
                axes.axvline(x, color="#555555", lw=1, ls=":")
                axes.annotate(
                    label, (x, 1), xycoords=("data", "axes fraction"), fontsize=9,
                    ha="center", va="bottom",
                )  # fmt: skip
            axes.set_ylabel(y_label)
            if spec.log_x:
                _log_axis(axes, "x")
            if spec.log_y:
                _log_axis(axes, "y")
            if len(lines) > 1:
                axes.legend(fontsize=9)
        if not n:
            return None
        panels[-1].set_xlabel(spec.x_label)
        seeds_text = f"mean and range of {n} seeds" if n > 1 else "one seed"
        figure.suptitle(f"{spec.title}\n({seeds_text})", x=0.02, ha="left", fontsize=12)
    return figure


def _family(measured: Measured, arm: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates and a row of values per seed of the metrics `metric@x`."""
    curves = []
    for table in measured.values.values():
        points = {
            float(name.split("@")[1]): value
            for (of, name), value in table.items()
            if of == arm and name.startswith(f"{metric}@")
        }
        if points:
            curves.append(points)
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    return np.array(shared), np.array([[c[x] for x in shared] for c in curves])

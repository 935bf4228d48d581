"""Curves over a recorded coordinate: mean and band over seeds."""

import numpy as np

from lab.claims import wording
from lab.claims.figures import Curves
from lab.figures.style import (
    INK,
    LETTER,
    LINE,
    MUTED,
    SIZE,
    WIDTH,
    canvas,
    finish,
    key,
    log_axis,
    look,
    styled,
    words,
    wrapped,
)
from lab.figures.summaries import Drawn, band, band_says, families, n_seeds, per_arm, where
from lab.records.measured import Measured

HEIGHT = 2.5  # inches of a panel
POINTS = 401  # of a law; a whole number of them per cycle, where there are cycles


def curves(spec: Curves, measured: Measured) -> Drawn | None:
    """The panels of a `Curves`, or None if nothing of it was measured."""
    labels = list(dict.fromkeys(label for lines in spec.panels.values() for label, *_ in lines))
    wanted = [(arm, metric) for lines in spec.panels.values() for _, arm, metric in lines]
    found = families(measured, wanted)
    counts = [len(ys) for xs, ys in found.values() if len(xs)]
    if not counts:
        return None
    columns = 2 if len(spec.panels) >= 4 else 1
    rows = -(-len(spec.panels) // columns)
    drawn: dict[str, dict] = {}
    said = []
    with styled():
        figure, axes_of = canvas(0.45 + HEIGHT * rows, rows, columns, sharex=True)
        for axes, (y_label, lines) in zip(axes_of.flat, spec.panels.items(), strict=False):
            law = spec.laws.get(y_label)
            shade = min(0.15, 0.4 / len(lines))  # many bands on each other are mud
            for label, arm, metric in lines:
                xs, ys = found[arm, metric]
                if not len(xs):
                    continue
                drawn[label] = how = look(labels.index(label))
                _line(
                    axes, xs, ys, labels.index(label), how | ({"ls": "none"} if law else {}), shade
                )
                said.append(f"{words(y_label)}, {words(label)}: {_course(xs, ys.mean(0))}")
            if law and (entry := _law(axes, law, measured, found, lines)) is not None:
                drawn[law[0]] = entry
            _scales(axes, spec, y_label)
        for axes in axes_of.flat[len(spec.panels) :]:
            axes.set_visible(False)
        for axes in axes_of[-1]:
            axes.set_xlabel(wrapped(spec.x_label, 7.2 / columns))
        for axes in axes_of.flat:
            _marks(axes, spec.marks, labelled=axes in axes_of[0])
        entries = [key(label, **how) for label, how in drawn.items()] if len(drawn) > 1 else []
        count = n_seeds(counts)
        finish(figure, spec.title, where(measured, count), entries)
    shaded = band_says(max(counts))
    caption = (
        f"Lines: mean over seeds{f'; band: {shaded}' if shaded else ''}. {count}. "
        f"Horizontal: {words(spec.x_label)}."
    )
    return Drawn(spec.name, spec.title, caption, "; ".join(said) + ".", figure)


def _line(axes, xs, ys, i: int, how: dict, shade: float) -> None:
    # Markers tell lines apart; more of them hide the lines.
    step = 1 if how["ls"] == "none" else max(1, len(xs) // 9)
    axes.plot(xs, ys.mean(0), markevery=(i % step, step), **how)
    if len(ys) > 1 and how["ls"] != "none":
        axes.fill_between(xs, *band(ys), color=how["color"], alpha=shade, lw=0)


def _law(axes, law, measured: Measured, found, lines) -> dict | None:
    """A continuous line through measured points; the band is the law at its seeds' edges."""
    _, arm, metric, function = law
    values = np.array(list(per_arm(measured, metric).get(arm, {}).values()))
    reached = [x for _, of, name in lines for x in found[of, name][0]]
    if not len(values) or not reached:
        return None
    start = 0.0 if min(reached) > 0 and axes.get_xscale() == "linear" else min(reached)
    xs = np.linspace(start, max(reached) * (1 - 1e-9), POINTS)  # up to the end, not what follows
    low, high = (float(edge[0]) for edge in band(values[:, None]))
    how = {"color": INK, "lw": 1.6, "ls": "-"}
    axes.plot(xs, [function(x, float(values.mean())) for x in xs], zorder=1.9, **how)
    if len(values) > 1:
        edges = [[function(x, edge) for x in xs] for edge in (low, high)]
        axes.fill_between(xs, *edges, color=MUTED, alpha=0.13, lw=0)
    return how


def _scales(axes, spec: Curves, y_label: str) -> None:
    axes.set_ylabel(wrapped(y_label, HEIGHT - 0.25))
    if spec.log_x:
        log_axis(axes, "x")
    if spec.log_y:
        log_axis(axes, "y")


def _marks(axes, marks, labelled: bool) -> None:
    """Vertical lines; their labels stand above the first panel, in two levels where they touch."""
    free = [-1.0, -1.0]  # where each level is free again, as a share of the width
    for label, x in sorted(marks.items(), key=lambda mark: mark[1]):
        axes.axvline(x, color=MUTED, lw=1.3, ls=(0, (2, 2)))
        if not labelled:
            continue
        at = axes.transAxes.inverted().transform(axes.transData.transform((x, 0)))[0]
        half = len(label) * LETTER / (WIDTH - 1) / 2
        level = 0 if at - half > free[0] else 1
        free[level] = at + half
        axes.annotate(
            words(label), (x, 1), (0, 3 + level * LINE * 72), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="bottom", color=MUTED, size=SIZE,
        )  # fmt: skip


def _course(xs, means) -> str:
    """Where a line starts, ends and is at its lowest and highest."""
    if len(xs) == 1:
        return f"{wording.number(means[0])} at {wording.number(xs[0])}"
    low, high = int(np.argmin(means)), int(np.argmax(means))
    at = {"from": 0, "to": len(xs) - 1, "lowest": low, "highest": high}
    inner = {k: i for k, i in at.items() if k in ("from", "to") or i not in (0, len(xs) - 1)}
    parts = [f"{k} {wording.number(means[i])} at {wording.number(xs[i])}" for k, i in inner.items()]
    return f"{parts[0]} {', '.join(parts[1:])}"

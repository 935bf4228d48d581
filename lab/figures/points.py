"""One point per trial: two metrics against each other."""

import numpy as np

from lab.claims import wording
from lab.claims.figures import Scatter
from lab.figures.style import (
    INK,
    MARKERS,
    MUTED,
    PALETTE,
    canvas,
    finish,
    key,
    log_axis,
    styled,
    words,
    wrapped,
)
from lab.figures.summaries import Drawn, n_seeds, per_arm, some, where
from lab.records.measured import Measured

MOST = 600  # points in a figure
MOST_TICKS = 9  # of a setting of the arms


def scatter(spec: Scatter, measured: Measured) -> Drawn | None:
    """The points of a `Scatter`, or None if there are none."""
    xs_of, ys_of = per_arm(measured, spec.x), per_arm(measured, spec.y)
    arms = list(spec.arms) or sorted(xs_of.keys() & ys_of.keys())
    points = {}
    for arm in arms:
        xs, ys = xs_of.get(arm, {}), ys_of.get(arm, {})
        if found := {
            s: (xs[s] * spec.x_scale, ys[s] * spec.y_scale) for s in sorted(xs.keys() & ys.keys())
        }:
            points[arm] = found
    if not points:
        return None
    with styled():
        figure, axes_of = canvas(4.4)
        axes = axes_of[0, 0]
        handles = []
        if spec.joined:
            handles = _join(axes, points)
        each = max(2, MOST // len(points))
        for i, arm in enumerate(arms):
            if arm not in points:
                continue
            pairs = np.array([*points[arm].values()])
            shown = pairs[some(len(pairs), each)]
            colour = PALETTE[0 if spec.joined else i % len(PALETTE)]
            marker = "o" if spec.joined else MARKERS[(i + i // len(PALETTE)) % len(MARKERS)]
            how = {"marker": marker, "color": colour, "alpha": 0.75, "ms": 6.5, "ls": "none"}
            axes.plot(*shown.T, **how | {"mew": 0})
            if not spec.joined:
                handles.append(key(arm, **how | {"alpha": 1, "ms": 8}))
        if spec.joined:
            handles.insert(0, key("one seed", color=PALETTE[0], marker="o", lw=1))
        if spec.log_x:
            log_axis(axes, "x")
        if spec.log_y:
            log_axis(axes, "y")
        settings = sorted({x for found in points.values() for x, _ in found.values()})
        if spec.joined and len(settings) <= MOST_TICKS:
            axes.set_xticks(settings, [wording.number(x) for x in settings])
        axes.set_xlabel(wrapped(spec.x_label, 7))
        axes.set_ylabel(wrapped(spec.y_label, 4.2))
        count = n_seeds(map(len, points.values()))
        finish(figure, spec.title, where(measured, count), handles)
    left_out = f"; {each} per arm are drawn" if max(map(len, points.values())) > each else ""
    joined = " Thin lines join a seed over arms; thick line: mean." if spec.joined else ""
    caption = (
        f"One point per trial, {len(points)} arms, {count}{left_out}.{joined} "
        f"Horizontal: {words(spec.x_label)}; vertical: {words(spec.y_label)}."
    )
    alt = "; ".join(_said(arm, [*found.values()]) for arm, found in points.items())
    names = f"Means of {words(spec.x_label)} and {words(spec.y_label)}: "
    return Drawn(spec.name, spec.title, caption, f"{names}{alt}.", figure)


def _join(axes, points) -> list:
    """A thin line per seed over the arms that it has, and the mean of each arm on top."""
    seeds = sorted({seed for found in points.values() for seed in found})
    xs: list[float] = []
    ys: list[float] = []
    for seed in [seeds[i] for i in some(len(seeds))]:
        line = sorted(found[seed] for found in points.values() if seed in found)
        xs += [*(x for x, _ in line), np.nan]  # one path for all seeds
        ys += [*(y for _, y in line), np.nan]
    axes.plot(xs, ys, color=MUTED, lw=0.9, alpha=0.6)
    means = np.array(sorted(tuple(np.mean([*found.values()], 0)) for found in points.values()))
    how = {"color": INK, "marker": "s", "lw": 3, "ms": 8}
    axes.plot(*means.T, zorder=3, **how)
    return [key("mean over seeds", **how)]


def _said(arm: str, pairs) -> str:
    x, y = np.mean(pairs, 0)
    return f"{words(arm)} {wording.number(x)} and {wording.number(y)} (n = {len(pairs)})"

"""Figures that every experiment has, also one that is not installed: its arms and its training."""

import math

import numpy as np

from lab.claims import wording
from lab.claims.vocabulary import Contrast, Experiment
from lab.figures.style import (
    INK,
    PALETTE,
    canvas,
    finish,
    key,
    log_axis,
    look,
    shortened,
    styled,
    words,
    wrapped,
)
from lab.figures.summaries import (
    Drawn,
    band,
    band_says,
    interval,
    n_seeds,
    per_arm,
    some,
    some_says,
    where,
)
from lab.records.measured import Measured

MOST_ARMS = 40  # in a figure of all arms
ROW = 0.3  # inches of an arm
BESIDE = 8  # arms in a panel of learning curves
MOST_CURVES = 24  # arms with learning curves
MOST_PAIRS = 3  # metrics with learning curves
POINTS = 28  # epochs per line


def arms(experiment: Experiment | None, measured: Measured) -> Drawn | None:
    """Every seed of every arm, with the arm's mean, for the metrics that matter most."""
    found = {metric: per_arm(measured, metric) for metric in _primary(experiment, measured)}
    found = {metric: values for metric, values in found.items() if values}
    if not found:
        return None
    names = [arm for arm in _order(experiment, measured) if any(arm in v for v in found.values())]
    shown = names[:MOST_ARMS]
    title = "Every arm, every seed"
    said = []
    with styled():
        figure, axes_of = canvas(0.65 + ROW * len(shown), 1, len(found), sharey=True)
        for axes, (metric, values) in zip(axes_of[0], found.items(), strict=True):
            scale, unit = _unit(experiment, metric)
            for row, arm in enumerate(shown):
                if arm in values:
                    said.append(_arm(axes, row, arm, metric, values[arm], scale))
            axes.set_xlabel(wrapped(f"{metric}{unit}", 5.5 / len(found)))
            axes.margins(x=0.06)
        axes_of[0, 0].set_yticks(range(len(shown)), [shortened(arm, 30) for arm in shown])
        axes_of[0, 0].set_ylim(len(shown) - 0.4, -0.6)
        seeds = [len(v[arm]) for v in found.values() for arm in shown if arm in v]
        entries = [
            key("one seed", color=PALETTE[0], marker="o", ls="none", alpha=0.6),
            key("mean, 95 % interval", color=INK, marker="s", lw=3),
        ]
        finish(figure, title, where(measured, n_seeds(seeds)), entries)
    more = f" The first {MOST_ARMS} of {len(names)} arms." if len(names) > MOST_ARMS else ""
    caption = (
        "Dots: seeds; square and bar: mean and 95 % interval of the arm alone (Student's t), so "
        "overlapping bars do not judge a paired comparison. "
        f"{n_seeds(seeds)}{some_says(max(seeds))}.{more}"
    )
    return Drawn("arms", title, caption, "; ".join(said) + ".", figure)


def _primary(experiment: Experiment | None, measured: Measured) -> list[str]:
    """Test accuracy and what the first claim is about, or else what was recorded first."""
    recorded = list(
        dict.fromkeys(m for t in measured.values.values() for _, m in t if "@" not in m)
    )
    claimed = [
        claim.contrast.metric
        for claim in (experiment.claims if experiment else ())
        if isinstance(claim.contrast, Contrast)
    ]
    wanted = [m for m in ("test_accuracy", *claimed[:1]) if m in recorded]
    return list(dict.fromkeys(wanted)) or recorded[:1]


def _unit(experiment: Experiment | None, metric: str) -> tuple[float, str]:
    """Factor and unit for display, as claims have them."""
    if metric.endswith("accuracy"):
        return 100, " (%)"
    for claim in experiment.claims if experiment else ():
        if claim.contrast.metric == metric and claim.scale_by != 1:
            return claim.scale_by, f" ({claim.unit})"
    return 1, ""


def _order(experiment: Experiment | None, measured: Measured) -> list[str]:
    """Arms as they were declared, then others as they were found."""
    present = dict.fromkeys(arm for arm, _ in sorted(measured.manifests, key=lambda key: key[0]))
    present |= dict.fromkeys(arm for table in measured.values.values() for arm, _ in table)
    known = [arm for arm in (experiment.arms if experiment else ()) if arm in present]
    return list(dict.fromkeys([*known, *present]))


def _arm(axes, row: int, arm: str, metric: str, values: dict[int, float], scale: float) -> str:
    xs = np.sort([value * scale for value in values.values()])
    shown = xs[some(len(xs))]
    offsets = (np.arange(len(shown)) * 0.618 % 1 - 0.5) * 0.45  # so that equal seeds are seen
    axes.plot(shown, row + offsets, "o", color=PALETTE[0], alpha=0.55, ms=5, mew=0)
    mean, low, high = interval(xs)
    if math.isfinite(low):
        axes.plot([low, high], [row, row], color=INK, lw=3)
    axes.plot(mean, row, "s", color=INK, ms=6)
    around = f" [{wording.number(low)}, {wording.number(high)}]" if math.isfinite(low) else ""
    return f"{words(arm)}: {words(metric)} {wording.number(mean)}{around}"


def learning_curves(experiment: Experiment | None, measured: Measured) -> Drawn | None:
    """Training and validation over epochs: mean and band over seeds, by arm."""
    found = _histories(measured)
    bases = [m for m in found if not m.startswith("val_")][:MOST_PAIRS]
    names = [a for a in _order(experiment, measured) if any(a in found[m] for m in bases)]
    names = names[:MOST_CURVES]
    if not names:
        return None
    groups = _groups({arm: max(max(found[m].get(arm, [0])) for m in bases) for arm in names})
    place = {arm: column for column, group in enumerate(groups) for arm in group}
    title = "Learning curves"
    said, counts, validated = [], [], False
    with styled():
        figure, axes_of = canvas(
            0.45 + 2.5 * len(bases), len(bases), len(groups), sharex="col", sharey="row"
        )
        for line, base in zip(axes_of, bases, strict=True):
            for i, arm in enumerate(names):
                axes = line[place[arm]]
                for metric, ls in ((base, "-"), (f"val_{base}", (0, (4, 2)))):
                    if (seen := _thinned(found.get(metric, {}).get(arm, {}))) is None:
                        continue
                    epochs, mean, low, high, n = seen
                    validated |= metric != base
                    counts.append(n)
                    _curve(axes, epochs, mean, low, high, look(i) | {"ls": ls}, i)
                    ends = " to ".join(map(wording.number, (mean[0], mean[-1])))
                    said.append(f"{words(arm)}: {words(metric)} {ends} in {epochs[-1]} epochs")
            line[0].set_ylabel(wrapped(base, 2.3))
            values = [y for axes in line for one in axes.lines for y in one.get_ydata()]
            if values and min(values) > 0 and max(values) > 30 * min(values):
                for axes in line:
                    log_axis(axes, "y")
        for axes in axes_of[-1]:
            axes.set_xlabel("epoch")
        entries = [key(arm, **look(i) | {"ls": "-"}) for i, arm in enumerate(names)]
        if validated:
            entries += [key("validation", color=INK, ls=(0, (4, 2)))]
        note = f"band: {band_says(max(counts))}" if max(counts) > 1 else ""
        finish(figure, title, where(measured, n_seeds(counts), note), entries)
    shaded = band_says(max(counts))
    dashed = ", dashed on validation data" if validated else ""
    caption = (
        f"Mean over seeds by epoch, as the training saw it{dashed}"
        f"{f'; band: {shaded}' if shaded else ''}. {n_seeds(counts)}."
    )
    return Drawn("learning_curves", title, caption, "; ".join(said) + ".", figure)


def _groups(lengths: dict[str, int]) -> list[list[str]]:
    """Arms for each panel: few enough, and trained for about as many epochs."""
    groups: list[list[str]] = []
    for arm in sorted(lengths, key=lambda arm: lengths[arm]):
        if not groups or lengths[arm] > 3 * lengths[groups[-1][0]]:
            groups.append([])
        groups[-1].append(arm)
    return [part for group in groups for part in _even(group)]


def _even(group: list[str]) -> list[list[str]]:
    """Parts of at most BESIDE arms, as even as can be."""
    size = -(-len(group) // -(-len(group) // BESIDE))
    return [group[i : i + size] for i in range(0, len(group), size)]


def _curve(axes, epochs, mean, low, high, how, i: int) -> None:
    step = max(1, len(epochs) // 6)
    axes.plot(epochs, mean, markevery=(i * step // 8 % step, step), **how)
    if np.any(high > low):
        axes.fill_between(epochs, low, high, color=how["color"], alpha=0.1, lw=0)


def _histories(measured: Measured) -> dict[str, dict[str, dict[int, list[float]]]]:
    """The finite values of all seeds, by metric, arm and epoch."""
    found: dict[str, dict[str, dict[int, list[float]]]] = {}
    for arm, _, epoch, metric, value in measured.epochs:
        if math.isfinite(value):
            found.setdefault(metric, {}).setdefault(arm, {}).setdefault(epoch, []).append(value)
    return found


def _thinned(history: dict[int, list[float]]):
    """At most POINTS epochs: numbers, means, edges of the band, and the most seeds; or None."""
    if not history:
        return None
    every = sorted(history)
    epochs = [every[i] for i in some(len(every), POINTS)]
    edges = [band(np.array(history[epoch])[:, None]) for epoch in epochs]
    low, high = (np.array([edge[k][0] for edge in edges]) for k in (0, 1))
    means = np.array([np.mean(history[epoch]) for epoch in epochs])
    return np.array(epochs), means, low, high, max(len(history[epoch]) for epoch in epochs)

"""Figures of verdicts: effects with their intervals, and every seed between two arms."""

import math
from collections.abc import Sequence

from lab.claims import wording
from lab.claims.vocabulary import Contrast
from lab.figures.style import (
    INK,
    MUTED,
    PALETTE,
    SHADE,
    SHEET,
    canvas,
    finish,
    key,
    log_axis,
    plain,
    shortened,
    stacked,
    styled,
    words,
    wrapped,
)
from lab.figures.summaries import ALL_SHOWN, Drawn, n_seeds, some, some_says, where
from lab.records.measured import Measured
from lab.records.verdicts import Verdict

ROW = 0.58  # inches per claim: a line of text above its interval
PANELS = 3  # in a row of paired seeds
LINES = 160  # in all panels of paired seeds


def intervals(verdicts: Sequence[Verdict], measured: Measured) -> Drawn:
    """Each claim's effect and interval in units of its margin, the naive effect beside it."""
    title = "Effects and intervals"
    with styled():
        figure, axes_of = canvas(0.75 + ROW * len(verdicts))
        axes = axes_of[0, 0]
        axes.axvline(0, color=INK, lw=1.4)
        axes.axvline(1, color=INK, lw=1.4, ls="--")
        for row, v in enumerate(verdicts):
            _interval(axes, row, v)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_ylim(len(verdicts) - 0.55, -0.75)
        axes.set_xscale("symlog", linthresh=1)
        reach = max((abs(x) for line in axes.lines for x in line.get_xdata()), default=1)
        axes.set_xlim(min(-1.0, *axes.get_xlim()), max(2.0, *axes.get_xlim()))
        axes.set_xticks([x for x in _TICKS if abs(x) <= max(2, 1.5 * reach)], minor=False)
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(plain)
        axes.set_xlabel("effect in units of its margin (logarithmic beyond ±1)")
        kinds = list(dict.fromkeys(v.judgement.verdict for v in verdicts))
        entries = [key(wording.verdict(k), color=SHADE[k], marker="o", lw=4) for k in kinds]
        entries += [key("naive comparison", color=MUTED, marker="x", ls="none", ms=8, mew=2)]
        entries += [key("margin: smallest effect that matters", color=INK, ls="--", lw=1.4)]
        count = n_seeds([v.judgement.n for v in verdicts])
        finish(figure, title, where(measured, count), entries)
    caption = (
        "Dot and bar: mean effect and its interval over paired seeds (Student's t, corrected for "
        "the claims of the experiment by Holm and for looks), in the claimed direction and in "
        "units of the claim's margin; text: in its own unit. Cross: what the naive comparison "
        f"reports. {count}."
    )
    return Drawn("intervals", title, caption, "; ".join(map(_said, verdicts)) + ".", figure)


_TICKS = [sign * 10.0**k * m for k in range(7) for m in (1, 3) for sign in (-1, 1)] + [0, 0.5, -0.5]


def _interval(axes, row: int, v: Verdict) -> None:
    unit = v.claim.margin or 1.0
    j, naive = v.judgement, v.beside.get("naive")
    mask = {"boxstyle": "square,pad=0.1", "facecolor": SHEET, "edgecolor": "none"}
    place = {"transform": axes.get_yaxis_transform(), "va": "center", "bbox": mask}
    effect = wording.effect(v.claim, j)
    if v.claim.unit in v.claim.metric:
        effect = effect.removesuffix(v.claim.unit).strip()  # said once is enough
    label = shortened(
        f"{wording.SHAPES[j.verdict]} {v.claim.id} {v.claim.metric}", 84 - len(effect)
    )
    axes.text(0.0, row - 0.38, label, ha="left", **place)
    axes.text(1.0, row - 0.38, words(effect), ha="right", **place)
    colour = SHADE[j.verdict]
    if math.isfinite(j.low):
        axes.plot([j.low / unit, j.high / unit], [row, row], color=colour, lw=4)
    if naive is not None and math.isfinite(naive.effect):
        axes.plot(naive.effect / unit, row, "x", color=MUTED, ms=8, mew=2)
    if math.isfinite(j.effect):
        axes.plot(j.effect / unit, row, "o", color=colour, ms=9)


def _said(v: Verdict) -> str:
    text = f"{v.claim.id} {v.claim.metric}: {v.judgement.verdict}"
    if math.isfinite(v.judgement.effect):
        text += f", {wording.effect(v.claim, v.judgement)}"
    text += f", margin {wording.quantity(v.claim, v.claim.margin)}"
    if (naive := v.beside.get("naive")) is not None and math.isfinite(naive.effect):
        text += f", naive {wording.quantity(v.claim, naive.effect)}"
    return text


def seeds(verdicts: Sequence[Verdict], measured: Measured) -> Drawn | None:
    """Every seed as a line between the two arms of a difference, one panel per claim."""
    pairs = [
        (v, contrast, found)
        for v in verdicts
        if isinstance(contrast := v.claim.contrast, Contrast) and len(contrast.arms) == 2
        if (found := _paired(measured, contrast, v.claim.scale_by))
    ]
    if not pairs:
        return None
    title = "Every seed, paired between arms"
    most = min(ALL_SHOWN, max(10, LINES // len(pairs)))
    columns = min(PANELS, len(pairs))
    rows = -(-len(pairs) // columns)
    said = []
    with styled():
        figure, axes_of = canvas(3.1 * rows, rows, columns)
        for axes, (v, contrast, found) in zip(axes_of.flat, pairs, strict=False):
            said.append(_panel(axes, v, contrast, found, 7.2 / columns, most))
        for axes in axes_of.flat[len(pairs) :]:
            axes.set_visible(False)
        count = n_seeds([len(found) for *_, found in pairs])
        entries = [
            key("seed that goes as claimed", color=PALETTE[0], marker="o", ms=5, lw=1.3),
            key("against it", color=PALETTE[1], marker="^", ms=5, lw=1.3, ls="--"),
            key("mean", color=INK, marker="s", lw=3),
        ]
        finish(figure, title, where(measured, count), entries)
    caption = (
        "Each thin line is one seed: the same data split, initial weights and batch order in both "
        "arms. A claim holds in the seeds whose line rises from left to right. Thick line: mean. "
        f"{count}{some_says(max(len(found) for *_, found in pairs), most)}."
    )
    return Drawn("seeds", title, caption, "; ".join(said) + ".", figure)


def _paired(measured: Measured, contrast: Contrast, scale: float) -> list[tuple[float, float]]:
    """The two values of each seed, the arm with the negative weight first; by their difference."""
    a, b = sorted(contrast.arms, key=contrast.weights.__getitem__)
    tables = measured.values.values()
    needs = [(a, contrast.metric), (b, contrast.metric)]
    found = [tuple(t[n] * scale for n in needs) for t in tables if all(n in t for n in needs)]
    kept = [pair for pair in found if all(map(math.isfinite, pair))]
    return sorted(kept, key=lambda pair: (pair[1] - pair[0], pair))  # type: ignore[arg-type]


def _panel(axes, v: Verdict, contrast: Contrast, found, width: float, most: int) -> str:
    a, b = sorted(contrast.arms, key=contrast.weights.__getitem__)
    shown = [found[i] for i in some(len(found), most)]
    for up, how in ((True, {"color": PALETTE[0], "marker": "o"}), (False, {"color": PALETTE[1]})):
        xs: list[float] = []
        ys: list[float] = []
        for pair in (pair for pair in shown if (pair[1] > pair[0]) == up):
            xs += [0, 1, math.nan]  # one path for all seeds
            ys += [*pair, math.nan]
        if xs:
            axes.plot(
                xs, ys, **{"marker": "^", "ls": "-" if up else "--", "ms": 5, "lw": 1.3} | how
            )
    means = [sum(pair[k] for pair in found) / len(found) for k in (0, 1)]
    axes.plot([0, 1], means, color=INK, marker="s", lw=3, ms=7)
    if contrast.log and all(y > 0 for pair in found for y in pair):
        log_axis(axes, "y")
    axes.set_xticks([0, 1], [stacked(a), stacked(b)])
    axes.set_xlim(-0.35, 1.35)
    unit = f" ({v.claim.unit})" if v.claim.scale_by != 1 else ""
    title = f"{v.claim.id} {contrast.metric}{unit}" + (
        f", {v.claim.under}" if v.claim.under else ""
    )
    axes.set_title(wrapped(title, width))
    rise = sum(pair[1] > pair[0] for pair in found)
    numbers = " to ".join(
        f"{wording.number(m)} ({arm})" for m, arm in zip(means, (a, b), strict=True)
    )
    return f"{title}: mean {numbers}, {rise} of {len(found)} seeds rise"

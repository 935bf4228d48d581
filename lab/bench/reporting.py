"""The benchmark's table, its figure, and the machine it ran on."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from lab.bench.sweep import NAMES as SWEEP_NAMES
from lab.bench.ways import WAYS
from lab.machine import devices

PACKAGES = ("keras", "tensorflow", "jax", "torch", "numpy")


def label(way: str) -> str:
    """A way in words."""
    return WAYS[way].says if way in WAYS else SWEEP_NAMES[way]


def machine() -> str:
    """Processor, cores and versions, and how busy it was: a busy machine measures nothing."""
    load = f", load {os.getloadavg()[0]:.1f} before the run" if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{p} {v}" for p in PACKAGES if (v := _version(p)))
    python = platform.python_version()
    return f"{devices.processor()}, {devices.cores()} cores{load}; Python {python}, {versions}."


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def markdown(found: Sequence[Mapping[str, Any]], timings: Mapping[tuple, Any]) -> str:
    """The rows as a Markdown table, with the seconds to the end of the first epoch."""
    lines = [
        "| benchmark | way | threads | µs per step (quartiles) | × plain | first epoch, s |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in found:
        first = timings[row["benchmark"], row["way"], row["threads"]].first_epoch
        us, low, high = (f"{float(row[c]):,.0f}" for c in ("us_per_step", "low", "high"))
        cells = (
            *(row["benchmark"], label(row["way"]), row["threads"], f"{us} ({low} to {high})"),
            *(f"{float(row['ratio_to_plain']):.3g}", "" if math.isnan(first) else f"{first:.1f}"),
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def figure(found: Sequence[Mapping[str, Any]]) -> bytes:
    """How many times as fast as plain `fit`, as SVG: one panel per benchmark and threads."""
    import matplotlib
    from matplotlib.figure import Figure

    from lab.figures import drawing

    panels: dict[tuple, list] = {}
    for row in found:
        if not row["way"].startswith("runner"):  # a share of the sweep, no way of doing it
            panels.setdefault((row["benchmark"], row["threads"]), []).append(row)
    names = list(dict.fromkeys(row["way"] for row in found))
    colours = {way: drawing.PALETTE[i % len(drawing.PALETTE)] for i, way in enumerate(names)}
    heights = [len(rows) + 1.5 for rows in panels.values()]
    with matplotlib.rc_context(drawing.STYLE):
        drawn = Figure(figsize=(9, 0.5 + 0.28 * sum(heights)), layout="constrained")
        axes_of = drawn.subplots(
            len(panels), 1, sharex=True, squeeze=False, height_ratios=heights
        )[:, 0]  # fmt: skip
        for axes, ((benchmark, threads), rows) in zip(axes_of, panels.items(), strict=True):
            ratios = [float(row["ratio_to_plain"]) for row in rows]
            bars = axes.barh(  # from 1 on: a logarithmic axis has no zero for bars to stand on
                range(len(rows)), [ratio - 1 for ratio in ratios], left=1,
                color=[colours[row["way"]] for row in rows],
            )  # fmt: skip
            axes.bar_label(bars, [f" {ratio:.3g}" for ratio in ratios])
            axes.set_yticks(range(len(rows)), [_plain(row["way"]) for row in rows])
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.axvline(1, color=drawing.INK, lw=1)
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.margins(x=0.16)
            axes.grid(False, axis="y")
            axes.set_title(f"{benchmark}, {threads} thread{'s' * (int(threads) > 1)}")
        axes_of[-1].set_xlabel("times as fast as plain fit (sweep: as the shell loop), log scale")
    return drawing.svg(drawn)


def _plain(way: str) -> str:
    return label(way).replace("`", "")

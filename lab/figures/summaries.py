"""What figures read from measurements, and how they say how much of it there is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from lab.claims.stats import judge
from lab.records.measured import Measured

FEW = 20  # seeds of which a band shows all; of more, their central 90 %
ALL_SHOWN = 60  # seeds that are drawn one by one; of more, so many at even distances


@dataclass(frozen=True)
class Drawn:
    """A figure with what must be said of it.

    Attributes:
        name: Its file name, without ending.
        title: What it shows, as a sentence.
        caption: How to read it, with n, units, and what bands and intervals are.
        alt: Its content in words and numbers, for somebody who does not see it.
    """

    name: str
    title: str
    caption: str
    alt: str
    figure: Figure


def where(measured: Measured, *more: str) -> str:
    """The line below a title: the setting, and what else there is to say."""
    s = measured.setting
    parts = [f"{s.data}, {s.model}, {s.scale} ({s.backend})", *(part for part in more if part)]
    return "; ".join(parts)


def n_seeds(counts: Iterable[int]) -> str:
    """The number of seeds, or its range.

    >>> n_seeds([10, 10]), n_seeds([8, 10]), n_seeds([1])
    ('n = 10 seeds', 'n = 8 to 10 seeds', 'n = 1 seed')
    """
    few, most = min(found := sorted(counts)), found[-1]
    return f"n = {most if few == most else f'{few} to {most}'} seed{'s' * (most != 1)}"


def per_arm(measured: Measured, metric: str) -> dict[str, dict[int, float]]:
    """The finite values of a metric by arm and seed."""
    found: dict[str, dict[int, float]] = {}
    for seed, table in measured.values.items():
        for (arm, name), value in table.items():
            if name == metric and math.isfinite(value):
                found.setdefault(arm, {})[seed] = value
    return found


def families(
    measured: Measured, wanted: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    """Of each wanted (arm, metric) the recorded `metric@x`, in one pass over all there is.

    Returns:
        Coordinates, and one row of values per seed. Only coordinates that every seed has a finite
        value at; a seed with no finite value at all is left out.
    """
    curves: dict[tuple[str, str], list[dict[float, float]]] = {key: [] for key in wanted}
    for table in measured.values.values():
        points: dict[tuple[str, str], dict[float, float]] = {}
        for (arm, name), value in table.items():
            metric, at, coordinate = name.rpartition("@")
            if at and (arm, metric) in curves and math.isfinite(value):
                x = _coordinate(coordinate)
                if x is not None:
                    points.setdefault((arm, metric), {})[x] = value
        for key, curve in points.items():
            curves[key].append(curve)
    return {key: _rows(found) for key, found in curves.items()}


def _rows(curves: list[dict[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    shared = sorted(set.intersection(*map(set, curves))) if curves else []
    return np.array(shared), np.array([[c[x] for x in shared] for c in curves])


def _coordinate(text: str) -> float | None:
    try:
        return x if math.isfinite(x := float(text)) else None
    except ValueError:
        return None


def band(ys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge over seeds, the rows: all of few, the central 90 % of many."""
    shares = (0, 100) if len(ys) <= FEW else (5, 95)
    low, high = np.percentile(ys, shares, axis=0)
    return low, high


def band_says(most: int) -> str:
    """What `band` shows of so many seeds."""
    if most < 2:
        return ""
    return "lowest to highest seed" if most <= FEW else "central 90 % of the seeds"


def interval(values: Iterable[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval (Student's t), NaN where there is none."""
    kept = list(values)
    found = judge(kept, 0.0, 0.05)
    return float(np.mean(kept)), found.low, found.high


def some(count: int, most: int = ALL_SHOWN) -> np.ndarray:
    """At most `most` places among `count` ordered things, evenly spaced, both ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def some_says(count: int, most: int = ALL_SHOWN) -> str:
    """A sentence fragment for a caption if not every seed is drawn."""
    return f"; {most} of them are drawn, the means are of all" if count > most else ""

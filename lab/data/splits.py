"""Drawing the parts of a data set from a seed, and scaling them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

# Examples per block while means and variances are summed up in float64.
BLOCK = 1000


class Split(NamedTuple):
    """Examples and their labels, as a pair: `x, y = split`."""

    x: np.ndarray
    y: np.ndarray

    def repeated(self, size: int) -> Split:
        """As many examples, over and over in their order, so that epochs are as long as of more.

        >>> Split(np.array([5.0, 6.0]), np.array([0, 1])).repeated(5).x.tolist()
        [5.0, 6.0, 5.0, 6.0, 5.0]
        """
        rows = np.resize(np.arange(len(self.y)), size)
        return Split(self.x[rows], self.y[rows])


class Sizes(NamedTuple):
    """Numbers of examples, in the order in which the parts are drawn; `None` for the default."""

    test: int | None = None
    validation: int | None = None
    train: int | None = None


class Pools(NamedTuple):
    """What the parts of a data set are drawn from, in its own units.

    Where `test` or `validation` is `None` it is carved from `train`. `default` has the sizes
    of those that are not given; `None` there means all that is left.
    """

    train: Split
    validation: Split | None
    test: Split | None
    classes: int
    default: Sizes


class Part(NamedTuple):
    """Some examples of a pool, in order: `pool.x[rows]`."""

    pool: Split
    rows: np.ndarray


def restricted(pools: Pools, classes: Sequence[int]) -> Pools:
    """Only some classes, which become 0, 1, ... in the order given; defaults shrink with them.

    Raises:
        ValueError: If a class does not exist or is given twice.

    Example:
    >>> pool = Split(np.arange(6.0), np.array([0, 1, 2, 0, 1, 2]))
    >>> kept = restricted(Pools(pool, None, None, 3, Sizes(test=3)), [2, 0]).train
    >>> kept.x.tolist(), kept.y.tolist()
    ([0.0, 2.0, 3.0, 5.0], [1, 0, 1, 0])
    """
    wanted = [operator.index(one) for one in classes]
    if (
        not wanted
        or len(set(wanted)) != len(wanted)
        or not 0 <= min(wanted) <= max(wanted) < (pools.classes)
    ):
        raise ValueError(
            f"`classes` must be different numbers from 0 to {pools.classes - 1}. "
            f"Received: classes={list(classes)}"
        )
    new = np.full(pools.classes, -1)
    new[wanted] = np.arange(len(wanted))

    def kept(split: Split | None) -> Split | None:
        if split is None:
            return None
        rows = new[split.y] >= 0
        return Split(split.x[rows], new[split.y[rows]])

    train = kept(pools.train)
    assert train is not None
    share = len(train.y) / len(pools.train.y)
    default = Sizes(*(size if size is None else round(size * share) for size in pools.default))
    return Pools(train, kept(pools.validation), kept(pools.test), len(wanted), default)


def check_sizes(**sizes: int | None) -> None:
    """Raises ValueError unless every size is `None` or positive."""
    for name, size in sizes.items():
        if size is not None and operator.index(size) < 1:
            raise ValueError(f"`{name}` must be positive. Received: {name}={size}")


def stratified(
    labels: np.ndarray, index: np.ndarray, size: int, rng: np.random.Generator
) -> np.ndarray:
    """Draws `size` elements of `index`, in random order, with the proportions of `labels[index]`.

    Each class gets its exact share rounded down; what is then missing goes to the largest
    fractions, ties by lot. So no class is a whole example off its share.

    Args:
        labels: Labels of the pool, shape `(n,)`.
        index: Candidates, positions in `labels`.
        size: How many, at most `len(index)`.
        rng: What it is drawn with.

    Returns:
        Positions in `labels`, shape `(size,)`.

    Example:
    >>> labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    >>> chosen = stratified(labels, np.arange(100), 20, np.random.default_rng(0))
    >>> np.bincount(labels[chosen]).tolist()
    [12, 6, 2]
    """
    shuffled = rng.permutation(index)
    _, group, counts = np.unique(labels[shuffled], return_inverse=True, return_counts=True)
    share, fraction = np.divmod(counts * size, len(index))
    order = np.lexsort((rng.random(len(counts)), -fraction))
    share[order[: size - share.sum()]] += 1
    # Rank of each candidate within its class; the first `share` of each class are taken.
    by_class = np.argsort(group, kind="stable")
    rank = np.empty(len(group), np.int64)
    rank[by_class] = np.arange(len(group)) - np.repeat(np.cumsum(counts) - counts, counts)
    return shuffled[rank < share[group]]


def draw(pools: Pools, sizes: Sizes, probe: int, seed: int) -> dict[str, Part]:
    """Draws `test`, `validation`, `train` and, from the last, `probe`.

    Each has a random stream of its own, so that changing the size of one leaves those drawn
    before it as they are.

    Args:
        pools: What to draw from.
        sizes: How many of each.
        probe: Most examples of `probe`.
        seed: Non-negative integer.

    Returns:
        A `Part` for each of the four names.

    Raises:
        ValueError: If a size is more than there is.
    """
    left = np.arange(len(pools.train.y))
    parts: dict[str, Part] = {}
    for stream, name in enumerate(("test", "validation", "train")):
        own = None if name == "train" else getattr(pools, name)
        pool, candidates = (pools.train, left) if own is None else (own, np.arange(len(own.y)))
        asked = getattr(sizes, name)
        size = getattr(pools.default, name) if asked is None else asked
        size = len(candidates) if size is None else size
        if not 1 <= size <= len(candidates):
            raise ValueError(
                f"`{name}_size` can be at most {len(candidates)}, which is what there is"
                f"{' after ' + ' and '.join(parts) if own is None and parts else ''}. "
                f"Received: {name}_size={asked}{'' if asked else f' (default: {size})'}"
            )
        rows = stratified(pool.y, candidates, size, np.random.default_rng([seed, stream]))
        parts[name] = Part(pool, rows)
        if own is None:
            left = np.setdiff1d(left, rows, assume_unique=True)
    pool, rows = parts["train"]
    rng = np.random.default_rng([seed, len(parts)])
    parts["probe"] = Part(pool, stratified(pool.y, rows, min(probe, len(rows)), rng))
    return parts


def moments(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, in float64; 1 instead of a deviation of 0.

    >>> x = np.array([[[1.0, 5.0]], [[3.0, 5.0]]])  # two examples, one position, two channels
    >>> mean, std = moments(Part(Split(x, np.zeros(2)), np.arange(2)))
    >>> mean.tolist(), std.tolist()
    ([2.0, 5.0], [1.0, 1.0])
    """
    channels = part.pool.x.shape[-1]
    count = len(part.rows) * part.pool.x[0].size // channels

    def mean_of(function):
        """Over examples first and positions after: the last axis is too short to be fast."""
        starts = range(0, len(part.rows), BLOCK)
        blocks = (part.pool.x[part.rows[start : start + BLOCK]] for start in starts)
        total = sum(function(block.astype(np.float64)).sum(0) for block in blocks)
        return total.reshape(-1, channels).sum(0) / count

    mean = mean_of(lambda block: block)
    variance = mean_of(lambda block: np.square(block - mean))
    return mean, np.where(variance > 0, np.sqrt(variance), 1.0)


def standardize(part: Part, mean: np.ndarray, std: np.ndarray) -> Split:
    """The examples of `part`, standardized, as read-only float32, and their labels as int32."""
    x = part.pool.x[part.rows].astype(np.float32)
    x -= np.full(x.shape[1:], mean, np.float32)
    x /= np.full(x.shape[1:], std, np.float32)
    y = part.pool.y[part.rows].astype(np.int32)
    x.setflags(write=False)
    y.setflags(write=False)
    return Split(x, y)


def viewed(split: Split, view: Callable[[np.ndarray], np.ndarray]) -> Split:
    """The examples of a split as a function shows them, read-only; the labels stay.

    Raises:
        ValueError: If it does not show as many examples as it is given.

    Example:
    >>> viewed(Split(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0, 1])), lambda x: x[:, :1]).x
    array([[1.],
           [3.]])
    """
    x = np.asarray(view(split.x))
    if len(x) != len(split.y):
        raise ValueError(
            f"A view shows as many examples as it is given, {len(split.y)}. Received: {len(x)}"
        )
    x.setflags(write=False)
    return Split(x, split.y)


def in_shape(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Examples in another shape: the nearest positions, their channels averaged if not as many.

    Args:
        x: Examples, `(n, *positions, channels)`.
        shape: Shape of one example of the result, with as many axes.

    Returns:
        Array `(n, *shape)`; `x` itself if that is its shape.

    Raises:
        ValueError: If the number of axes is another.

    Example: twice as many positions, and two channels made one.
    >>> in_shape(np.array([[[1.0, 3.0], [5.0, 5.0]]]), (4, 1))[0, :, 0].tolist()
    [2.0, 2.0, 5.0, 5.0]
    """
    if x.ndim != len(shape) + 1:
        raise ValueError(f"`shape` must have {x.ndim - 1} axes as {x.shape[1:]}. Received: {shape}")
    *sides, channels = shape
    for axis, side in enumerate(sides, start=1):
        if side != x.shape[axis]:
            x = x.take(np.arange(side) * x.shape[axis] // side, axis)
    if x.shape[-1] != channels:
        x = np.repeat(x.mean(-1, keepdims=True), channels, -1)
    return x

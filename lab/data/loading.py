"""Data sets by name: split, subset and order drawn from a seed, nothing from the network.

Names are `digits` and `mnist1d`, which need no files, and those of the image classification sets
of TensorFlow Datasets (TFDS), once `prepare` (`make data DATA=...`) has put them on this machine.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lab.data import tfds
from lab.data.embedded import EMBEDDED
from lab.data.splits import (
    Sizes,
    Split,
    check_sizes,
    draw,
    in_shape,
    moments,
    restricted,
    standardize,
    viewed,
)
from lab.data.tfds import DataError, NotImageClassification, NotPrepared, UnknownData

__all__ = [
    "Data",
    "DataError",
    "NotImageClassification",
    "NotPrepared",
    "Split",
    "UnknownData",
    "check",
    "known",
    "load",
    "names",
    "prepare",
]

# Hessian estimates on less than about 1,000 examples are noise (PyHessian#5; its authors advise
# 4,096); 2,048 keep a Lanczos step affordable on two cores.
PROBE_SIZE = 2048
MOST_CLASSES = 10  # of an embedded data set


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Data:
    """One data set as one trial sees it. Arrays are read-only, and so is everything else.

    `x` is float32 of shape `(n, *shape)`, and standardized: the mean of each channel is
    subtracted and what remains divided by its standard deviation, both taken over the examples of
    `train` and all positions. `y` is int32 of shape `(n,)`, from 0 to `classes - 1`.

    Attributes:
        name: Name of the data set.
        classes: Number of classes.
        shape: Shape of one example: `(height, width, channels)` or `(length, channels)`.
        train: `Split` to train on.
        validation: `Split` to choose on: learning rates, epochs, members.
        probe: Fixed part of `train`, for measuring curvature.
        mean: Mean of each channel, in the data set's own units (pixels 0 to 255, digits 0 to 16).
        std: Standard deviation of each channel, in the same units.
        test_was_read: Whether `test` has been looked at, here or in a view of the same data.
    """

    name: str
    classes: int
    shape: tuple[int, ...]
    train: Split
    validation: Split
    probe: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    _test: Split
    _views: tuple[Callable, ...] = ()
    _read: set[str] = dataclasses.field(default_factory=set)  # one for the data and all its views

    @property
    def test(self) -> Split:
        """The `Split` to be looked at once, at the end: reading it sets `test_was_read`."""
        self._read.add("test")
        return functools.reduce(viewed, self._views, self._test)

    @property
    def sizes(self) -> dict[str, int]:
        """The number of examples of each part; to know that of `test` is not to read it."""
        parts = {"train": self.train, "validation": self.validation, "test": self._test}
        return {name: len(part.y) for name, part in parts.items()}

    @property
    def test_was_read(self) -> bool:
        """Whether it was, here or in a view."""
        return "test" in self._read

    def through(self, view: Callable[[np.ndarray], np.ndarray]) -> Data:
        """The same examples as a function shows them: features of a frozen network, other pixels.

        Who reads `test` of the result has read it of this one too; `view` is not given it before.

        Args:
            view: A function from arrays `(n, *shape)` to arrays `(n, ...)`, of each example alone.

        Returns:
            A `Data`. Its examples are not standardized anew: `mean` and `std` stay what they were.

        Raises:
            ValueError: If `view` does not show as many examples as it is given.

        Example:
        >>> halves = load("digits", seed=0).through(lambda x: x[:, :4])
        >>> halves.shape, halves.test.x.shape
        ((4, 8, 1), (500, 4, 8, 1))
        """
        train, validation, probe = (
            viewed(split, view) for split in (self.train, self.validation, self.probe)
        )
        return dataclasses.replace(
            self,
            shape=train.x.shape[1:],
            train=train,
            validation=validation,
            probe=probe,
            _views=(*self._views, view),
        )

    def in_shape(self, shape: tuple[int, ...]) -> Data:
        """The same examples in another shape, such as that of what a network was pretrained on.

        The nearest pixels; their channels are averaged if they are not as many. As of `through`.

        Raises:
            ValueError: If `shape` has another number of axes.

        Example:
        >>> load("digits", seed=0).in_shape((32, 32, 3))
        Data(digits, shape=(32, 32, 3), classes=10, train=1000, validation=297, test=500)
        """
        return self.through(lambda x: in_shape(x, shape))

    def __repr__(self) -> str:
        """Shows the sizes, without reading `test`."""
        parts = {"train": self.train, "validation": self.validation, "test": self._test}
        sizes = ", ".join(f"{part}={len(split.y)}" for part, split in parts.items())
        return f"Data({self.name}, shape={self.shape}, classes={self.classes}, {sizes})"


def load(
    name: str,
    seed: int,
    train_size: int | None = None,
    test_size: int | None = None,
    validation_size: int | None = None,
    probe_size: int | None = None,
    classes: Sequence[int] | None = None,
) -> Data:
    """Loads a data set: `seed` draws split, subsets and order, and of `mnist1d` the examples.

    Every part is stratified: each class has its share of what the part is drawn from, to within
    one example. Test is drawn first, validation next, training last, so that another
    `train_size` changes neither of the other two.

    | data set | train | validation | test |
    | --- | --- | --- | --- |
    | `digits` | the other 1,000 of 1,797 | 297 | 500 |
    | `mnist1d` | 2,000 | 1,000 | 4,000: a standard error of 0.3 points at 5 % error |
    | `photo_patches`, `photo_rows` | 1,000 | 500 | 2,000 |
    | TFDS, test split | the rest | the official one, or 10 % of train, at most 5,000 | all |
    | TFDS, train and validation | the rest | 10 % of train, at most 5,000 | validation |
    | TFDS, train alone | the other 60 % | 20 % | 20 % |

    Args:
        name: `digits`, `mnist1d` or a prepared TFDS data set. Images of varying size become
            64 x 64: the central square, antialiased.
        seed: Non-negative integer.
        train_size: Number of training examples; `None` for the default above.
        test_size: Number of test examples; likewise.
        validation_size: Number of validation examples; likewise.
        probe_size: Number of training examples in `probe`; `None` for 2,048, or all if fewer.
        classes: The classes to keep, which become 0, 1, ... in this order; `None` for all. Sizes
            count what is kept, and the defaults shrink with it.

    Returns:
        A `Data`.

    Raises:
        ValueError: If a size is not positive, or more than there is; if a class is unknown, given
            twice, or missing from the training examples that are drawn.
        NotPrepared: If TFDS knows the data set and this machine does not have it.
        UnknownData: If nobody knows it, or (`NotImageClassification`) it is something else.

    Example:
    >>> data = load("digits", seed=0, train_size=200)
    >>> data
    Data(digits, shape=(8, 8, 1), classes=10, train=200, validation=297, test=500)
    >>> data.train.x.shape, data.train.x.dtype, data.train.y.dtype
    ((200, 8, 8, 1), dtype('float32'), dtype('int32'))
    >>> data.test_was_read, len(data.test.y), data.test_was_read
    (False, 500, True)
    """
    check_sizes(
        train_size=train_size,
        test_size=test_size,
        validation_size=validation_size,
        probe_size=probe_size,
    )
    sizes = Sizes(test_size, validation_size, train_size)
    if name in EMBEDDED:
        # Generated sets make as many as are asked for, of all of their classes.
        share = 1 if classes is None else -(-MOST_CLASSES // max(1, len(classes)))
        asked = Sizes(*(size if size is None else size * share for size in sizes))
        pools = EMBEDDED[name](seed, asked)
    else:
        from lab.data.decoding import decode

        pools = decode(name)
    if classes is not None:
        pools = restricted(pools, classes)
    parts = draw(pools, sizes, PROBE_SIZE if probe_size is None else probe_size, seed)
    if probe_size is not None and probe_size > len(parts["train"].rows):
        raise ValueError(
            f"`probe_size` can be at most {len(parts['train'].rows)}, the training examples. "
            f"Received: probe_size={probe_size}"
        )
    drawn = parts["train"].pool.y[parts["train"].rows]
    if classes is not None and len(np.unique(drawn)) < len(classes):
        raise ValueError(
            f"`train_size` must be large enough for every one of {len(classes)} classes to be "
            f"drawn. Received: train_size={train_size}"
        )
    mean, std = moments(parts["train"])
    splits = {key: standardize(part, mean, std) for key, part in parts.items()}
    return Data(
        name=name,
        classes=pools.classes,
        shape=pools.train.x.shape[1:],
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        train=splits["train"],
        validation=splits["validation"],
        probe=splits["probe"],
        _test=splits["test"],
    )


def names() -> list[str]:
    """What can be loaded at once: the embedded data sets, then what is prepared on this machine.

    A look into a folder; TFDS is not imported, so something among it may be no image
    classification set. That is for `check` to say.

    >>> names()[:2]
    ['digits', 'mnist1d']
    """
    return [*EMBEDDED, *tfds.names()]


def known(name: str) -> bool:
    """Whether `name` is among `names()`.

    >>> known("digits"), known("digit")
    (True, False)
    """
    return name in EMBEDDED or tfds.is_prepared(name)


def check(name: str) -> None:
    """Returns if `load(name, ...)` will find an image classification set, within a second or so.

    Raises:
        NotPrepared: If TFDS knows it and this machine does not have it.
        UnknownData: If nobody knows it, or (`NotImageClassification`) it is something else.

    Example:
    >>> check("fashion_mnits")
    Traceback (most recent call last):
      ...
    lab.data.tfds.UnknownData: Nobody knows a data set 'fashion_mnits'. Did you mean fashion_mnist?
    """
    if name not in EMBEDDED:
        tfds.check(name)


def prepare(name: str) -> Path | None:
    """Downloads and prepares a TFDS data set; the only thing here that uses the network.

    Returns:
        The folder it lies in; `None` for an embedded data set, which needs none.

    Raises:
        UnknownData: If TFDS does not know it, or (`NotImageClassification`) it is something
            else; nothing is downloaded then.
        DataError: If downloading or preparing fails.

    Example:
    >>> prepare("digits")
    """
    return None if name in EMBEDDED else tfds.prepare(name)

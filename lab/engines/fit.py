"""How a training is asked for: model, data, batch size, epochs, and the order of its batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.engines.arrays import as_arrays, length


@dataclass(eq=False)
class Fit:
    """One training that a trial asks for.

    Args:
        model: A compiled `keras.Model`.
        data: `(x, y)` or `(x, y, sample_weight)`, arrays with examples along the first axis, or
            lists and dictionaries of them for models with several inputs or outputs, as for `fit`;
            `y`, or a part of it, may be None.
        batch_size: Examples per step. The last batch of an epoch may be smaller; it is trained on.
        epochs: Passes over the data.
        validation: As `data`, or None; its loss and metrics are logged after every epoch, computed
            in batches of `batch_size`.
        callbacks: `keras.callbacks.Callback`s.
        seed: Draws the batch order: epoch `e` visits the examples in the order of
            `numpy.random.default_rng([seed, e]).permutation(n)`, under every engine. None: the
            trial gives one; alone it means 0.
        jit_compile: Whether the fused engine uses XLA on TensorFlow. None: where it pays, which is
            on a GPU, and on a CPU for dense networks that train long enough.
        may_diverge: Whether a loss that is not finite is an answer (one of several learning
            rates that are tried) and not the trial's failure.

    Raises:
        ValueError: If the arrays differ in length or are empty, a number is not positive, or the
            batch is larger than the data.
    """

    model: Any
    data: tuple
    batch_size: int = 32
    epochs: int = 1
    validation: tuple | None = None
    callbacks: Sequence = ()
    seed: int | None = None
    jit_compile: bool | None = None
    may_diverge: bool = False

    def __post_init__(self):
        """Check what `fit` would only notice after tracing."""
        self.data = as_arrays("data", self.data)
        if self.validation is not None:
            self.validation = as_arrays("validation", self.validation)
        for name in ("batch_size", "epochs"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"`{name}` must be a positive whole number. Received: {value!r}")
        if self.batch_size > self.size:
            raise ValueError(
                f"`batch_size` must be at most the number of examples, {self.size}. "
                f"Received: batch_size={self.batch_size}"
            )

    @property
    def size(self) -> int:
        """The number of training examples."""
        return length(self.data)

    @property
    def steps(self) -> int:
        """The number of updates it makes."""
        return self.epochs * steps_per_epoch(self.size, self.batch_size)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Updates of one pass over so many examples; the last batch may be smaller.

    >>> steps_per_epoch(100, 32)
    4
    """
    return -(-examples // batch_size)


def batch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which epoch `epoch` visits `n` examples, shape (n,).

    `keras.utils.set_random_seed` leaves `fit` with one order for all epochs; drawing from seed
    and epoch gives a fresh one every time, and the same one on every run and engine.

    >>> bool((batch_order(7, 0, 100) != batch_order(7, 1, 100)).any())
    True
    """
    return np.random.default_rng([seed, epoch]).permutation(n)

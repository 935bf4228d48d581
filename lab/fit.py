"""How a training is asked for, and the plain engine: `model.fit` as anyone would call it.

Every engine gives the same history for a `Fit`; `plain` is the reference for the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ENGINES = ("fused", "plain")  # the first is the default


@dataclass(eq=False)
class Fit:
    """One training that a trial asks for.

    Args:
        model: A compiled `keras.Model`.
        data: `(x, y)` or `(x, y, sample_weight)`, arrays with examples along the first axis.
        batch_size: Examples per step. The last batch of an epoch may be smaller; it is trained on.
        epochs: Passes over the data.
        validation: `(x, y)` or None; its loss and metrics are logged after every epoch.
        callbacks: `keras.callbacks.Callback`s.
        seed: Draws the batch order: epoch `e` visits the examples in the order of
            `numpy.random.default_rng([seed, e]).permutation(n)`, under every engine. None: the
            trial gives one; alone it means 0.
        may_diverge: Whether a loss that is not finite is an answer (one of several learning
            rates that are tried) and not the trial's failure.

    Raises:
        ValueError: If the arrays differ in length or are empty, or a number is not positive.
    """

    model: Any
    data: tuple
    batch_size: int = 32
    epochs: int = 1
    validation: tuple | None = None
    callbacks: Sequence = ()
    seed: int | None = None
    may_diverge: bool = False

    def __post_init__(self):
        """Check what `fit` would only notice after tracing."""
        lengths = [len(part) for part in self.data]
        if len(lengths) not in (2, 3) or len(set(lengths)) != 1 or not lengths[0]:
            raise ValueError(
                "`data` must be (x, y) or (x, y, sample_weight) of one length, not empty. "
                f"Received: lengths={lengths}"
            )
        for name in ("batch_size", "epochs"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"`{name}` must be a positive whole number. Received: {value!r}")


def batch_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which epoch `epoch` visits `n` examples, shape (n,).

    `keras.utils.set_random_seed` leaves `fit` with one order for all epochs; drawing from seed
    and epoch gives a fresh one every time, and the same one on every run and engine.

    >>> bool((batch_order(7, 0, 100) != batch_order(7, 1, 100)).any())
    True
    """
    return np.random.default_rng([seed, epoch]).permutation(n)


def train(fits, engine: str = "fused"):
    """Train one `Fit`, or a list of independent ones.

    Args:
        fits: A `Fit` or a list of them.
        engine: Which way to train; both give the same history. "plain" is `model.fit`; "fused" runs
            each epoch as one compiled function, and falls back to "plain", saying so once, for
            callbacks that want every batch.

    Returns:
        A `keras.callbacks.History`, or a list of them.

    Raises:
        ValueError: If the engine is unknown.

    Example:
    ```python
    history = lab.train(Fit(model, (x, y), batch_size=32, epochs=5, seed=0))
    ```
    """
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {ENGINES}. Received: engine={engine!r}")
    if isinstance(fits, Fit):
        return _fused(fits) if engine == "fused" else _plain(fits)
    return [train(fit, engine) for fit in fits]


def _fused(fit: Fit):
    from lab import fused

    if reason := fused.obstacle(fit):
        fused.say_once(reason)
        return _plain(fit)
    return fused.train(fit, batch_order)


def _plain(fit: Fit):
    import keras

    class FreshOrder(keras.utils.PyDataset):
        """The training data in batches, in the order of the epoch that `follow` announced."""

        def __init__(self):
            super().__init__()
            self.arrays = [np.asarray(part) for part in fit.data]
            self.follow(0)

        def follow(self, epoch):
            self.order = batch_order(fit.seed or 0, epoch, len(self.arrays[0]))

        def __len__(self):
            return -(-len(self.arrays[0]) // fit.batch_size)

        def __getitem__(self, step):
            batch = self.order[step * fit.batch_size : (step + 1) * fit.batch_size]
            return tuple(array[batch] for array in self.arrays)

    data = FreshOrder()
    # `fit` tells callbacks of a new epoch before it opens the iterator on that epoch's batches.
    announce = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: data.follow(epoch))
    return fit.model.fit(
        data,
        epochs=fit.epochs,
        validation_data=None if fit.validation is None else tuple(fit.validation),
        callbacks=[announce, *fit.callbacks],
        shuffle=False,
        verbose=0,
    )

"""How a training is asked for, and the plain engine: `model.fit` as anyone would call it.

Every engine gives the same history for a `Fit`; `plain` is the reference for the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.epochs import length, taken

ENGINES = ("fused", "plain", "stacked")  # the first is the default


@dataclass(eq=False)
class Fit:
    """One training that a trial asks for.

    Args:
        model: A compiled `keras.Model`.
        data: `(x, y)` or `(x, y, sample_weight)`, arrays with examples along the first axis, or
            lists and dictionaries of them for models with several inputs or outputs.
        batch_size: Examples per step. The last batch of an epoch may be smaller; it is trained on.
        epochs: Passes over the data.
        validation: `(x, y)` or None; its loss and metrics are logged after every epoch.
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
        self.data = _arrays("data", self.data)
        if self.validation is not None:
            self.validation = _arrays("validation", self.validation)
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


def _arrays(name: str, data: Sequence) -> tuple:
    """`(x, y)` or `(x, y, sample_weight)` as arrays, checked."""
    import keras

    data = tuple(keras.tree.map_structure(np.asarray, tuple(data)))
    lengths = [len(part) if part.ndim else 0 for part in keras.tree.flatten(data)]
    if len(data) not in (2, 3) or len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(
            f"`{name}` must be (x, y) or (x, y, sample_weight) of one length, not empty. "
            f"Received: lengths={lengths}"
        )
    return data


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
        engine: Which way to train; all give the same history. "plain" is `model.fit`; "fused" runs
            each epoch as one compiled function, and falls back to "plain", saying so once, for
            callbacks that want every batch; "stacked" (JAX) trains those of a list that have one
            architecture as one program, each with its own data, weights, order and rate.

    Returns:
        A `keras.callbacks.History`, or a list of them.

    Raises:
        ValueError: If the engine is unknown, or "stacked" on another backend than JAX; if a model
            is not compiled, or labels are no classes of its output.

    Example:
    ```python
    history = lab.train(Fit(model, (x, y), batch_size=32, epochs=5, seed=0))
    ```
    """
    if isinstance(fits, Fit):
        return train([fits], engine)[0]
    _check_engine(engine)
    for fit in fits:
        check(fit)
    if engine != "stacked":
        return [_fused(fit) if engine == "fused" else _plain(fit) for fit in fits]
    results = train_each(fits, engine)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def train_each(fits: Sequence[Fit], engine: str = "stacked") -> list:
    """Train independent `Fit`s; what goes wrong in one ends that one alone.

    Args:
        fits: As for `train`.
        engine: As for `train`.

    Returns:
        For each its history, or the `Exception` that ended it.

    Raises:
        ValueError: As `train`.
    """
    _check_engine(engine)
    if engine != "stacked":
        return [_caught(train, fit, engine) for fit in fits]
    from lab import fused, stacked

    def why_not(fit):
        check(fit)
        if reason := fused.obstacle(fit):
            return reason  # `_fused` says it
        if reason := stacked.obstacle(fit):
            stacked.say_once(reason)
        return reason

    obstacles = [_caught(why_not, fit) for fit in fits]
    free = [fit for fit, obstacle in zip(fits, obstacles, strict=True) if not obstacle]
    stack = iter(stacked.train_each(free, batch_order))
    results = [obstacle or next(stack) for obstacle in obstacles]
    for i, fit in enumerate(fits):
        if not results[i]:
            stacked.say_once("it shares variables or callbacks with another of its list")
        if not results[i] or isinstance(results[i], str):
            results[i] = _caught(_fused, fit)
    return results


def check(fit: Fit) -> None:
    """Refuse what would train to nonsense, or fail deep inside of a backend.

    Raises:
        ValueError: If the model is not compiled, or a label is not a class of its output, which
            TensorFlow's loss answers with NaN and XLA with any number.
    """
    import keras

    model = fit.model
    if not model.compiled:
        raise ValueError(
            f"`model` must be compiled before it is trained. Received: model={model.name!r}"
        )
    loss = model.loss
    sparse = isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
    if not (sparse and loss.ignore_class is None) and loss != "sparse_categorical_crossentropy":
        return
    if not model.built or not isinstance(model.output_shape, tuple):
        return
    classes = model.output_shape[-1]
    for name, data in (("data", fit.data), ("validation", fit.validation or ())):
        for y in data[1:2]:
            if not isinstance(y, np.ndarray) or not 0 <= y.min() <= y.max() < classes:
                raise ValueError(
                    f"labels in `{name}` must be in 0 to {classes - 1}, the classes of the "
                    f"model's output. Received: {y.min()} to {y.max()}"
                )


def _check_engine(engine: str) -> None:
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {ENGINES}. Received: engine={engine!r}")
    if engine == "stacked":
        import keras

        if (backend := keras.backend.backend()) != "jax":
            raise ValueError(
                f"The stacked engine needs the JAX backend; this is {backend}. "
                "Received: engine='stacked'"
            )


def _caught(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return error


def _fused(fit: Fit):
    import keras

    from lab import fused

    if reason := fused.obstacle(fit):
        fused.say_once(reason)
        return _plain(fit)
    if keras.backend.backend() == "jax":
        from lab import stacked

        if not stacked.obstacle(fit):
            (history,) = stacked.train_each([fit], batch_order)  # a stack of one
            if isinstance(history, Exception):
                raise history
            return history
    return fused.train(fit, batch_order)


def _plain(fit: Fit):
    import keras

    class FreshOrder(keras.utils.PyDataset):
        """The training data in batches, in the order of the epoch that `follow` announced."""

        def __init__(self):
            super().__init__()
            self.follow(0)

        def follow(self, epoch):
            self.order = batch_order(fit.seed or 0, epoch, fit.size)

        def __len__(self):
            return -(-fit.size // fit.batch_size)

        def __getitem__(self, step):
            batch = self.order[step * fit.batch_size : (step + 1) * fit.batch_size]
            return taken(fit.data, batch)

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

"""What the compiled engines share: the course of a training, and how an epoch is cut and evaluated.

A course asks for each pass over the data instead of making it, so that an engine can make it in
its own way, alone or together with those of other courses.
"""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

EVALUATION_BATCH = 1024


def course(fit) -> Generator[tuple[str, int], dict[str, float], Any]:
    """A training with all calls and logs that `model.fit` gives to callbacks.

    Yields `("train", epoch)` and `("test", epoch)`, is sent the logs of that pass, and returns the
    `keras.callbacks.History`.
    """
    import keras

    model = fit.model
    callbacks = keras.callbacks.CallbackList(
        list(fit.callbacks),
        add_history=True,
        model=model,
        epochs=fit.epochs,
        steps=-(-fit.size // fit.batch_size),
        verbose=0,
    )
    model.stop_training = False
    logs: dict = {}
    callbacks.on_train_begin()
    for epoch in range(fit.epochs):
        model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        logs = yield "train", epoch
        if fit.validation is not None:
            callbacks.on_test_begin()
            model.reset_metrics()
            seen = yield "test", epoch
            callbacks.on_test_end(seen)
            logs |= {f"val_{name}": value for name, value in seen.items()}
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    model.optimizer.finalize_variable_values(model.trainable_weights)
    callbacks.on_train_end(logs=logs)
    return model.history


def last_pass(fit) -> tuple[str, int]:
    """What a course asks for last, unless a callback stops it before."""
    return ("test" if fit.validation is not None else "train", fit.epochs - 1)


def is_watched(fit) -> bool:
    """Whether callbacks may read or change the model between epochs."""
    return any(type(callback).__name__ != "History" for callback in fit.callbacks)


def indices(fit, wanted: tuple[str, int], order: Callable) -> np.ndarray:
    """The order of the examples in a pass: drawn for training, as they are for validation."""
    kind, epoch = wanted
    if kind == "train":
        return order(fit.seed or 0, epoch, fit.size)
    return np.arange(length(fit.validation))


def length(data: Sequence) -> int:
    """The number of examples of `(x, y)`, whatever structure of arrays these are."""
    import keras

    return len(keras.tree.flatten(tuple(data))[0])


def taken(data: Sequence, which) -> tuple:
    """`(x, y)` at some examples, for structures of arrays too."""
    import keras

    return keras.tree.map_structure(lambda part: part[which], tuple(data))


def first_batch(fit) -> tuple:
    """A batch such as it is trained on."""
    return taken(fit.data, slice(fit.batch_size))


def cut(order: np.ndarray, batch_size: int, whole_tail: bool = False):
    """Whole batches as the rows of one array, and the last batch if it is smaller or asked for."""
    full = len(order) // batch_size
    if whole_tail and full * batch_size == len(order):
        full -= 1
    head = order[: full * batch_size].reshape(full, batch_size)
    tail = order[full * batch_size :]
    return head.astype("int32"), tail.astype("int32") if len(tail) else None


def numbers(logs) -> dict[str, float]:
    """Logs as Python numbers."""
    return {name: float(value) for name, value in logs.items()}


def convolves(model) -> bool:
    """Whether a convolution kernel is among the weights: those have three dimensions or more."""
    return any(len(weight.shape) > 2 for weight in model.trainable_variables)


def build(model, batch: Sequence) -> None:
    """Create all variables: a compiled loop cannot. Leaves weights and metrics as they were."""
    _forward(model, batch)
    model.reset_metrics()
    model.optimizer.build(model.trainable_variables)


def evaluate(model, data: Sequence) -> dict[str, float]:
    """Loss and metrics of a compiled model over `data`, as `model.evaluate` gives them.

    Operation by operation: `model.evaluate` first traces every model anew, which takes a hundred
    times as long as the arithmetic of a small one.

    Args:
        model: A compiled `keras.Model`.
        data: `(x, y)` or `(x, y, sample_weight)`.

    Returns:
        Loss and metrics by name.
    """
    model.reset_metrics()
    logs = {}
    for start in range(0, length(data), EVALUATION_BATCH):
        logs = _forward(model, taken(data, slice(start, start + EVALUATION_BATCH)))
    return numbers(logs)


def _forward(model, batch: Sequence):
    x, y, weight = (*batch, None)[:3]
    predicted = model(x, training=False)
    loss = model.compute_loss(x, y, predicted, weight, training=False)
    model._loss_tracker.update_state(loss, sample_weight=length(batch))
    return model.compute_metrics(x, y, predicted, weight)

"""What the compiled engines share: the course of a training, and how an epoch is cut and evaluated.

A course asks for each pass over the data instead of making it, so that an engine can make it in
its own way, alone or together with those of other courses.
"""

import contextlib
import warnings
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from lab.engines.arrays import length, taken
from lab.engines.compiled import functions_made


def course(fit) -> Generator[tuple[str, int], dict[str, Any], Any]:
    """A training with all calls and logs that `model.fit` gives to callbacks.

    Yields `("train", epoch)` and `("test", epoch)`, is sent the logs of that pass, and returns the
    `keras.callbacks.History`.
    """
    import keras

    model, epochs = fit.model, limited(fit)
    if epochs < fit.epochs:
        warnings.warn(f"Limiting epochs to {epochs}", stacklevel=2)
    callbacks = keras.callbacks.CallbackList(
        list(fit.callbacks),
        add_history=True,
        model=model,
        epochs=epochs,
        steps=-(-fit.size // fit.batch_size),
        verbose=0,
    )
    functions_made(model, "train")  # a callback may ask for it to be made anew
    model.stop_training = False
    logs: dict = {}
    callbacks.on_train_begin()
    try:
        for epoch in range(model._initial_epoch or 0, epochs):
            model.reset_metrics()
            callbacks.on_epoch_begin(epoch)
            logs = dict((yield "train", epoch))
            if fit.validation is not None:
                model.stop_evaluating = False
                callbacks.on_test_begin()
                model.reset_metrics()
                seen = numbers((yield "test", epoch))
                callbacks.on_test_end(seen)
                logs |= {f"val_{name}": value for name, value in seen.items()}
            callbacks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
    except Exception:
        if keras.backend.backend() == "jax":
            _finalize(model)  # there `fit` does that whatever happened
        raise
    _finalize(model)
    callbacks.on_train_end(logs=logs)
    return model.history


def _finalize(model) -> None:
    import keras

    if isinstance(model.optimizer, keras.optimizers.Optimizer):
        model.optimizer.finalize_variable_values(model.trainable_weights)


def limited(fit) -> int:
    """The number of epochs, within what `keras.config.set_max_epochs` allows."""
    import keras

    return min(fit.epochs, keras.config.max_epochs() or fit.epochs)


def last_pass(fit) -> tuple[str, int]:
    """What a course asks for last, unless a callback stops it before."""
    return ("test" if fit.validation is not None else "train", limited(fit) - 1)


def is_watched(fit) -> bool:
    """Whether callbacks may read or change the model between epochs."""
    return any(type(callback).__name__ != "History" for callback in fit.callbacks)


def indices(fit, wanted: tuple[str, int], order: Callable) -> np.ndarray:
    """The examples of a pass in order: drawn for training, as they are for validation.

    All of them, unless a callback has asked to stop: Keras then ends the pass after what it
    executes at once, one step.
    """
    kind, epoch = wanted
    model = fit.model
    if kind == "train":
        found, stops = order(fit.seed or 0, epoch, fit.size), model.stop_training
    else:
        found, stops = np.arange(length(fit.validation)), model.stop_evaluating
    return found[: fit.batch_size * model.steps_per_execution] if stops else found


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


def numbers(logs) -> dict[str, Any]:
    """Logs as `fit` hands them to callbacks: by name, dictionaries flattened, numbers as floats."""
    import keras

    found: dict[str, Any] = {}
    for name, value in sorted((logs or {}).items()):
        if isinstance(value, dict):
            found |= numbers(value)
            continue
        if keras.ops.is_tensor(value):
            value = keras.ops.convert_to_numpy(value)
        with contextlib.suppress(Exception):  # it is no number
            value = float(value)
        found[name] = value
    return found


def convolves(model) -> bool:
    """Whether a convolution kernel is among the weights: those have three dimensions or more."""
    return any(len(weight.shape) > 2 for weight in model.trainable_variables)

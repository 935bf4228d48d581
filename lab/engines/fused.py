"""The fused engine: an epoch is one compiled function over data that lies on the device.

It drives the model's own `train_step`, so losses, metrics, sample weights, regularizers, schedules
and custom steps behave as under `fit`; only the Python and the dispatch between steps are gone.
"""

import functools
import logging
from collections.abc import Callable

import numpy as np

from lab.engines.epochs import build, course, first_batch, indices

BATCH_HOOKS = tuple(
    f"on_{kind}batch_{when}" for kind in ("", "train_", "test_") for when in ("begin", "end")
)
log = logging.getLogger(__name__)


def obstacle(fit) -> str:
    """Why a fit cannot be fused and must run as plain `fit`, or nothing."""
    import keras

    for callback in fit.callbacks:
        for hook in BATCH_HOOKS:
            method = getattr(callback, hook)
            base = getattr(keras.callbacks.Callback, hook)
            if getattr(method, "__func__", None) is not base:
                return f"{type(callback).__name__} overrides {hook}, which needs every batch"
    if keras.backend.backend() not in ("tensorflow", "jax"):
        return f"the {keras.backend.backend()} backend has no fused engine"
    if fit.model.run_eagerly:
        return "the model was compiled with run_eagerly=True"
    return ""


@functools.cache
def say_once(reason: str) -> None:
    """Tell of a fall-back, the first time only."""
    log.warning("Trained with plain fit: %s.", reason)


def train(fit, order: Callable[[int, int, int], np.ndarray]):
    """Train a `Fit` epoch by epoch; calls and logs of its callbacks are those of `model.fit`.

    Args:
        fit: A `lab.Fit` for which `obstacle` is empty; on JAX one that cannot be a stack of one.
        order: The batch order as a function of seed, epoch and number of examples.

    Returns:
        A `keras.callbacks.History`.
    """
    import keras

    if keras.backend.backend() == "tensorflow":
        from lab.engines.on_tensorflow import passes
    else:
        from lab.engines.on_jax import passes
    build(fit.model, first_batch(fit))
    life = course(fit)
    wanted = next(life)
    # Only now: callbacks may have changed the rate's schedule or what the optimizer does.
    run = passes(fit)
    next(run)
    try:
        while True:
            logs = run.send((wanted, indices(fit, wanted, order)))
            try:
                wanted = life.send(logs)
            except StopIteration as end:
                return end.value
    finally:
        run.close()

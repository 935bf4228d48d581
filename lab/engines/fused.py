"""The fused engine: an epoch is one compiled function over data that lies on the device.

It drives the model's own `train_step`, so losses, metrics, sample weights, regularizers, schedules
and custom steps behave as under `fit`; only the Python and the dispatch between steps are gone.
"""

from collections.abc import Callable

import numpy as np

from lab.engines.arrays import dense
from lab.engines.building import build
from lab.engines.epochs import course, first_batch, indices

BATCH_HOOKS = tuple(
    f"on_{kind}batch_{when}" for kind in ("", "train_", "test_") for when in ("begin", "end")
)
# What `fit` calls on the model, and the engine would not.
OF_FIT = ("fit", "evaluate", "make_train_function", "make_test_function", "_make_function")
INSTEAD = "Trained with plain fit"


def obstacle(fit) -> str:
    """Why a fit cannot be fused and must run as plain `fit`, or nothing."""
    import keras

    model, backend = fit.model, keras.backend.backend()
    for callback in keras.tree.flatten(list(fit.callbacks)):
        if _saves_epochs(callback):
            continue
        for hook in BATCH_HOOKS:
            method = getattr(callback, hook)
            base = getattr(keras.callbacks.Callback, hook)
            if getattr(method, "__func__", None) is not base:
                return f"{type(callback).__name__} overrides {hook}, which needs every batch"
    for method in OF_FIT:
        if getattr(type(model), method) is not getattr(keras.Model, method) or method in vars(
            model
        ):
            return f"the model has a `{method}` of its own"
    if backend not in ("tensorflow", "jax"):
        return f"the {backend} backend has no fused engine"
    if model.run_eagerly:
        return "the model was compiled with run_eagerly=True"
    if not dense((fit.data, fit.validation)):
        return "the data are ragged or sparse"
    if keras.config.max_steps_per_epoch():
        return "keras.config limits the steps of an epoch"
    return _on_jax(model) if backend == "jax" else _on_tensorflow(model)


def _saves_epochs(callback) -> bool:
    """Whether it is one of Keras's savers that has nothing to do in its hooks of batches."""
    import keras

    savers = keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore
    return type(callback) in savers and callback.save_freq == "epoch"


def _on_tensorflow(model) -> str:
    import tensorflow as tf

    if model._distribute_strategy is not None or tf.distribute.has_strategy():
        return "it is distributed by tf.distribute"
    if tf.config.functions_run_eagerly():
        return "TensorFlow runs functions eagerly"
    if model.train_function is not None and "_lab_traces" not in vars(model):
        before = getattr(model, "_compiled_trainable_state", {})
        if any(layer.trainable != was for layer, was in before.items()):
            return "layers were frozen or freed since `fit` has compiled its step"
    return ""


def _on_jax(model) -> str:
    import keras

    if keras.distribution.distribution() is not None:
        return "it is distributed by keras.distribution"
    if not model.jit_compile:
        return "the model was compiled with jit_compile=False"
    return ""


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
    return live(fit, course(fit), passes(fit), order)


def live(fit, life, run, order: Callable, wanted: tuple | None = None):
    """Lead a course to its end with an engine's passes; returns the history.

    Args:
        fit: The `Fit`.
        life: Its course.
        run: The engine's passes.
        order: The batch order as a function of seed, epoch and number of examples.
        wanted: The pass that the course waits for, if it has begun.
    """
    try:
        wanted = wanted or next(life)
        next(run)  # only now: callbacks may have changed what the model or its optimizer does
        while True:
            try:
                logs = run.send((wanted, indices(fit, wanted, order)))
            except Exception as error:
                wanted = life.throw(error)  # which ends as `fit` does
            else:
                wanted = life.send(logs)
    except StopIteration as end:
        return end.value
    finally:
        run.close()

"""The fused engine: an epoch is one compiled function over data that lies on the device.

It drives the model's own `train_step`, so losses, metrics, sample weights, regularizers, schedules
and custom steps behave as under `fit`; only the Python and the dispatch between steps are gone.
"""

import functools
import logging
from collections.abc import Callable, Sequence

import numpy as np

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
    if keras.backend.backend() not in _EPOCHS:
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
        fit: A `lab.Fit` for which `obstacle` is empty.
        order: The batch order as a function of seed, epoch and number of examples.

    Returns:
        A `keras.callbacks.History`.
    """
    import keras

    model, n = fit.model, len(fit.data[0])
    _build(model, [np.asarray(part[: fit.batch_size]) for part in fit.data])
    epoch_function = _EPOCHS[keras.backend.backend()]
    run_epoch = epoch_function(model, fit.data, fit.batch_size, training=True)
    validate = None
    if fit.validation is not None:
        validate = epoch_function(model, fit.validation, fit.batch_size, training=False)
        in_order = np.arange(len(fit.validation[0]))
    callbacks = keras.callbacks.CallbackList(
        list(fit.callbacks),
        add_history=True,
        model=model,
        epochs=fit.epochs,
        steps=-(-n // fit.batch_size),
        verbose=0,
    )
    model.stop_training = False
    logs: dict = {}
    callbacks.on_train_begin()
    for epoch in range(fit.epochs):
        model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        logs = run_epoch(order(fit.seed or 0, epoch, n))
        if validate is not None:
            callbacks.on_test_begin()
            model.reset_metrics()
            seen = validate(in_order)
            callbacks.on_test_end(seen)
            logs |= {f"val_{name}": value for name, value in seen.items()}
        callbacks.on_epoch_end(epoch, logs)
        if model.stop_training:
            break
    model.optimizer.finalize_variable_values(model.trainable_weights)
    callbacks.on_train_end(logs=logs)
    return model.history


def _build(model, batch: Sequence) -> None:
    """Create all variables: a compiled loop cannot. Leaves weights and metrics as they were."""
    x, y = batch[0], batch[1]
    weight = batch[2] if len(batch) > 2 else None
    predicted = model(x, training=False)
    model.compute_loss(x, y, predicted, weight, training=False)
    model.compute_metrics(x, y, predicted, weight)
    model.reset_metrics()
    model.optimizer.build(model.trainable_variables)


def _cut(order: np.ndarray, batch_size: int, whole_tail: bool):
    """Whole batches as the rows of one array, and the last batch if it is smaller or asked for."""
    full = len(order) // batch_size
    if whole_tail and full * batch_size == len(order):
        full -= 1
    head = order[: full * batch_size].reshape(full, batch_size)
    tail = order[full * batch_size :]
    return head.astype("int32"), tail.astype("int32") if len(tail) else None


def _numbers(logs) -> dict:
    return {name: float(value) for name, value in logs.items()}


def _once_per_compile(model, key, make: Callable):
    """What `make` compiles for a model, kept until the model is compiled anew."""
    with_these = (model.optimizer, model._compile_loss, model._compile_metrics)
    kept = model.__dict__.get("_fused_epochs")
    if kept is None or any(a is not b for a, b in zip(kept[0], with_these, strict=True)):
        kept = (with_these, {})
        object.__setattr__(model, "_fused_epochs", kept)  # Keras would track it as a layer's state
    if key not in kept[1]:
        kept[1][key] = make()
    return kept[1][key]


def _tensorflow(model, data, batch_size: int, training: bool):
    import keras
    import tensorflow as tf

    kind = "train_step" if training else "test_step"
    # A step of the user's own may log what is no metric: its last batch then speaks for the epoch.
    own = getattr(type(model), kind) is not getattr(keras.Model, kind)
    arrays = [tf.convert_to_tensor(np.asarray(part)) for part in data]

    def compiled():
        step = getattr(model, kind)

        @tf.function(reduce_retracing=True)
        def run(arrays, head, tail):
            for i in tf.range(tf.shape(head)[0]):
                step(tuple(tf.gather(part, head[i]) for part in arrays))
            logs = None
            if tail is not None:
                logs = step(tuple(tf.gather(part, tail) for part in arrays))
            return logs if own else model.get_metrics_result()

        return run

    run = _once_per_compile(model, kind, compiled)

    def epoch(order):
        head, tail = _cut(order, batch_size, whole_tail=own)
        tail = None if tail is None else tf.convert_to_tensor(tail)
        return _numbers(run(arrays, tf.convert_to_tensor(head), tail))

    return epoch


def _jax(model, data, batch_size: int, training: bool):
    import jax

    arrays = [jax.numpy.asarray(part) for part in data]

    def compiled():
        step = model.train_step if training else model.test_step

        def one(state, arrays, index):
            logs, state = step(state, tuple(part[index] for part in arrays))
            return state, logs

        def scanned(state, arrays, head, tail):
            logs = None
            if len(head):
                state, every = jax.lax.scan(lambda s, index: one(s, arrays, index), state, head)
                logs = jax.tree.map(lambda values: values[-1], every)
            if tail is not None:
                state, logs = one(state, arrays, tail)
            return logs, state

        single = jax.jit(one)

        def stepped(state, arrays, head, tail):
            for index in [*head, *([] if tail is None else [tail])]:
                state, logs = single(state, arrays, index)
            return logs, state

        # XLA's loops on a CPU run convolutions on a slow path: 5.8 s a step for a small network
        # that takes 0.2 s outside of one. So the loop is Python's there.
        slow = jax.default_backend() == "cpu" and _convolves(model)
        return stepped if slow else jax.jit(scanned)

    run = _once_per_compile(model, training, compiled)

    def groups():
        optimizer = [model.optimizer.variables] if training else []
        variables = [model.trainable_variables, model.non_trainable_variables]
        return [*variables, *optimizer, model.metrics_variables]

    def epoch(order):
        head, tail = _cut(order, batch_size, whole_tail=False)
        state = tuple([v.value for v in group] for group in groups())
        logs, state = run(state, arrays, head, tail)
        for group, values in zip(groups(), state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return _numbers(jax.device_get(logs))

    return epoch


def _convolves(model) -> bool:
    """Whether a convolution kernel is among the weights: those have three dimensions or more."""
    return any(len(weight.shape) > 2 for weight in model.trainable_variables)


_EPOCHS = {"tensorflow": _tensorflow, "jax": _jax}

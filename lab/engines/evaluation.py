"""Loss and metrics of a model, without compiling anything."""

from collections.abc import Sequence
from typing import Any

from lab.engines.arrays import as_arrays, dense, length, taken
from lab.engines.building import has_own_step
from lab.engines.epochs import numbers

EVALUATION_BATCH = 1024


def evaluate(model, data: Sequence, batch_size: int = EVALUATION_BATCH) -> dict[str, Any]:
    """Loss and metrics of a compiled model over `data`, as `model.evaluate` gives them.

    Operation by operation: `model.evaluate` first traces every model anew, which takes a hundred
    times as long as the arithmetic of a small one.

    Args:
        model: A compiled `keras.Model`.
        data: `(x, y)` or `(x, y, sample_weight)`.
        batch_size: As of `model.evaluate`, for what is no mean over examples, such as a loss with
            weights.

    Returns:
        Loss and metrics by name; those that are no number as arrays.
    """
    parts = as_arrays("data", data)
    several = (
        len(getattr(model, "outputs", None) or ()) > 1
    )  # whose losses Keras weighs its own way
    if several or has_own_step(model, "test") or not dense(parts) or _is_distributed(model):
        x, y, weight = (*parts, None)[:3]
        kwargs: dict = {"batch_size": batch_size, "verbose": 0, "return_dict": True}
        return model.evaluate(x, y, sample_weight=weight, **kwargs)
    model.reset_metrics()
    logs: dict = {}
    for start in range(0, length(parts), batch_size):
        logs = _step(model, taken(parts, slice(start, start + batch_size)))
    seen = numbers(logs)
    if seen.keys() != logs.keys():
        return seen
    return {name: seen[name] for name in logs}


def _step(model, batch: Sequence) -> dict:
    x, y, weight = (*batch, None)[:3]
    training = {"training": False} if model._call_has_training_arg else {}
    predicted = model(x, **training)
    loss = model._compute_loss(x, y, predicted, weight, training=False)
    model._loss_tracker.update_state(loss, sample_weight=length(batch))
    return model.compute_metrics(x, y, predicted, weight)


def _is_distributed(model) -> bool:
    return getattr(model, "_distribute_strategy", None) is not None

"""A pass over the data step by step, by the function that Keras itself makes for `fit`.

For what cannot be compiled as a whole: this works, or raises, as `fit` does.
"""

from collections.abc import Sequence

from lab.engines.arrays import taken
from lab.engines.compiled import Passes, functions_made
from lab.engines.epochs import cut

INSTEAD = "Trained step by step, as fit does"


def first_line(error: Exception) -> str:
    """What an exception says, in short, and without names of graphs, which count up."""
    line = str(error).strip().partition("\n")[0].partition(" when trying to compile graph")[0]
    return f"{type(error).__name__}: {line[:150]}"


def by_step(model, kind: str, data, batches: Sequence):
    """Make a pass and return its logs as `fit` has them.

    Args:
        model: A compiled `keras.Model`.
        kind: "train" or "test".
        data: `(x, y)` or `(x, y, sample_weight)` as arrays of the backend.
        batches: The examples' indices, batch by batch.
    """
    import keras

    make = _on_jax if keras.backend.backend() == "jax" else _on_tensorflow
    logs = make(model, kind, functions_made(model, kind), data, batches)
    return model._get_metrics_result_or_logs(logs)


def passes(fit) -> Passes:
    """Yields the logs of the passes that it is sent, with `fit.model` as callbacks expect it."""
    logs = None
    while True:
        (kind, _), order = yield logs
        data = fit.data if kind == "train" else fit.validation
        head, tail = cut(order, fit.batch_size)
        logs = by_step(fit.model, kind, data, [*head, *([] if tail is None else [tail])])


def _on_tensorflow(model, kind: str, function, data, batches):
    import tensorflow as tf

    signature = tf.TensorSpec((None,), tf.int32)
    rows = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
    each = iter(rows.map(lambda index: taken(data, index)))
    logs: dict = {}
    for _ in range(0, len(batches), model.steps_per_execution):
        logs = function(each)
    return logs


def _on_jax(model, kind: str, function, data, batches):
    wanted = ["trainable_variables", "non_trainable_variables", "metrics_variables"]
    if kind == "train":
        wanted.insert(2, "optimizer_variables")
    state = model._get_jax_state(**dict.fromkeys(wanted, True))
    logs: dict = {}
    model._jax_state_synced = False
    try:
        for index in batches:
            logs, state = function(state, iter([taken(data, index)]))
            model._jax_state = dict(zip(wanted, state, strict=True))
    finally:
        model.jax_state_sync()  # the arrays that the variables have were donated
        model._jax_state = None
    return logs

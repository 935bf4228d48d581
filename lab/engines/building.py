"""Creating a model's variables without running it, as `fit` does."""

from collections.abc import Sequence


def symbols(batch: Sequence):
    """Shapes and types of a batch, `None` where there is nothing; of any number of examples."""
    import keras

    def symbol(part):
        if part is None:
            return None
        return keras.KerasTensor(
            (None, *part.shape[1:]), keras.backend.standardize_dtype(part.dtype)
        )

    return keras.tree.map_structure(symbol, tuple(batch))


def build(model, batch: Sequence) -> None:
    """Create all variables that can be known from shapes; no layer is run and nothing is drawn.

    What a step of the model's own will create shows only when it is traced, and waits until then.

    Args:
        model: A compiled `keras.Model`.
        batch: `(x, y)` or `(x, y, sample_weight)`, such as it is trained on.
    """
    import keras

    if keras.backend.backend() == "jax":
        model._symbolic_build(data_batch=tuple(batch))
        return
    if has_own_step(model, "train"):
        return
    if not _from_outputs(model, *symbols(batch)[:2]):
        model._symbolic_build(data_batch=tuple(batch))
    elif model.optimizer is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def has_own_step(model, kind: str) -> bool:
    """Whether "train" or "test" goes by a step or logs of the model's own."""
    import keras

    names = (f"{kind}_step", "compute_metrics", "get_metrics_result")
    return any(
        getattr(type(model), name) is not getattr(keras.Model, name) or name in vars(model)
        for name in names
    )


def is_built(model) -> bool:
    """Whether nothing is left to create but what metrics or own steps create themselves."""
    parts = [*model._flatten_layers(), model.optimizer, model._compile_metrics, model._compile_loss]
    return all(part is None or part.built for part in parts)


def _from_outputs(model, x, y) -> bool:
    """Build loss and metrics from the symbolic output of a functional model that has one."""
    import keras

    graph = getattr(model, "_functional", None) or model
    predicted = getattr(graph, "_outputs_struct", None)
    if keras.tree.is_nested(predicted) or keras.tree.is_nested(y):
        return False  # Keras pairs structures before it builds
    if predicted is None or y is None or not all(one.built for one in model._flatten_layers()):
        return False
    for part in (model._compile_metrics, model._compile_loss):
        if part is not None and not part.built:
            part.build(y, predicted)
    return True

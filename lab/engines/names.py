"""Names that Keras counts up with what was made before, and what stands for them in a key."""

import re
from typing import Any


def counts_up(thing, name) -> bool:
    """Whether a name is one that Keras has made: the class of the thing, and a number."""
    import keras

    base = re.escape(keras.src.utils.naming.to_snake_case(type(thing).__name__))
    if type(thing) is keras.layers.InputLayer:
        base = f"{base}|keras_tensor"  # so those of copies are called
    return isinstance(name, str) and re.fullmatch(rf"({base})(_\d+)?", name) is not None


def of_model(model, shown: list) -> dict[Any, Any]:
    """Names that count up with what was made before, each with what stands for it."""
    operations = list(model._flatten_layers())
    for layer in list(operations):
        known = {id(one) for one in operations}
        operations += [one for one in getattr(layer, "_operations", ()) if id(one) not in known]
    found: dict[Any, Any] = {}
    for place, one in enumerate(operations):
        if counts_up(one, one.name) and one.name not in shown:
            found.setdefault(one.name, ("name", place))
    optimizer = model.optimizer
    for place, variable in enumerate(model.variables):
        for key in {variable.path, _key_of(optimizer, variable)}:
            found.setdefault(key, ("path", place))
    return found


def _key_of(optimizer, variable) -> Any:
    find = getattr(optimizer, "_var_key", None)
    return find(variable) if find else variable.path


def of_optimizer(model) -> set[int]:
    """The identities of the optimizer's own variables."""
    return {id(v) for v in getattr(model.optimizer, "variables", None) or ()}

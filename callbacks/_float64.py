"""A model computed in float64 for a while, its variables untouched."""

import contextlib

import keras

from callbacks._backend import float64_enabled

FLOATS = ("float16", "bfloat16", "float32")


@contextlib.contextmanager
def in_float64(model):
    """Has a model and its compiled loss compute in float64 inside a `with` block.

    What is set is what Keras reads when a layer is called: the policies of layers and losses, and
    the types that variables and the inputs of nested models are said to have. Values given in a
    `keras.StatelessScope` inside then stay float64. A compiled function remembers none of it, so
    the block must be around its tracing; JAX needs it around each call.

    A layer that asks for float32 by name (`ops.cast(x, "float32")`) gets it: what comes out then
    has the digits of float32, or raises for its mixed types.

    Args:
        model: A built `keras.Model`, compiled or not.
    """
    policy = keras.DTypePolicy("float64")
    layers = model._flatten_layers()
    changes = []
    for layer in layers:
        if layer.compute_dtype in FLOATS and layer.quantization_mode is None:
            changes.append((layer, "_dtype_policy", policy))
        for tensor in getattr(layer, "_inputs", None) or ():
            changes += _widened(tensor)
    for loss in _losses(model):
        changes += [(loss, "_dtype_policy", policy), (loss, "_dtype", "float64")]
    for variable in {id(v): v for v in [*model.variables, *model.metrics_variables]}.values():
        changes += _widened(variable)
    before = [(thing, name, getattr(thing, name)) for thing, name, _ in changes]
    floatx = keras.config.floatx()
    try:
        # Past `__setattr__`, with which Keras tracks what layers are made of.
        for thing, name, value in changes:
            object.__setattr__(thing, name, value)
        keras.config.set_floatx("float64")
        with float64_enabled():
            yield
    finally:
        keras.config.set_floatx(floatx)
        for thing, name, value in before:
            object.__setattr__(thing, name, value)


def _widened(thing):
    """A variable or symbolic tensor that is said to be float64, if it is a float of less."""
    return [(thing, "_dtype", "float64")] if thing._dtype in FLOATS else []


def _losses(model):
    """The compiled loss and the losses of the outputs in it."""
    compiled = getattr(model, "_compile_loss", None)
    if compiled is None:
        return []
    found = [compiled, *(loss for _, loss, *_ in compiled._flat_losses or ())]
    found += keras.tree.flatten(compiled._user_loss)
    return [loss for loss in found if isinstance(loss, keras.losses.Loss)]

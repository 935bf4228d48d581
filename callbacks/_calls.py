"""Watching layers as they are called."""

import contextlib
import inspect


@contextlib.contextmanager
def before_call(layers, hook):
    """Has `hook(layer, arguments)` called before any of the layers is, inside a `with` block.

    Args:
        layers: Built layers.
        hook: Gets what the layer is called with as `inspect.BoundArguments`.
    """

    def wrapped(layer, call):
        signature = inspect.signature(call)

        def hooked(*args, **kwargs):
            hook(layer, signature.bind(*args, **kwargs))
            return call(*args, **kwargs)

        return hooked

    own = [vars(layer).get("call") for layer in layers]
    try:
        for layer in layers:
            layer.call = wrapped(layer, layer.call)
        yield
    finally:
        for layer, call in zip(layers, own, strict=True):
            if call is not None:
                layer.call = call
            elif "call" in vars(layer):
                del layer.call

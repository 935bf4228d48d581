"""Which layers of a model have derivatives that are none."""

import keras
import numpy as np

from callbacks._backend import compile_derivatives
from callbacks._calls import before_call
from callbacks._differences import Differences, asymmetry
from callbacks._float64 import in_float64

EXAMPLES = 4
TOLERANCE = 1e-3


def suspects(surface):
    """Names of the layers at fault, where curvature of a `LossSurface` is refused.

    Each layer is tried alone, at the inputs that it gets in the model: whether it computes in
    float64, whether what it returns rises as its gradient says, and whether differences of that
    gradient make a symmetric matrix.
    """
    model, seen = surface.model, []
    leaves = [layer for layer in model._flatten_layers() if not layer._layers]
    with before_call(leaves, lambda layer, call: seen.append((layer, call))):
        model(surface.inputs(EXAMPLES), training=False)
    found = {}
    with in_float64(model):
        for layer, call in seen:
            try:
                wrong = _is_wrong(layer, call.arguments)
            except Exception:  # it does not compute in float64, or has inputs of another kind
                wrong = True
            if wrong:
                found[layer.name] = f"layer {layer.name!r} ({type(layer).__name__})"
    return list(found.values())


def _is_wrong(layer, arguments):
    inputs = [a for a in keras.tree.flatten(arguments) if _is_float(a)]
    moved = [np.asarray(keras.ops.convert_to_numpy(a), "float64") for a in inputs]
    moved += [np.asarray(v, "float64") for v in layer.trainable_variables]
    if not moved:
        return False
    edges = np.cumsum([a.size for a in moved])[:-1].tolist()
    shapes = [a.shape for a in moved]
    start = np.concatenate([a.ravel() for a in moved])
    rng = np.random.default_rng(0)

    def function(z, state, x, y):
        """A sum of sines of all that the layer returns, in random proportions."""
        parts = keras.ops.split(z, edges) if edges else [z]
        parts = [keras.ops.reshape(p, s) for p, s in zip(parts, shapes, strict=True)]
        own = iter(parts[: len(inputs)])
        mapping = zip(layer.trainable_variables, parts[len(inputs) :], strict=True)
        with keras.StatelessScope(list(mapping)):
            given = keras.tree.map_structure(lambda a: next(own) if _is_float(a) else a, arguments)
            outputs = [o for o in keras.tree.flatten(layer.call(**given)) if _is_float(o)]
        weights = np.random.default_rng(1)
        sums = [keras.ops.sum(keras.ops.sin(o) * weights.uniform(0.5, 1, o.shape)) for o in outputs]
        return keras.ops.cast(sum(sums), "float64")

    z = keras.ops.convert_to_tensor(start, dtype="float64")
    compiled = compile_derivatives(function, z, [], [], [])

    def value_and_gradient(z):
        z = keras.ops.convert_to_tensor(z, dtype="float64")
        return [
            np.asarray(keras.ops.convert_to_numpy(part), "float64")
            for part in compiled.value_and_gradient(z, [], [], [])
        ]

    differences = Differences(value_and_gradient, start)
    u, v = rng.standard_normal((2, len(start)))
    return not differences.are_of_a_gradient(v) or asymmetry(differences.product, u, v) > TOLERANCE


def _is_float(a):
    return keras.ops.is_tensor(a) and keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(a.dtype)
    )

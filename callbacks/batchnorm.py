"""Batch-norm statistics of a whole data set."""

import contextlib

import keras
import numpy as np

from callbacks._calls import before_call

# A batch of 32x32x64 activations in float64 is then 270 MB.
BATCH_SIZE = 512


def recalibrate_batchnorm(model, x, batch_size=BATCH_SIZE):
    """Sets batch-norm statistics to those of the whole of `x`.

    The moving mean and variance of every `keras.layers.BatchNormalization` (subclasses and nested
    models included, frozen or not) become the mean and the population variance of the layer's
    inputs over all of `x`, in inference mode. Layers are set in the order in which they run, each
    seeing its inputs after the ones before it were set. The result does not depend on
    `batch_size`: sums are taken in float64.

    Moving averages lag behind the weights (by some 100 steps at momentum 0.99), and belong to no
    weights at all once those are averaged or interpolated. Recalibrate before measuring either.

    A mask is respected. A layer that runs several times in one forward pass gets the statistics
    of all its inputs together, the later ones as its former statistics produce them. A layer that
    does not run keeps what it has.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
    >>> recalibrate_batchnorm(model, np.array([[1.0], [3.0]]))
    >>> layer = model.layers[0]
    >>> print(float(layer.moving_mean[0]), float(layer.moving_variance[0]))
    2.0 1.0

    Args:
        model: A built `keras.Model`. Only the statistics change; if an exception is raised, not
            even they do.
        x: Inputs, an array or a structure of arrays of equal length; no data set or generator.
        batch_size: Number of examples in a forward pass. If they all fit into one, one pass sets
            all layers; otherwise each layer takes a pass over `x` that ends at that layer.

    Raises:
        ValueError: If `x` is empty or no array, `batch_size` is below 1, or a layer runs inside a
            compiled loop other than that of a `keras.layers.RNN`.

    Reference:
        [Ioffe and Szegedy, 2015](https://arxiv.org/abs/1502.03167), algorithm 2;
        [Wu and Johnson, 2021](https://arxiv.org/abs/2105.07576), "precise BN".
    """
    layers = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.built
    ]
    if not layers:
        return
    given, x = x, keras.tree.map_structure(np.asarray, x)
    if any(a.ndim == 0 for a in keras.tree.flatten(x)):
        raise ValueError(
            "`x` must be an array or a structure of arrays: of a data set, give the inputs as one. "
            f"Received: x={given!r}"
        )
    n = len(keras.tree.flatten(x)[0])
    if n == 0 or batch_size < 1:
        raise ValueError(
            "`x` must not be empty and `batch_size` must be at least 1. "
            f"Received: len(x)={n}, batch_size={batch_size}"
        )
    batches = [slice(start, start + batch_size) for start in range(0, n, batch_size)]

    def run(batch):
        model(keras.tree.map_structure(lambda a: a[batch], x), training=False)

    variables = model.non_trainable_variables
    before = [np.asarray(v).copy() for v in variables]

    def restore(but=()):
        for variable, value in zip(variables, before, strict=True):
            if not any(variable is kept for kept in but):
                variable.assign(value)

    try:
        with _unrolled(model):
            if len(batches) > 1 or not _set_in_one_pass(layers, run):
                restore()
                _set_one_by_one(layers, run, batches)
    except BaseException:
        restore()
        raise
    restore(but=[v for layer in layers for v in (layer.moving_mean, layer.moving_variance)])


class _Seen(BaseException):
    """Ends a forward pass. Not an `Exception`: neither Keras nor a model may handle it."""


@contextlib.contextmanager
def _unrolled(model):
    """Has recurrent layers run step by step: in JAX's compiled loop, inputs have no values."""
    recurrent = [
        layer
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN)
        and any(isinstance(b, keras.layers.BatchNormalization) for b in layer._flatten_layers())
    ]
    before = [layer.unroll for layer in recurrent]
    try:
        for layer in recurrent:
            layer.unroll = True
        yield
    finally:
        for layer, unroll in zip(recurrent, before, strict=True):
            layer.unroll = unroll


def _set_in_one_pass(layers, run):
    """Sets each layer as it runs; returns False if one runs twice, which takes more passes."""
    done = set()

    def hook(layer, call):
        if id(layer) in done:
            raise _Seen
        done.add(id(layer))
        _assign(layer, _moments(layer, call))

    try:
        with before_call(layers, hook):
            run(slice(None))
    except _Seen:
        return False
    return True


def _set_one_by_one(layers, run, batches):
    order = []
    with before_call(layers, lambda layer, call: order.append(layer)):
        run(batches[0])

    for layer in dict.fromkeys(order):
        calls = sum(other is layer for other in order)
        seen = []

        def hook(layer, call, seen=seen, calls=calls):
            seen.append(_moments(layer, call))
            if len(seen) % calls == 0:
                raise _Seen

        with before_call([layer], hook):
            for batch in batches:
                with contextlib.suppress(_Seen):
                    run(batch)
        _assign(layer, _merged(seen))


def _moments(layer, call):
    """Count, mean and sum of squared deviations of each channel, in float64."""
    inputs, mask, axis = next(iter(call.arguments.values())), call.arguments.get("mask"), layer.axis
    try:
        values = keras.ops.convert_to_numpy(inputs).astype("float64")
    except Exception as error:  # each backend has its own
        raise ValueError(
            "Layers must be called with values; inside a compiled loop they are not. "
            f"Received: layer={layer!r}"
        ) from error
    values = np.moveaxis(values, axis, -1)
    keep = np.ones((1,) * values.ndim, bool)
    if mask is not None:
        keep = keras.ops.convert_to_numpy(mask).astype(bool)[..., None]
        keep = np.moveaxis(np.broadcast_to(keep, inputs.shape), axis, -1)
    keep = np.broadcast_to(keep, values.shape)
    axes = tuple(range(values.ndim - 1))
    count = keep.sum(axis=axes)
    mean = values.sum(axis=axes, where=keep) / np.maximum(count, 1)
    return count, mean, np.sum((values - mean) ** 2, axis=axes, where=keep)


def _merged(moments):
    """Moments of the union (Chan et al., 1979)."""
    count, mean, squares = moments[0]
    for more, other, others in moments[1:]:
        total = np.maximum(count + more, 1)
        gap = other - mean
        squares = squares + others + gap**2 * (count * more / total)
        mean = mean + gap * (more / total)
        count = count + more
    return count, mean, squares


def _assign(layer, moments):
    count, mean, squares = moments
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(squares / np.maximum(count, 1))

"""Lines through weight space: directions, points on them, a visit to one, and to many."""

import contextlib

import numpy as np

from callbacks._units import unit_axes
from callbacks.batchnorm import recalibrate_batchnorm


def filter_normalized_direction(model, seed=0):
    """A random direction with the scale of the model's own filters.

    Gaussian, with each filter rescaled to the norm of the same filter in the weights. A filter is
    all that leads to one output unit. Which axes of a kernel count the units depends on the layer
    (of `Conv2DTranspose` the last but one, of depthwise convolutions the last two, of `EinsumDense`
    those its equation keeps); of layers that are not Keras's own it is taken to be the last.
    Biases, slopes and normalization parameters get zeros. Along such a direction, losses of
    networks whose weights differ in scale can be compared.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    >>> kernel, bias = filter_normalized_direction(model)
    >>> weights = np.asarray(model.layers[0].kernel)
    >>> np.allclose(np.linalg.norm(kernel, axis=0), np.linalg.norm(weights, axis=0))
    True
    >>> bias
    array([0., 0.], dtype=float32)

    Args:
        model: A built `keras.Model`.
        seed: Of the direction.

    Returns:
        A list of arrays, aligned with `model.trainable_variables` in shape and dtype.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 4.
    """
    rng = np.random.default_rng(seed)
    direction = []
    units = unit_axes(model)
    for variable in model.trainable_variables:
        weights = np.asarray(variable)
        random = rng.standard_normal(weights.shape)
        kept = units[id(variable)]
        if not kept:
            random[...] = 0
        else:
            axes = tuple(i for i in range(weights.ndim) if i not in kept)
            norms = [
                np.sqrt(np.sum(np.square(a, dtype="float64"), axes, keepdims=True))
                for a in (weights, random)
            ]
            random *= norms[0] / norms[1]
        direction.append(random.astype(weights.dtype))
    return direction


def interpolate(start, end, alpha):
    """The point `(1 - alpha) * start + alpha * end` of the line through two sets of weights.

    Example:
    >>> import numpy as np
    >>> interpolate([np.array([0.0, 4.0])], [np.array([1.0, 8.0])], 0.25)
    [array([0.25, 5.  ])]

    Args:
        start: A list of arrays (or variables), as of `weights_at`.
        end: Likewise, of the same shapes.
        alpha: Any number; 0 is `start`, 1 is `end`.

    Returns:
        A list of arrays.

    Raises:
        ValueError: If the two differ in length or shapes.
    """
    start, end = [np.asarray(a) for a in start], [np.asarray(a) for a in end]
    _check_shapes("`end`", [a.shape for a in end], "`start`", [a.shape for a in start])
    alpha = float(alpha)
    return [(1 - alpha) * a + alpha * b for a, b in zip(start, end, strict=True)]


def weights_of(model):
    """The trainable weights that a model has now, as `weights_at` takes them.

    Example:
    >>> import keras
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> kept = weights_of(model)
    >>> model.set_weights([w + 1 for w in kept])
    >>> print(kept[1], weights_of(model)[1])
    [0.] [1.]

    Args:
        model: A built `keras.Model`.

    Returns:
        A list of numpy arrays, copies that do not follow the model, aligned with
        `model.trainable_variables` in shape and dtype.
    """
    return [np.asarray(variable).copy() for variable in model.trainable_variables]


@contextlib.contextmanager
def weights_at(model, weights):
    """Gives a model other weights inside a `with` block.

    Afterwards, and after an exception, all variables of the model are as they were: trainable
    weights, batch-norm statistics, seeds. So a block may well call `recalibrate_batchnorm`, which
    weights that were not trained there need.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> before = float(model(np.array([[3.0]]))[0, 0])
    >>> with weights_at(model, [np.array([[2.0]]), np.array([1.0])]):
    ...     print(float(model(np.array([[3.0]]))[0, 0]))
    7.0
    >>> before == float(model(np.array([[3.0]]))[0, 0])
    True

    Args:
        model: A built `keras.Model`.
        weights: A list of arrays, aligned with `model.trainable_variables`.

    Yields:
        The model.

    Raises:
        ValueError: If `weights` differ from the trainable weights in number or shapes; the model
            is not touched.
    """
    trainable = model.trainable_variables
    weights = [np.asarray(a) for a in weights]
    shapes = [tuple(v.shape) for v in trainable]
    _check_shapes("`weights`", [a.shape for a in weights], "the trainable weights", shapes)
    before = [(v, np.asarray(v).copy()) for v in model.variables]
    try:
        for variable, value in zip(trainable, weights, strict=True):
            variable.assign(value)
        yield model
    finally:
        for variable, value in before:
            variable.assign(value)


def along_line(model, start, end, positions, measure, recalibrate_on=None):
    """What is measured of a model at positions of the line through two sets of weights.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> start, end = [np.zeros((1, 1)), np.ones(1)], [np.ones((1, 1)), np.ones(1)]
    >>> def measure(model):
    ...     return {"output": float(model(np.array([[4.0]]))[0, 0])}
    >>> along_line(model, start, end, [0, 0.5, 2], measure)
    {'output': [1.0, 3.0, 9.0]}

    Args:
        model: A built `keras.Model`. Afterwards it is as it was.
        start: A list of arrays, aligned with `model.trainable_variables`.
        end: Likewise.
        positions: Numbers; 0 is `start`, 1 is `end`.
        measure: A function of the model that returns a dictionary, of the same keys everywhere.
        recalibrate_on: Inputs over which batch-norm statistics are recomputed at each position
            (`recalibrate_batchnorm`), or None to measure with those that lie in the model. They
            belong to other weights: interpolated networks with them look worse than they are.

    Returns:
        A dictionary of lists, each with one value for each position.

    Raises:
        ValueError: As `interpolate`, `weights_at` and `recalibrate_batchnorm`.

    Reference:
        [Goodfellow et al., 2015](https://arxiv.org/abs/1412.6544), linear path experiments.
    """
    curves = {}
    for position in positions:
        with weights_at(model, interpolate(start, end, position)):
            if recalibrate_on is not None:
                recalibrate_batchnorm(model, recalibrate_on)
            for name, value in measure(model).items():
                curves.setdefault(name, []).append(value)
    return curves


def along_random_directions(model, positions, measure, directions=1, seed=0, recalibrate_on=None):
    """What is measured of a model that is moved along random filter-normalized directions.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    >>> kernel = np.array(model.layers[0].kernel)
    >>> def measure(model):
    ...     return {"distance": np.linalg.norm(np.asarray(model.layers[0].kernel) - kernel)}
    >>> curves = along_random_directions(model, [0, 0.5], measure, directions=2)
    >>> print(np.round(curves["distance"] / np.linalg.norm(kernel), 3))
    [[0.  0.5]
     [0.  0.5]]

    Args:
        model: A built `keras.Model`. Afterwards it is as it was.
        positions: Sizes of the step, relative to the norm of each filter; 0 is the model itself.
        measure: As for `along_line`.
        directions: Their number, at least 1.
        seed: Of the first direction; the others have the seeds that follow.
        recalibrate_on: As for `along_line`.

    Returns:
        A dictionary of arrays of the shape (directions, positions).

    Raises:
        ValueError: As `along_line`.

    Reference:
        [Li et al., 2018](https://arxiv.org/abs/1712.09913), section 4.
    """
    start, curves = weights_of(model), {}
    for drawn in range(seed, seed + directions):
        step = filter_normalized_direction(model, drawn)
        end = [w + d for w, d in zip(start, step, strict=True)]
        seen = along_line(model, start, end, positions, measure, recalibrate_on)
        for name, values in seen.items():
            curves.setdefault(name, []).append(values)
    return {name: np.array(values) for name, values in curves.items()}


def _check_shapes(name, shapes, reference, expected):
    if shapes != expected:
        raise ValueError(
            f"{name} must have the shapes of {reference}, {expected}. Received: shapes={shapes}"
        )

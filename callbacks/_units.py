"""Which axes of a layer's weights count its output units."""

import keras
from keras import layers

# Keras's names of weights that shift, scale or bend a whole unit; some are shaped as matrices.
NOT_FILTERS = {"bias", "beta", "gamma", "scale", "alpha"}
TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
# A unit is an input channel and one of the filters that it has for itself.
DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)


def unit_axes(model):
    """For each trainable variable, by `id`, the axes that count units; none for what is no kernel.

    What leads to one unit is what lies along the other axes. Of a dense kernel `(inputs, units)`,
    convolutions `(height, width, channels, filters)`, recurrent and embedding matrices the last
    axis counts the units, and so it is taken of layers that are not Keras's own.

    Args:
        model: A built `keras.Model`.
    """
    found = {}
    for variable in model.trainable_variables:
        rank = len(variable.shape)
        filters = rank > 1 and variable.name not in NOT_FILTERS
        found[id(variable)] = (rank - 1,) if filters else ()
    for layer in model._flatten_layers():
        for name, axes in _own(layer):
            variable = getattr(layer, name, None)
            if isinstance(variable, keras.Variable) and found.get(id(variable)):
                rank = len(variable.shape)
                found[id(variable)] = tuple(axis % rank for axis in axes)
    return found


def _own(layer):
    """Names of weights whose units are not along the last axis, with the axes."""
    if isinstance(layer, TRANSPOSED):
        return [("kernel", (-2,)), ("_kernel", (-2,))]
    if isinstance(layer, DEPTHWISE):
        return [("kernel", (-2, -1))]
    if isinstance(layer, SEPARABLE):
        return [("depthwise_kernel", (-2, -1))]
    if isinstance(layer, layers.EinsumDense):
        return [("_kernel", _kept_by(layer.equation))]
    return []


def _kept_by(equation):
    """The axes of a kernel that an equation such as "abc,cde->abde" has in the output too.

    Any other is summed over. An axis that inputs, kernel and output share counts positions, each
    with units of its own.
    """
    inputs, output = equation.replace(" ", "").split("->")
    kernel = inputs.split(",")[1]
    return tuple(i for i, letter in enumerate(kernel) if letter in output)

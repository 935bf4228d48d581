"""One vocabulary for convolutions over images and over one-dimensional signals."""

import keras

CONVOLUTION = {1: keras.layers.Conv1D, 2: keras.layers.Conv2D}
MAX_POOLING = {1: keras.layers.MaxPooling1D, 2: keras.layers.MaxPooling2D}
MEAN_POOLING = {1: keras.layers.GlobalAveragePooling1D, 2: keras.layers.GlobalAveragePooling2D}


def channelled(shape: tuple[int, ...]):
    """Returns an input of `shape`, and the same with a channel axis.

    Args:
        shape: Shape of one example: `(height, width, channels)`, `(length, channels)` or
            `(length,)`, which becomes `(length, 1)`.

    Returns:
        `(inputs, x, rank)`: two Keras tensors and the number of spatial axes of `x`, 1 or 2.

    Raises:
        ValueError: If `shape` has another number of axes.

    Example:
    >>> inputs, x, rank = channelled((40,))
    >>> inputs.shape, x.shape, rank
    ((None, 40), (None, 40, 1), 1)
    """
    if not 1 <= len(shape) <= 3:
        raise ValueError(
            "`shape` must be (height, width, channels), (length, channels) or (length,). "
            f"Received: shape={shape}"
        )
    inputs = keras.Input(tuple(shape))
    x = keras.layers.Reshape((*shape, 1))(inputs) if len(shape) == 1 else inputs
    return inputs, x, len(x.shape) - 2


def convolution(rank: int, filters: int, *, seed: int, strides: int = 1, bias: bool, zero=False):
    """Returns a convolution with kernel size 3 and padding that keeps the side (with stride 1).

    Args:
        rank: Number of spatial axes, 1 or 2.
        filters: Number of output channels.
        seed: Seed of the kernel.
        strides: Stride on every spatial axis.
        bias: Whether to add a bias, initially zero.
        zero: Whether the kernel starts at zero instead of He et al. 2015's normal.

    Returns:
        A Keras layer.

    Example:
    >>> convolution(2, 16, seed=0, bias=False).compute_output_shape((None, 8, 8, 1))
    (None, 8, 8, 16)
    """
    return CONVOLUTION[rank](
        filters,
        3,
        strides=strides,
        padding="same",
        use_bias=bias,
        kernel_initializer=(
            keras.initializers.Zeros() if zero else keras.initializers.HeNormal(seed=seed)
        ),
    )

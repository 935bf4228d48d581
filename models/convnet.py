"""A small convolutional network for images and one-dimensional signals."""

from collections.abc import Callable, Sequence

import keras

from models.arguments import check_sizes
from models.convolution import MAX_POOLING, MEAN_POOLING, channelled, convolution
from models.normalization import normalization as normalize
from models.normalization import takes_bias
from models.seeds import seeds


def convnet(
    shape: tuple[int, ...],
    classes: int,
    *,
    widths: Sequence[int] = (16, 32, 64),
    blocks: int = 2,
    normalization: str | Callable = "none",
    dropout: float = 0.0,
    seed: int = 0,
) -> keras.Model:
    """Builds a plain convolutional network in the manner of VGG (Simonyan & Zisserman 2015).

    One stage per width: `blocks` times a convolution of kernel size 3, normalization, ReLU.
    Between stages a maximum over 2 (or 2 by 2) positions, while every side is at least 4, so
    that the last stages of 8 x 8 digits still have 2 x 2 positions to look at. Then the mean over
    all positions, dropout, and a dense layer.

    Args:
        shape: Shape of one example: `(height, width, channels)`, or `(length, channels)` or
            `(length,)` for signals, which get one-dimensional convolutions.
        classes: Number of logits.
        widths: Channels of each stage; at least one.
        blocks: Convolutions per stage.
        normalization: `"none"`, `"batch"`, `"layer"` or `"group"`, after each convolution.
        dropout: Rate before the dense layer.
        seed: Non-negative integer; it alone determines the initial weights and the dropout masks.

    Returns:
        An uncompiled functional model, `(batch, *shape)` to logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> convnet((28, 28, 1), 10, normalization="batch").output_shape
    (None, 10)
    >>> convnet((40,), 10, widths=(8,), blocks=1).count_params()  # 3 * 8 + 8, and 8 * 10 + 10
    122
    """
    if not widths:
        raise ValueError(f"`widths` must not be empty. Received: widths={widths}")
    check_sizes(classes=classes, widths=widths, blocks=blocks)
    seed_of = seeds(seed)
    bias = takes_bias(normalization)
    inputs, x, rank = channelled(shape)
    for stage, width in enumerate(widths):
        if stage > 0 and min(x.shape[1:-1]) >= 4:
            x = MAX_POOLING[rank](2)(x)
        for _ in range(blocks):
            x = convolution(rank, width, seed=next(seed_of), bias=bias)(x)
            x = normalize(normalization, width)(x)
            x = keras.layers.Activation("relu")(x)
    x = MEAN_POOLING[rank]()(x)
    if dropout:
        x = keras.layers.Dropout(dropout, seed=next(seed_of))(x)
    head = keras.initializers.GlorotUniform(seed=next(seed_of))
    return keras.Model(
        inputs, keras.layers.Dense(classes, kernel_initializer=head)(x), name="convnet"
    )

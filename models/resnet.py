"""The residual network that He et al. 2016 trained on CIFAR-10."""

from collections.abc import Callable

import keras

from models.arguments import check_sizes
from models.convolution import MAX_POOLING, MEAN_POOLING, channelled, convolution
from models.normalization import normalization as normalize
from models.normalization import takes_bias
from models.seeds import seeds


def resnet(
    shape: tuple[int, ...],
    classes: int,
    *,
    depth: int = 20,
    width: int = 16,
    normalization: str | Callable = "batch",
    seed: int = 0,
) -> keras.Model:
    """Builds a residual network as in He et al. 2016, section 4.2.

    A convolution, then three stages of `n` blocks with `width`, `2 * width` and `4 * width`
    channels, the second and third starting with stride 2; the mean over all positions and a dense
    layer: `depth = 6n + 2` layers with weights. A block is ReLU(x + f(x)), f two convolutions of
    kernel size 3, each followed by normalization, with a ReLU between.

    Shortcuts are the paper's option A, free of parameters: where the stride is 2 they keep every
    second position and fill the new channels with zeros.

    With `normalization="none"` the second convolution of each block starts at zero, as in Fixup
    (Zhang et al. 2019): every block is then the identity at first and the signal keeps its scale
    at any depth. With a normalization, all convolutions start as in He et al. 2015.

    Args:
        shape: Shape of one example: `(height, width, channels)`, or `(length, channels)` or
            `(length,)` for signals, which get one-dimensional convolutions.
        classes: Number of logits.
        depth: 8, 14, 20, 32, 44, 56, 110 ...: two more than a multiple of six.
        width: Channels of the first stage.
        normalization: `"none"`, `"batch"`, `"layer"` or `"group"`, after each convolution.
        seed: Non-negative integer; it alone determines the initial weights.

    Returns:
        An uncompiled functional model, `(batch, *shape)` to logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> import math
    >>> model = resnet((32, 32, 3), 10)
    >>> sum(math.prod(w.shape) for w in model.trainable_variables)  # the paper's 0.27 million
    269722
    """
    check_sizes(classes=classes, width=width)
    n, rest = divmod(depth - 2, 6)
    if n < 1 or rest:
        raise ValueError(f"`depth` must be 6n + 2 with n at least 1. Received: depth={depth}")
    seed_of = seeds(seed)
    inputs, x, rank = channelled(shape)

    def step(x, channels, strides=1, last=False):
        """Convolution and normalization."""
        x = convolution(
            rank,
            channels,
            seed=next(seed_of),
            strides=strides,
            bias=takes_bias(normalization),
            zero=last and normalization == "none",
        )(x)
        return normalize(normalization, channels)(x)

    x = keras.layers.Activation("relu")(step(x, width))
    for stage in range(3):
        channels = width * 2**stage
        for block in range(n):
            strides = 2 if stage > 0 and block == 0 else 1
            shortcut = x
            if strides == 2:
                shortcut = MAX_POOLING[rank](1, strides=2)(x)  # a maximum over one position
                new_channels = [[0, 0]] * (rank + 1) + [[0, channels - x.shape[-1]]]
                shortcut = keras.ops.pad(shortcut, new_channels)
            x = keras.layers.Activation("relu")(step(x, channels, strides))
            x = keras.layers.Add()([shortcut, step(x, channels, last=True)])
            x = keras.layers.Activation("relu")(x)
    x = MEAN_POOLING[rank]()(x)
    head = keras.initializers.GlorotUniform(seed=next(seed_of))
    return keras.Model(
        inputs, keras.layers.Dense(classes, kernel_initializer=head)(x), name="resnet"
    )

"""The normalization that every model takes by name."""

from collections.abc import Callable

import keras

KINDS = ("none", "batch", "layer", "group")

# Wu & He 2018 use 32 groups for widths of 64 to 2048; our widths start at 16. A group of one unit
# would, on a dense layer, always be normalized to zero.
MOST_GROUPS, LEAST_CHANNELS = 8, 4


def normalization(kind: str | Callable, channels: int) -> Callable:
    """Returns a fresh normalization layer, or the identity.

    - `"none"`: the identity, no layer.
    - `"batch"`: `BatchNormalization` as Keras sets it up, momentum 0.99 included (Ioffe & Szegedy
      2015). In short runs its moving statistics lag: recompute them before measuring.
    - `"layer"`: over all channels *and* positions of an example, scale and shift per channel:
      layer normalization as in Wu & He 2018, figure 2. On dense layers that is Ba et al. 2016.
    - `"group"`: the same within groups of channels (Wu & He 2018): as many equal groups as go,
      at most 8 and of at least 4 channels each.
    - a callable without arguments that returns a layer, such as
      `lambda: GhostBatchNormalization(32)`: it is called once for every place.

    Args:
        kind: One of the above.
        channels: Size of the last axis of what will be normalized.

    Returns:
        A callable from tensor to tensor of the same shape.

    Raises:
        ValueError: If `kind` is unknown.

    Example:
    >>> type(normalization("batch", 16)).__name__
    'BatchNormalization'
    >>> normalization("group", 12).groups
    3
    >>> normalization("none", 16)("untouched")
    'untouched'
    """
    if callable(kind):
        return kind()
    if kind == "none":
        return lambda x: x
    if kind == "batch":
        return keras.layers.BatchNormalization()
    if kind == "layer":
        return keras.layers.GroupNormalization(groups=1)
    if kind == "group":
        most = min(MOST_GROUPS, max(1, channels // LEAST_CHANNELS))
        return keras.layers.GroupNormalization(
            groups=max(g for g in range(1, most + 1) if channels % g == 0)
        )
    raise ValueError(
        f"`normalization` must be one of {', '.join(KINDS)}, or a callable that returns a layer. "
        f"Received: normalization={kind!r}"
    )


def takes_bias(kind: str | Callable) -> bool:
    """Whether a layer that `kind` follows should have a bias.

    Batch normalization subtracts the mean of each channel and a bias with it: the parameter would
    have a gradient of exactly zero. A callable is taken for a batch normalization of some sort.

    >>> takes_bias("group"), takes_bias("batch")
    (True, False)
    """
    return kind != "batch" and not callable(kind)

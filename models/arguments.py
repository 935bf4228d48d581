"""The check of sizes that every model makes; not every Keras version makes it itself."""

from collections.abc import Sequence


def check_sizes(**sizes: int | Sequence[int]) -> None:
    """Raises ValueError unless every size, or every one of a sequence, is at least 1.

    >>> check_sizes(classes=10, widths=(128, 0))
    Traceback (most recent call last):
      ...
    ValueError: `widths` must be at least 1. Received: widths=(128, 0)
    """
    for name, size in sizes.items():
        if min(size, default=1) < 1 if isinstance(size, Sequence) else size < 1:
            raise ValueError(f"`{name}` must be at least 1. Received: {name}={size}")

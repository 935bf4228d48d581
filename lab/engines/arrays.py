"""The data of a training, whatever structure of arrays it comes in, as `fit` would cut it."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def as_arrays(name: str, data: Sequence) -> tuple:
    """`(x, y)` or `(x, y, sample_weight)` as arrays of types that `fit` would make of them.

    Raises:
        ValueError: If these differ in length, are empty, or are what `fit` refuses.
    """
    import keras

    parts = keras.tree.lists_to_tuples(keras.tree.map_structure(_array, tuple(data)))
    present = [part for part in keras.tree.flatten(parts) if part is not None]
    lengths = [part.shape[0] if len(part.shape) else 0 for part in present]
    if len(parts) not in (2, 3) or len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(
            f"`{name}` must be (x, y) or (x, y, sample_weight) of one length, not empty. "
            f"Received: lengths={lengths}"
        )
    return _weighted(parts)


def _array(part: Any):
    import keras

    if part is None or _is_special(part):
        return part
    series = type(part).__name__ == "Series"
    part = np.asarray(part)
    if series:
        part = part[:, None]
    if part.dtype.hasobject and all(isinstance(one, str) for one in part.flat):
        part = part.astype(str)
    floating = keras.backend.is_float_dtype(keras.backend.standardize_dtype(part.dtype)) if (
        part.dtype.kind not in "OSUV"
    ) else False  # fmt: skip
    return part.astype(keras.config.floatx()) if floating else part


def _is_special(part: Any) -> bool:
    return type(part).__name__ in ("RaggedTensor", "SparseTensor", "BCOO") or (
        type(part).__module__.startswith("scipy.sparse")
    )


def dense(data: Sequence) -> bool:
    """Whether all of it is arrays, none ragged or sparse."""
    import keras

    return not any(map(_is_special, keras.tree.flatten(tuple(data))))


def _weighted(parts: tuple) -> tuple:
    """One weight for each example counts for every target, and structures must match."""
    import keras

    if len(parts) < 3 or parts[2] is None or not keras.tree.is_nested(parts[1]):
        return parts
    x, y, weight = parts
    if keras.tree.is_nested(weight):
        try:
            keras.tree.assert_same_structure(y, weight)
        except ValueError as error:
            raise ValueError(
                "You should provide one `sample_weight` array per output in `y`. The two "
                f"structures did not match: {error}"
            ) from error
        return parts
    return x, y, keras.tree.map_structure(lambda _: weight, y)


def length(data: Sequence) -> int:
    """The number of examples of `(x, y)`, whatever structure of arrays these are."""
    import keras

    return next(p.shape[0] for p in keras.tree.flatten(tuple(data)) if p is not None)


def taken(data: Sequence, which) -> tuple:
    """`(x, y)` at some examples: a slice, or an array of their indices."""
    import keras

    def part_of(part):
        if part is None:
            return None
        if isinstance(which, slice) or not type(part).__module__.startswith("tensorflow"):
            return part[which]
        import tensorflow as tf

        return tf.gather(part, which)

    return keras.tree.map_structure(part_of, tuple(data))

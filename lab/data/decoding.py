"""Reading a prepared TFDS image classification set into memory, once per process."""

from __future__ import annotations

import contextlib
import functools

import numpy as np

from lab.data.splits import Pools, Sizes, Split
from lab.data.tfds import Damaged, NotImageClassification, cause, check, columns

VALIDATION_NAMES = ("validation", "val", "valid", "dev")

# Where nothing official exists: 10 % of train for validation, at most 5,000 (what He et al. 2016
# hold out of CIFAR-10's 50,000), and of a single split 20 % each for validation and test.
VALIDATION_SHARE, MOST_VALIDATION, SINGLE_SPLIT_SHARE = 0.1, 5000, 0.2

# Side of the squares that images of varying size become.
SIDE = 64

# Images per step while decoding.
BATCH = 500


def decode(name: str) -> Pools:
    """All labelled examples of a prepared data set, in the type that they are stored in.

    That is mostly uint8; images of varying size become squares of the same type.

    The test pool is the official `test` split, or without one the official validation split,
    which published figures then refer to. A split whose labels are withheld does not count.
    The arrays are kept for the life of the process (the four sets used last).

    Raises:
        NotPrepared, UnknownData, NotImageClassification: As `lab.data.tfds.check`.
        Damaged: If its files cannot be read.
    """
    return _decode(name, str(check(name)))


@functools.lru_cache(maxsize=4)
def _decode(name: str, path: str) -> Pools:
    _leave_the_accelerator_alone()
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(path)
    image, label = columns(name, builder.info.features)
    held_out = [key for key in ("test", *VALIDATION_NAMES) if key in builder.info.splits]
    try:
        splits = {key: _read(builder, key, image, label) for key in ("train", *held_out)}
    except Exception as error:  # whatever a file may hold instead of examples
        raise Damaged(name, path, cause(error)) from error
    splits = {key: split for key, split in splits.items() if split.y.min() >= 0}
    if "train" not in splits:
        raise NotImageClassification(f"The labels of {name} are withheld.")

    train = splits.pop("train")
    test = splits.pop(next(iter(splits))) if splits else None
    validation = splits.pop(next(iter(splits))) if splits else None
    n = len(train.y)
    if test is None:
        default = Sizes(round(n * SINGLE_SPLIT_SHARE), round(n * SINGLE_SPLIT_SHARE))
    elif validation is None:
        default = Sizes(validation=min(MOST_VALIDATION, round(n * VALIDATION_SHARE)))
    else:
        default = Sizes()
    classes = builder.info.features[label].num_classes
    return Pools(train, validation, test, classes=classes, default=default)


def _read(builder, split: str, image: str, label: str) -> Split:
    import tensorflow_datasets as tfds

    feature = builder.info.features[image]
    n = builder.info.splits[split].num_examples
    sized = None not in feature.shape
    shape = feature.shape if sized else (SIDE, SIDE, feature.shape[-1])
    x, y = np.empty((n, *shape), feature.np_dtype), np.empty(n, np.int64)
    examples = builder.as_dataset(
        split=split,
        batch_size=BATCH if sized else None,
        shuffle_files=False,
        decoders=tfds.decode.PartialDecoding({image: True, label: True}),
        read_config=tfds.ReadConfig(try_autocache=False),
    )
    start = 0
    for example in tfds.as_numpy(examples):
        images = example[image] if sized else square(example[image])[None]
        stop = start + len(images)
        x[start:stop], y[start:stop] = images, example[label]
        start = stop
    x.setflags(write=False)
    y.setflags(write=False)
    return Split(x, y)


def square(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The central square of an image, resized with Pillow's bicubic filter.

    Pillow widens the filter when it makes an image smaller, so this is antialiased. Of bytes it
    computes in integers, so that is the same on every machine; of what bytes do not hold, in
    float32, each channel by itself, whole numbers rounded and kept within their range.

    Args:
        image: Of shape `(height, width, channels)`, any real type; uint8 with 1, 3 or 4 channels.
        side: Side of the result.

    Returns:
        Of shape `(side, side, channels)` and the same type.

    Example:
    >>> wide = np.zeros((10, 30, 3), np.uint8)
    >>> wide[:, 6:24] = 255
    >>> square(wide, 5).min()
    np.uint8(255)
    >>> square(40000 * np.ones((10, 30, 1), np.uint16), 5).max()
    np.uint16(40000)
    """
    from PIL import Image, ImageOps

    def fitted(array):
        picture = Image.fromarray(array)
        return ImageOps.fit(picture, (side, side), method=Image.Resampling.BICUBIC)

    if image.dtype == np.uint8:
        picture = fitted(image[..., 0] if image.shape[-1] == 1 else image)
        return np.asarray(picture).reshape(side, side, image.shape[-1])
    channels = np.moveaxis(image.astype(np.float32), -1, 0)
    values = np.stack([np.asarray(fitted(channel)) for channel in channels], axis=-1)
    if np.issubdtype(image.dtype, np.integer):
        # In float64: the nearest float32 to the largest 32-bit number is beyond it.
        limits = np.iinfo(image.dtype)
        values = np.clip(np.rint(values.astype(np.float64)), limits.min, limits.max)
    return values.astype(image.dtype)


def _leave_the_accelerator_alone() -> None:
    """Keeps TensorFlow, which only reads files here, from taking the memory of JAX's GPU."""
    import keras
    import tensorflow as tf

    if keras.config.backend() != "tensorflow":
        with contextlib.suppress(RuntimeError):  # TensorFlow has its devices already
            tf.config.set_visible_devices([], "GPU")

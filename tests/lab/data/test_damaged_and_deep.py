"""Prepared sets whose files are damaged, and images that are no bytes."""

import pickle

import numpy as np
import pytest

from lab.data import decoding, loading, tfds
from tests.lab.data.test_tfds import folder, labelled, no_network, store  # noqa: F401


@pytest.fixture(autouse=True)
def _usual(folder):  # noqa: F811
    return folder


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-30]), "DataLossError: truncated record"),
        (lambda p: p.write_bytes(b"x" * 500), "DataLossError: corrupted record"),
        (lambda p: p.unlink(), "No such file"),
    ],
    ids=["cut", "overwritten", "gone"],
)
def test_a_damaged_file_is_said_with_its_cause(damage, cause, folder):  # noqa: F811
    store(folder, "pictures", {"train": labelled(0, 60)})
    (records,) = folder.glob("pictures/1.0.0/*.tfrecord*")
    damage(records)
    with pytest.raises(loading.DataError, match="pictures is damaged in ") as caught:
        loading.load("pictures", seed=0)
    said = str(caught.value)
    assert cause in said
    assert f"{folder}/pictures/1.0.0" in said
    assert "`make data DATA=pictures`" in said
    assert "{{" not in said
    assert "\n" not in said
    assert str(pickle.loads(pickle.dumps(caught.value))) == said


def test_a_damaged_description_is_said_with_its_cause(folder):  # noqa: F811
    store(folder, "pictures", {"train": labelled(0, 60)})
    (folder / "pictures/1.0.0/dataset_info.json").write_text("{ no json")
    for function in (loading.check, lambda name: loading.load(name, seed=0)):
        with pytest.raises(tfds.Damaged, match=r"pictures is damaged in .*[Pp]arse"):
            function("pictures")


@pytest.mark.parametrize(
    ("dtype", "low", "high", "channels"),
    [(np.uint16, 300, 40_000, 1), (np.uint16, 0, 65_535, 3), (np.float32, -1.5, 2.25, 1)],
)
@pytest.mark.parametrize("vary", [False, True])
def test_images_that_are_no_bytes_are_read_as_they_are(dtype, low, high, channels, vary, folder):  # noqa: F811
    import tensorflow_datasets as tfds

    def picture(k):
        side = 64 + 16 * (k % 2) * vary
        halves = np.full((side, side, channels), low, dtype)
        halves[:, side // 2 :] = high
        return {"image": halves, "label": k % 3}

    shape = (None, None, channels) if vary else (64, 64, channels)
    image = tfds.features.Image(shape=shape, dtype=dtype)
    examples = [(k, picture(k)) for k in range(30)]
    store(folder, "deep", {"train": examples}, image=image)
    loaded = loading.load("deep", seed=0)
    x = loaded.train.x * np.float32(loaded.std) + np.float32(loaded.mean)
    exact = {"rtol": 1e-5, "atol": 1e-2}
    np.testing.assert_allclose(x[:, 30, 5], low, **exact)
    np.testing.assert_allclose(x[:, 30, 60], high, **exact)


def test_squares_keep_their_type_and_its_range():
    steps = np.zeros((40, 60, 2), np.int32)
    steps[:, 30:] = np.iinfo(np.int32).max, np.iinfo(np.int32).min
    square = decoding.square(steps, 20)  # the cubic filter goes beyond what it is given
    assert square.dtype == np.int32
    assert square[5, 15].tolist() == [2**31 - 1, -(2**31)]
    assert square[..., 0].min() >= -(2**29)
    ramp = np.linspace(-1, 1, 400, dtype="float64").reshape(20, 20, 1)
    np.testing.assert_allclose(decoding.square(ramp, 20), ramp, atol=1e-6)
    # A mean of four where the filter is a box: a plane is resized to the plane.
    plane = np.add.outer(np.arange(40.0), np.arange(40.0))[..., None] * 1000
    smaller = decoding.square(plane, 20)[4:-4, 4:-4, 0]
    expected = plane.reshape(20, 2, 20, 2, 1).mean((1, 3))[4:-4, 4:-4, 0]
    np.testing.assert_allclose(smaller, expected, rtol=1e-5)


def test_bytes_are_resized_as_they_always_were():
    from PIL import Image

    image = np.random.default_rng(0).integers(0, 256, (50, 50, 3)).astype(np.uint8)
    expected = Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decoding.square(image), np.asarray(expected))

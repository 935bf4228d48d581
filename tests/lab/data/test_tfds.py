"""TFDS data sets: tiny ones made here, the real ones where they are prepared, and no network."""

import importlib.util
import itertools
import os
import pickle
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lab.data import decoding, loading, tfds

SHARED = Path(__file__).resolve().parents[3] / "shared" / "tfds"
PREPARED = Path(os.environ.get("TFDS_DATA_DIR", SHARED))

# name: shape, classes, (train, validation, test)
REAL = {
    "mnist": ((28, 28, 1), 10, (55_000, 5000, 10_000)),
    "cifar10": ((32, 32, 3), 10, (45_000, 5000, 10_000)),
    "cifar100": ((32, 32, 3), 100, (45_000, 5000, 10_000)),
    "tf_flowers": ((64, 64, 3), 5, (2202, 734, 734)),
    "pneumonia_mnist": ((28, 28, 1), 2, (4708, 524, 624)),
    "medical_mnist": ((64, 64, 1), 6, (2160, 240, 600)),
}


def image_of(k, height=8, width=8, channels=1):
    """An image that can be told from any other by its first pixels."""
    image = np.random.default_rng(k).integers(0, 256, (height, width, channels)).astype(np.uint8)
    image[0, :2, 0] = divmod(k, 256)
    return image


def labelled(start, n, classes=3, **shape):
    return [
        (k, {"image": image_of(k, **shape), "label": k % classes}) for k in range(start, start + n)
    ]


def store(folder, name, splits, *, shape=(8, 8, 1), version="1.0.0", **features):
    """Prepares a data set as `tfds build` would, the files in the order of the examples."""
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=shape),
        "label": tfds.features.ClassLabel(num_classes=3),
    } | features
    tfds.disable_progress_bar()
    tfds.dataset_builders.store_as_tfds_dataset(
        name,
        version=version,
        features=tfds.features.FeaturesDict(
            {key: feature for key, feature in features.items() if feature is not None}
        ),
        split_datasets=splits,
        data_dir=str(folder),
        disable_shuffling=True,
    )


@pytest.fixture
def no_network(monkeypatch):
    """Every attempt to connect or to look up a name fails the test."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"a connection was attempted: {args}")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.fixture
def folder(monkeypatch, tmp_path, no_network):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    yield tmp_path
    decoding._decode.cache_clear()


def identities(split, loaded):
    """The numbers of `image_of` that the examples were made from."""
    x = np.rint(split.x * np.float32(loaded.std) + np.float32(loaded.mean)).astype(int)
    return (x[:, 0, 0, 0] * 256 + x[:, 0, 1, 0]).tolist()


# What is not there


@pytest.mark.parametrize("name", ["mnist", "cifar10", "tf_flowers"])
@pytest.mark.parametrize("function", [loading.check, lambda name: loading.load(name, 0)])
def test_not_prepared_is_said_at_once_with_the_command(function, name, folder, monkeypatch):
    """TFDS by itself retries for 204 seconds (trap 18)."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "builder", None)
    monkeypatch.setattr(tfds, "load", None)
    start = time.monotonic()
    with pytest.raises(loading.NotPrepared) as caught:
        function(name)
    assert time.monotonic() - start < 100  # TFDS itself would retry for 204 s
    message = str(caught.value)
    assert f"`make data DATA={name}`" in message
    assert f"{folder} (TFDS_DATA_DIR)" in message
    assert "\n" not in message


def test_without_tfds_data_dir_the_usual_folder_is_looked_at(monkeypatch, tmp_path, no_network):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(loading.NotPrepared) as caught:
        loading.check("mnist")
    assert f"{tmp_path}/tensorflow_datasets (TFDS_DATA_DIR is not set)" in str(caught.value)


def test_not_prepared_crosses_a_process_boundary_as_it_is():
    error = loading.NotPrepared("mnist", "here")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    "function", [loading.check, loading.prepare, lambda name: loading.load(name, 0)]
)
@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("cifar_10", "cifar10"), ("MNIST", "mnist"), ("digist", "digits"), ("mnist_1d", "mnist1d")],
)
def test_unknown_names_come_with_the_nearest(function, wrong, meant, folder):
    with pytest.raises(loading.UnknownData, match=f"{wrong!r}.* Did you mean .*{meant}"):
        function(wrong)


def test_the_list_of_names_is_that_of_the_pinned_version_and_needs_no_import():
    import tensorflow_datasets

    assert sorted(tensorflow_datasets.list_builders(with_community_datasets=False)) == tfds._known()
    code = (
        "import sys\n"
        "from lab.data import tfds\n"
        "print(tfds._known()[:1], 'tensorflow_datasets' in sys.modules)"
    )
    root = Path(tfds.__file__).parents[2]
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True)
    assert printed.strip() == "['abstract_reasoning'] False"


def test_names_of_another_version_are_asked_of_tfds(monkeypatch):
    expected = tfds._known()
    monkeypatch.setattr(tfds, "version", lambda package: "0.0.0")
    assert sorted(tfds._known()) == expected


@pytest.mark.parametrize(
    "name", ["", "..", "../mnist", "mnist/3.0.1", "/etc", "a b", "*", "x" * 500, "ä" * 90]
)
def test_names_do_not_lead_out_of_the_folder(name, folder):
    store(folder / "mnist", "toy", {"train": labelled(0, 10)})
    assert not loading.known(name)
    with pytest.raises(loading.UnknownData):
        loading.check(name)


def test_an_interrupted_preparation_is_not_prepared(folder):
    (folder / "mnist" / "incomplete.ABCDEF_3.0.1").mkdir(parents=True)
    (folder / "mnist" / "incomplete.ABCDEF_3.0.1" / "dataset_info.json").write_text("{}")
    assert not loading.known("mnist")
    with pytest.raises(loading.NotPrepared):
        loading.check("mnist")


def test_names_and_known(folder):
    assert loading.names() == [*loading.EMBEDDED]
    store(folder, "toy", {"train": labelled(0, 10)})
    (folder / "downloads").mkdir(exist_ok=True)
    assert loading.names() == [*loading.EMBEDDED, "toy"]
    assert loading.known("toy") and loading.known("digits") and not loading.known("downloads")


def test_names_without_a_folder(folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder / "nothing"))
    assert loading.names() == [*loading.EMBEDDED]


# Data sets made here


def test_what_tfds_needs_to_prepare_and_does_not_ask_for_is_installed():
    """TFDS 4.9.10 imports it in `download_and_prepare` and requires it on Python 3.8 alone."""
    assert importlib.util.find_spec("importlib_resources")


def test_official_splits(folder):
    import tensorflow_datasets as tfds

    def examples(start, n):
        return [(k, e | {"coarse": k % 2, "id": str(k)}) for k, e in labelled(start, n)]

    store(
        folder,
        "toy",
        {"test": examples(500, 60), "val": examples(400, 30), "train": examples(0, 90)},
        coarse=tfds.features.ClassLabel(num_classes=2),
        id=tfds.features.Text(),
    )
    loading.check("toy")
    loaded = loading.load("toy", 0)
    assert (loaded.shape, loaded.classes, loaded.name) == ((8, 8, 1), 3, "toy")
    for part, expected in (
        ("train", range(90)),
        ("validation", range(400, 430)),
        ("test", range(500, 560)),
    ):
        split = getattr(loaded, part)
        found = identities(split, loaded)
        assert sorted(found) == list(expected)
        assert found != list(expected)
        assert split.y.tolist() == [k % 3 for k in found]
    assert set(identities(loaded.probe, loaded)) == set(range(90))

    small = loading.load("toy", 1, train_size=9, validation_size=6, test_size=12)
    for part, size in (("train", 3), ("validation", 2), ("test", 4)):
        assert np.bincount(getattr(small, part).y).tolist() == [size] * 3
    with pytest.raises(
        ValueError, match=r"`test_size` can be at most 60, .*Received: test_size=61"
    ):
        loading.load("toy", 0, test_size=61)


def test_validation_is_carved_where_there_is_none(folder):
    store(folder, "toy", {"train": labelled(0, 120), "test": labelled(500, 30)})
    loaded = loading.load("toy", 0)
    assert (len(loaded.train.y), len(loaded.validation.y), len(loaded.test.y)) == (108, 12, 30)
    found = identities(loaded.train, loaded) + identities(loaded.validation, loaded)
    assert sorted(found) == list(range(120))
    with pytest.raises(ValueError, match=r"at most 108, .* after test and validation"):
        loading.load("toy", 0, train_size=109)


def test_an_official_validation_split_is_the_test_set_where_there_is_no_other(folder):
    store(folder, "toy", {"train": labelled(0, 120), "validation": labelled(500, 30)})
    loaded = loading.load("toy", 0)
    assert sorted(identities(loaded.test, loaded)) == list(range(500, 530))
    assert len(loaded.validation.y) == 12


def test_a_test_split_without_labels_does_not_count(folder):
    withheld = [(k, example | {"label": -1}) for k, example in labelled(900, 20)]
    splits = {"train": labelled(0, 120), "validation": labelled(500, 30), "test": withheld}
    store(folder, "toy", splits)
    loaded = loading.load("toy", 0)
    assert sorted(identities(loaded.test, loaded)) == list(range(500, 530))


def test_a_single_split_is_divided_60_20_20_by_the_seed(folder):
    store(folder, "toy", {"train": labelled(0, 150)})
    found = []
    for seed in (0, 1):
        loaded = loading.load("toy", seed)
        found.append(
            [identities(s, loaded) for s in (loaded.train, loaded.validation, loaded.test)]
        )
        assert [len(part) for part in found[-1]] == [90, 30, 30]
        assert sorted(itertools.chain(*found[-1])) == list(range(150))
        assert np.bincount(loaded.test.y).tolist() == [10, 10, 10]
    assert set(found[0][2]) != set(found[1][2])


def test_images_of_varying_size_become_squares(folder):
    from PIL import Image

    sizes = [(64 + 7 * k, 200 - 3 * k) for k in range(15)] + [(20, 30)] * 15
    images = [image_of(k, *size, channels=3) for k, size in enumerate(sizes)]
    examples = [(k, {"image": image, "label": k % 3}) for k, image in enumerate(images)]
    store(folder, "toy", {"train": examples}, shape=(None, None, 3))
    pools = decoding.decode("toy")
    assert pools.train.x.shape == (30, 64, 64, 3)
    assert pools.train.x.dtype == np.uint8
    for image, found in zip(images, pools.train.x, strict=True):
        height, width = image.shape[:2]
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        expected = Image.fromarray(image).resize(
            (64, 64), Image.Resampling.BICUBIC, (left, top, left + side, top + side)
        )
        np.testing.assert_array_equal(found, expected)
    assert loading.load("toy", 0).shape == (64, 64, 3)


def test_resizing_is_antialiased():
    """A fine checkerboard becomes grey; taking every fourth pixel would keep it black or white."""
    board = np.indices((256, 256)).sum(0) % 2 * 255
    small = decoding.square(board.astype(np.uint8)[..., None])
    assert np.abs(small.astype(int) - 127).max() < 16


def test_the_highest_version_is_read(folder):
    """As numbers: as text, 1.9.0 would come after 1.10.0."""
    for version, start in (("1.9.0", 0), ("1.10.0", 1000), ("1.2.0", 2000)):
        store(folder, "toy", {"train": labelled(start, 30)}, version=version)
    loaded = loading.load("toy", 0)
    assert min(identities(loaded.train, loaded)) >= 1000
    assert tfds.find("toy").name == "1.10.0"


def test_configurations(folder):
    """One is read as it is; of several the one that TFDS takes without being told."""
    store(folder, "toy", {"train": labelled(0, 30)})
    home = folder / "imagenet_resized"
    shutil.copytree(folder / "toy" / "1.0.0", home / "16x16" / "0.1.0")
    assert tfds.find("imagenet_resized") == home / "16x16" / "0.1.0"
    assert len(loading.load("imagenet_resized", 0).train.y) == 18
    shutil.copytree(home / "16x16", home / "8x8")
    assert tfds.find("imagenet_resized") == home / "8x8" / "0.1.0"

    for config in ("one", "two"):
        shutil.copytree(folder / "toy" / "1.0.0", folder / "stranger" / config / "1.0.0")
    with pytest.raises(loading.UnknownData, match="stranger"):
        loading.check("stranger")


@pytest.mark.parametrize("function", [loading.check, lambda name: loading.load(name, 0)])
def test_what_is_no_image_classification_is_refused(function, folder):
    import tensorflow_datasets as tfds

    text = [(k, {"text": str(k), "label": k % 3}) for k in range(9)]
    store(folder, "reviews", {"train": text}, image=None, text=tfds.features.Text())
    with pytest.raises(loading.NotImageClassification, match="no features of kind Image"):
        function("reviews")

    pairs = [(k, {"left": image_of(k), "right": image_of(k), "label": 0}) for k in range(9)]
    image = tfds.features.Image(shape=(8, 8, 1))
    store(folder, "pairs", {"train": pairs}, image=None, left=image, right=image)
    with pytest.raises(loading.NotImageClassification, match="2 features of kind Image"):
        function("pairs")

    store(folder, "bare", {"train": [(0, {"image": image_of(0)})]}, label=None)
    with pytest.raises(loading.NotImageClassification, match="no features of kind ClassLabel"):
        function("bare")

    store(folder, "later", {"test": labelled(0, 9)})
    with pytest.raises(loading.NotImageClassification, match="no split called train"):
        function("later")


def test_the_only_image_and_class_need_no_usual_name(folder):
    import tensorflow_datasets as tfds

    examples = [(k, {"x": image_of(k), "digit": k % 3}) for k in range(30)]
    store(
        folder,
        "toy",
        {"train": examples},
        image=None,
        label=None,
        x=tfds.features.Image(shape=(8, 8, 1)),
        digit=tfds.features.ClassLabel(num_classes=3),
    )
    assert len(loading.load("toy", 0).train.y) == 18


def test_decoding_happens_once_and_follows_the_folder(folder, tmp_path_factory, monkeypatch):
    store(folder, "toy", {"train": labelled(0, 30)})
    first = decoding.decode("toy")
    assert decoding.decode("toy").train.x is first.train.x
    assert first.train.x.dtype == np.uint8
    assert not first.train.x.flags.writeable
    assert not np.shares_memory(first.train.x, loading.load("toy", 0).train.x)

    elsewhere = tmp_path_factory.mktemp("elsewhere")
    store(elsewhere, "toy", {"train": labelled(100, 30)})
    monkeypatch.setenv("TFDS_DATA_DIR", str(elsewhere))
    assert not np.array_equal(decoding.decode("toy").train.x, first.train.x)


@pytest.mark.parametrize(("backend", "hidden"), [("jax", [([], "GPU")]), ("tensorflow", [])])
def test_tensorflow_leaves_the_gpu_to_the_backend(backend, hidden, folder, monkeypatch):
    import keras
    import tensorflow as tf

    calls = []
    monkeypatch.setattr(keras.config, "backend", lambda: backend)
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *args: calls.append(args))
    store(folder, "toy", {"train": labelled(0, 30)})
    loading.load("toy", 0)
    assert calls == hidden


# Preparing


class Downloader:
    """Stands for a TFDS builder of a data set on the network."""

    def __init__(self, features, download):
        self.info = type("Info", (), {"features": features})
        self.download_and_prepare = download


def features_of_images():
    import tensorflow_datasets as tfds

    return tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=3)}
    )


def test_prepare_downloads_what_is_missing_and_nothing_else(folder, monkeypatch):
    import tensorflow_datasets as tfds

    asked = []

    def builder(name, data_dir):
        asked.append((name, data_dir))
        return Downloader(
            features_of_images(), lambda: store(folder, name, {"train": labelled(0, 30)})
        )

    monkeypatch.setattr(tfds, "builder", builder)
    assert loading.prepare("kmnist") == folder / "kmnist" / "1.0.0"
    assert len(loading.load("kmnist", 0).train.y) == 18
    assert loading.prepare("kmnist") == folder / "kmnist" / "1.0.0"
    assert loading.prepare("digits") is None
    assert asked == [("kmnist", str(folder))]


@pytest.mark.parametrize("error", [ConnectionError("no route"), AssertionError("by hand: see ...")])
def test_prepare_says_what_failed(error, folder, monkeypatch):
    import tensorflow_datasets as tfds

    def fail():
        raise error

    monkeypatch.setattr(tfds, "builder", lambda *_, **__: Downloader(features_of_images(), fail))
    with pytest.raises(loading.DataError) as caught:
        loading.prepare("kmnist")
    for part in ("kmnist", str(folder), type(error).__name__, str(error)):
        assert part in str(caught.value)
    assert caught.value.__cause__ is error
    assert not loading.known("kmnist")


def test_prepare_downloads_nothing_that_could_not_be_used(folder):
    with pytest.raises(loading.NotImageClassification, match="glue"):
        loading.prepare("glue")


# Real data sets


@pytest.fixture
def prepared(request, monkeypatch, no_network):
    name = request.param
    monkeypatch.setenv("TFDS_DATA_DIR", str(PREPARED))
    if not loading.known(name):
        pytest.skip(f"{name} is not prepared in {PREPARED}")
    yield name
    decoding._decode.cache_clear()


@pytest.mark.parametrize("prepared", REAL, indirect=True)
def test_real_data_sets(prepared):
    import tensorflow_datasets as tfds

    shape, classes, (train, validation, test) = REAL[prepared]
    loading.check(prepared)
    with pytest.raises(ValueError, match=f"`train_size` can be at most {train},"):
        loading.load(prepared, 0, train_size=train + 1)
    with pytest.raises(ValueError, match="`test_size` can be at most"):
        loading.load(prepared, 0, test_size=10**6)
    loaded = loading.load(prepared, 0, train_size=1500)
    assert (loaded.shape, loaded.classes) == (shape, classes)
    assert (len(loaded.train.y), len(loaded.validation.y), len(loaded.test.y)) == (
        1500,
        validation,
        test,
    )
    assert loaded.probe.x.shape == (1500, *shape)
    assert set(loaded.train.y) == set(range(classes))
    assert loaded.train.x.std((0, 1, 2), np.float64) == pytest.approx(1, abs=1e-5)

    # As TFDS itself reads it, example by example.
    pool = decoding.decode(prepared).train
    plain = tfds.load(prepared, split="train[:20]", data_dir=str(PREPARED), download=False)
    for k, example in enumerate(tfds.as_numpy(plain)):
        assert pool.y[k] == example["label"]
        if prepared == "tf_flowers":
            assert min(example["image"].shape[:2]) == 64
        else:
            np.testing.assert_array_equal(pool.x[k], example["image"])

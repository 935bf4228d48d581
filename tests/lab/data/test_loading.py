"""Splits, subsets, order and scaling, on the data sets that need no files."""

import dataclasses
import hashlib
import importlib
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from lab.data import loading
from lab.data.embedded import digits, mnist1d
from lab.data.splits import Part, Sizes, Split, draw, moments, stratified

ROOT = Path(__file__).resolve().parents[3]
NAMES = ["digits", "mnist1d"]
PARTS = ("train", "validation", "test", "probe")

ELSEWHERE = """
import hashlib, json, random, sys, numpy as np
np.random.seed(5); random.seed(5)
from lab.data import loading
def digest(d):
    arrays = [a for part in ("train", "validation", "test", "probe") for a in getattr(d, part)]
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()
found = {n: digest(loading.load(n, 3, test_size=400)) for n in ("digits", "mnist1d")}
heavy = [m for m in ("tensorflow", "tensorflow_datasets", "keras", "jax", "torch")
         if m in sys.modules]
print(json.dumps([found, heavy]))
"""


def digest(loaded):
    arrays = [array for part in PARTS for array in getattr(loaded, part)]
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def raw(loaded, part):
    """What an example was before it was standardized."""
    return getattr(loaded, part).x * np.float32(loaded.std) + np.float32(loaded.mean)


@pytest.fixture(autouse=True)
def nothing_prepared(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "shape", "sizes"),
    [("digits", (8, 8, 1), (1000, 297, 500)), ("mnist1d", (40, 1), (2000, 1000, 4000))],
)
def test_defaults(name, shape, sizes):
    loaded = loading.load(name, 0)
    assert (loaded.name, loaded.shape, loaded.classes) == (name, shape, 10)
    assert (len(loaded.train.y), len(loaded.validation.y), len(loaded.test.y)) == sizes
    assert len(loaded.probe.y) == min(2048, sizes[0]) >= 1000
    for part in PARTS:
        x, y = getattr(loaded, part)
        assert x.shape == (len(y), *shape)
        assert (x.dtype, y.dtype) == (np.float32, np.int32)
        assert set(y) == set(range(10))


@pytest.mark.parametrize("name", NAMES)
def test_sizes_are_exact_and_stratified(name):
    loaded = loading.load(name, 4, train_size=123, validation_size=57, test_size=201, probe_size=31)
    for part, size in zip(PARTS, (123, 57, 201, 31), strict=True):
        y = getattr(loaded, part).y
        assert len(y) == size
        # digits is not quite balanced (174 to 183 of each class), hence a little more than one.
        assert np.abs(np.bincount(y, minlength=10) - size / 10).max() < 2


def test_digits_are_a_partition_of_the_data_set():
    loaded = loading.load("digits", 2)
    rows = [
        (round(float(y)), *np.rint(x).astype(int).ravel())
        for part in ("train", "validation", "test")
        for x, y in zip(raw(loaded, part), getattr(loaded, part).y, strict=True)
    ]
    x, y = load_digits(return_X_y=True)
    assert sorted(rows) == sorted((int(b), *a.astype(int)) for a, b in zip(x, y, strict=True))
    assert len(set(rows)) == 1797


@pytest.mark.parametrize("name", NAMES)
def test_parts_are_disjoint_and_the_probe_is_part_of_train(name):
    loaded = loading.load(name, 0)
    keys = {part: {x.tobytes() for x in getattr(loaded, part).x} for part in PARTS}
    for part in PARTS:
        assert len(keys[part]) == len(getattr(loaded, part).y)
    for a, b in itertools.combinations(("train", "validation", "test"), 2):
        assert not keys[a] & keys[b]
    assert keys["probe"] <= keys["train"]


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_draws_everything(name):
    first, again, other = loading.load(name, 0), loading.load(name, 0), loading.load(name, 1)
    assert digest(first) == digest(again) != digest(other)
    for part in PARTS:
        assert not np.array_equal(getattr(first, part).y, getattr(other, part).y)
        # In random order, not class by class: about nine neighbours in ten differ.
        assert np.mean(np.diff(getattr(first, part).y) != 0) > 0.8


def test_another_process_draws_the_same_and_imports_no_framework():
    result = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found, heavy = json.loads(result.stdout)
    assert found == {name: digest(loading.load(name, 3, test_size=400)) for name in NAMES}
    assert heavy == []


@pytest.mark.parametrize("name", NAMES)
def test_global_random_state_neither_matters_nor_changes(name):
    expected = digest(loading.load(name, 77))
    mnist1d_cache_cleared()
    np.random.seed(1)
    random.seed(1)
    before = np.random.get_state()[1].tolist(), np.random.get_state()[2], random.getstate()
    assert digest(loading.load(name, 77)) == expected
    after = np.random.get_state()[1].tolist(), np.random.get_state()[2], random.getstate()
    assert before == after


def mnist1d_cache_cleared():
    from lab.data import embedded

    embedded._signals.cache_clear()


def test_global_random_state_comes_back_after_an_error(monkeypatch):
    # The package hides its module behind the function of the same name.
    module = importlib.import_module("mnist1d.transform")

    def broken(*_):
        np.random.rand()
        raise ArithmeticError

    mnist1d_cache_cleared()
    monkeypatch.setattr(module, "transform", broken)
    before = np.random.get_state()[1].tolist(), np.random.get_state()[2]
    with pytest.raises(ArithmeticError):
        loading.load("mnist1d", 123)
    assert (np.random.get_state()[1].tolist(), np.random.get_state()[2]) == before


@pytest.mark.parametrize("name", NAMES)
def test_another_train_size_leaves_test_and_validation_alone(name):
    large, small = loading.load(name, 0, train_size=500), loading.load(name, 0, train_size=50)
    for part in ("test", "validation"):
        np.testing.assert_array_equal(getattr(large, part).y, getattr(small, part).y)
        np.testing.assert_allclose(raw(large, part), raw(small, part), atol=1e-5)


def test_mnist1d_is_what_the_package_makes():
    """Against `mnist1d.make_dataset`: the same mean and spread of each class at each position."""
    import mnist1d.data

    settings = mnist1d.data.get_dataset_args()
    settings.num_samples, settings.train_split = 6000, 1.0
    state = random.getstate(), np.random.get_state()
    theirs = mnist1d.data.make_dataset(settings)
    random.setstate(state[0])
    np.random.set_state(state[1])
    ours = loading.load("mnist1d", 0, train_size=6000).train
    for k in range(10):
        a, b = theirs["x"][theirs["y"] == k], ours.x[ours.y == k, :, 0]
        error = np.sqrt((a.var(0) + b.var(0)) / 600)
        assert np.abs((a.mean(0) - b.mean(0)) / error).max() < 5
        np.testing.assert_allclose(a.std(0), b.std(0), rtol=0.35)


def test_a_smaller_mnist1d_is_the_beginning_of_a_larger_one():
    small, large = mnist1d(0, Sizes(10, 10, 20)), mnist1d(0, Sizes(10, 10, 30))
    np.testing.assert_array_equal(small.train.x, large.train.x[:20])
    assert not np.array_equal(small.train.x[:10], small.test.x)


@pytest.mark.parametrize("name", NAMES)
def test_scaling_comes_from_train_alone(name):
    loaded = loading.load(name, 0)
    assert abs(loaded.train.x.mean()) < 1e-5
    assert loaded.train.x.std() == pytest.approx(1, abs=1e-5)
    assert abs(loaded.test.x.mean()) > 1e-5  # scaled by its own mean it would be nearer


def test_scaling_is_per_channel_and_survives_a_constant_one():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2500, 3, 5, 3)).astype(np.uint8)  # several blocks
    x[..., 1] = 7
    rows = rng.permutation(2500)[:2100]
    mean, std = moments(Part(Split(x, np.zeros(2500)), rows))
    np.testing.assert_allclose(mean, x[rows].mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std[[0, 2]], x[rows].std((0, 1, 2))[[0, 2]], rtol=1e-12)
    assert std[1] == 1


@pytest.mark.parametrize("name", NAMES)
def test_arrays_are_read_only_and_so_is_the_rest(name):
    loaded = loading.load(name, 0)
    for array in [array for part in PARTS for array in getattr(loaded, part)]:
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.train = loaded.validation
    with pytest.raises(AttributeError):
        loaded.test = loaded.validation


def test_what_a_trial_does_to_its_data_does_not_reach_the_next():
    """Arrays that are cached between calls must not be handed out for writing."""
    first = loading.load("digits", 0)
    assert not np.shares_memory(first.train.x, loading.load("digits", 0).train.x)
    assert not np.shares_memory(digits(0, Sizes()).train.x, first.train.x)


def test_reading_test_data_is_remembered():
    loaded = loading.load("digits", 0)
    repr(loaded)
    _ = loaded.train, loaded.validation, loaded.probe
    sizes = loaded.sizes
    assert not loaded.test_was_read
    assert sizes == {"train": 1000, "validation": 297, "test": len(loaded.test.y)}
    assert loaded.test_was_read
    assert not loading.load("digits", 0).test_was_read


@pytest.mark.parametrize("which", ["train_size", "test_size", "validation_size", "probe_size"])
@pytest.mark.parametrize("size", [0, -1])
@pytest.mark.parametrize("name", NAMES)
def test_sizes_must_be_positive(name, which, size):
    with pytest.raises(ValueError, match=f"Received: {which}={size}"):
        loading.load(name, 0, **{which: size})


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({"train_size": 1001}, 1000),
        ({"test_size": 1798}, 1797),
        ({"validation_size": 1298}, 1297),
        ({"train_size": 100, "probe_size": 101}, 100),
    ],
)
def test_no_more_than_there_is(asked, most):
    which, size = list(asked.items())[-1]
    with pytest.raises(
        ValueError, match=f"`{which}` can be at most {most},.*Received: {which}={size}"
    ):
        loading.load("digits", 0, **asked)


def test_nothing_left_to_train_on():
    with pytest.raises(ValueError, match=r"at most 0, .* after test and validation"):
        loading.load("digits", 0, test_size=1500)


def test_all_sizes_may_be_numpy_integers_but_not_fractions():
    assert len(loading.load("digits", np.int64(0), train_size=np.int64(50)).train.y) == 50
    with pytest.raises(TypeError):
        loading.load("digits", 0, train_size=0.5)


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError):
        loading.load("digits", -1)


@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_stratified_draws_exactly_and_within_one_of_the_proportions(counts, share, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    index = np.arange(len(labels)) * 2 + 1  # candidates are positions, not 0 to n - 1
    spread = np.zeros(2 * len(labels), int)
    spread[index] = labels
    size = max(1, round(share * len(labels)))
    chosen = stratified(spread, index, size, np.random.default_rng(seed))
    assert len(set(chosen.tolist())) == size
    assert set(chosen.tolist()) <= set(index.tolist())
    taken = np.bincount(spread[chosen], minlength=len(counts))
    assert np.abs(taken - np.array(counts) * size / len(labels)).max() < 1


def test_rounding_favours_no_class():
    labels = np.repeat([0, 1, 2], 10)
    taken = [
        np.bincount(
            labels[stratified(labels, np.arange(30), 1, np.random.default_rng(seed))], minlength=3
        )
        for seed in range(300)
    ]
    assert np.sum(taken, axis=0).min() > 70


def test_rows_of_the_parts_are_disjoint():
    parts = draw(digits(0, Sizes()), Sizes(), 500, seed=0)
    rows = [set(parts[name].rows.tolist()) for name in ("test", "validation", "train")]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 1797
    assert set(parts["probe"].rows.tolist()) <= rows[2]

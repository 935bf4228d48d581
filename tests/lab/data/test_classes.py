"""Some classes of a data set, and pieces of photographs: sources and targets of a transfer."""

import numpy as np
import pytest

from lab.data import loading
from lab.data.photographs import BLOCK, _photographs, _regions


@pytest.mark.parametrize("name", ["digits", "mnist1d"])
def test_classes_are_kept_and_counted_anew(name):
    sizes = {"train_size": 50, "validation_size": 40, "test_size": 100}
    kept = loading.load(name, 1, classes=[7, 5, 9, 6, 8], **sizes)
    assert kept.classes == 5
    for part, size in (("train", 50), ("validation", 40), ("test", 100)):
        split = getattr(kept, part)
        assert len(split.y) == size and set(split.y) == set(range(5))


def test_the_labels_belong_to_their_examples():
    kept = loading.load("digits", 0, classes=[7, 5])
    every = loading.load("digits", 0)
    raw = {}
    for d, names in ((every, range(10)), (kept, [7, 5])):
        for x, y in zip(d.train.x, d.train.y, strict=True):
            raw[(x * d.std[0] + d.mean[0]).round().tobytes(), d is kept] = names[y]
    both = [(raw[key], raw[key[0], False]) for key in raw if key[1] and (key[0], False) in raw]
    assert len(both) > 50
    assert all(a == b for a, b in both)


def test_two_halves_share_no_example():
    halves = [loading.load("digits", 0, classes=part) for part in (range(5), range(5, 10))]
    sizes = [len(h.train.y) + len(h.validation.y) + len(h.test.y) for h in halves]
    assert sum(sizes) == 1797
    assert len(halves[0].test.y) == pytest.approx(250, abs=3)


@pytest.mark.parametrize("classes", [[], [0, 0], [10], [-1, 2]])
def test_nonsense_classes_are_refused(classes):
    with pytest.raises(ValueError, match="classes"):
        loading.load("digits", 0, classes=classes)


def test_a_class_missing_from_the_small_subset_is_an_error_not_a_surprise():
    with pytest.raises(ValueError, match=r"every one of 5 classes.*train_size=4"):
        loading.load("digits", 0, classes=range(5), train_size=4)
    assert len(loading.load("digits", 0, classes=range(5), train_size=5).train.y) == 5


@pytest.mark.parametrize(("name", "shape"), [("photo_patches", (8, 8, 1)), ("photo_rows", (40, 1))])
def test_pieces_of_photographs(name, shape):
    loaded = loading.load(name, 3, train_size=60, validation_size=40, test_size=100)
    assert (loaded.shape, loaded.classes) == (shape, 2)
    assert [len(p.y) for p in (loaded.train, loaded.validation, loaded.test)] == [60, 40, 100]
    assert loaded.train.y.mean() == 0.5
    again = loading.load(name, 3, train_size=60, validation_size=40, test_size=100)
    np.testing.assert_array_equal(loaded.train.x, again.train.x)
    assert (loading.load(name, 4, train_size=60).train.x != loaded.train.x).any()


@pytest.mark.parametrize("seed", range(3))
def test_no_pixel_serves_two_parts(seed):
    for photograph, parts in zip(_photographs(), _regions(seed), strict=True):
        used = np.zeros(photograph.shape, int)
        for corners in parts:
            assert len(corners) >= 4
            for row, column in corners:
                used[row : row + BLOCK[0], column : column + BLOCK[1]] += 1
        assert used.max() == 1


def test_the_two_photographs_can_be_told_apart_but_not_always():
    from sklearn.ensemble import RandomForestClassifier

    loaded = loading.load("photo_patches", 0, train_size=1000, test_size=1000)
    flat = [split.x.reshape(len(split.x), -1) for split in (loaded.train, loaded.test)]
    forest = RandomForestClassifier(50, random_state=0).fit(flat[0], loaded.train.y)
    assert 0.6 < forest.score(flat[1], loaded.test.y) < 0.97

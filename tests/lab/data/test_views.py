"""The same examples seen otherwise: in another shape, or as features; and who has read the test."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.data import loading
from lab.data.splits import Split, in_shape, viewed

PARTS = ("train", "validation", "probe", "test")


def load(**sizes):
    sizes = {"train_size": 30, "validation_size": 20, "test_size": 25, "probe_size": 10} | sizes
    return loading.load("digits", 0, **sizes)


def naively_in_shape(x, shape):
    """Number by number."""
    result = np.empty((len(x), *shape))
    for at in itertools.product(*map(range, result.shape)):
        n, *positions, channel = at
        source = [
            i * old // new for i, old, new in zip(positions, x.shape[1:], shape, strict=False)
        ]
        pixel = x[(n, *source)]
        result[at] = pixel[channel] if len(pixel) == shape[-1] else pixel.mean()
    return result


@given(
    st.integers(1, 2).flatmap(
        lambda axes: st.tuples(*[st.tuples(*[st.integers(1, 5)] * (axes + 1))] * 2)
    )
)
def test_another_shape_is_the_nearest_positions(shapes):
    old, new = shapes
    x = np.random.default_rng(0).normal(size=(2, *old))
    np.testing.assert_allclose(in_shape(x, new), naively_in_shape(x, new), rtol=1e-12, atol=1e-15)


def test_images_of_another_shape():
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    assert in_shape(x, (4, 4, 1)) is x
    smaller = in_shape(x, (2, 2, 3))
    assert smaller.shape == (1, 2, 2, 3)
    assert smaller[0, :, :, 0].tolist() == smaller[0, :, :, 2].tolist() == [[0, 2], [8, 10]]
    larger = in_shape(np.stack([x[..., 0], x[..., 0] + 2], -1), (8, 8, 1))
    assert larger[0, :2, :4, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


@pytest.mark.parametrize("shape", [(40, 1), (8, 8), (2, 4, 8, 1)])
def test_a_shape_of_other_axes_is_refused(shape):
    with pytest.raises(ValueError, match=r"3 axes as \(8, 8, 1\)"):
        load().in_shape(shape)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_seen_in_the_shape_and_keeps_its_labels(part):
    data = load()
    seen = data.in_shape((4, 4, 3))
    x, y = getattr(seen, part)
    np.testing.assert_array_equal(x, in_shape(getattr(data, part).x, (4, 4, 3)))
    np.testing.assert_array_equal(y, getattr(data, part).y)
    assert seen.shape == x.shape[1:] == (4, 4, 3) and x.dtype == np.float32
    assert (seen.name, seen.classes) == ("digits", 10)
    with pytest.raises(ValueError, match="read-only"):
        x[0] = 0


def test_the_data_itself_stays_as_it_is():
    data = load()
    before = data.train.x.copy()
    data.in_shape((4, 4, 1)).through(lambda x: -x)
    assert data.shape == (8, 8, 1)
    np.testing.assert_array_equal(data.train.x, before)


def test_views_of_views_come_one_after_the_other():
    data = load()
    seen = data.through(lambda x: x + 1).through(lambda x: 2 * x)
    for part in PARTS:
        np.testing.assert_array_equal(getattr(seen, part).x, 2 * (getattr(data, part).x + 1))


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("shape", [(8, 8, 1), (4, 4, 1)])
def test_reading_test_data_of_a_view_is_remembered_by_the_data(shape, views):
    """A trial looks at what it has loaded; also where the shape is the same."""
    data = seen = load()
    for _ in range(views):
        seen = seen.in_shape(shape)
    _ = seen.train, seen.validation, seen.probe, repr(seen)
    assert not data.test_was_read and not seen.test_was_read
    _ = seen.test
    assert data.test_was_read and seen.test_was_read
    assert not load().test_was_read


def test_a_view_knows_that_the_data_s_test_was_read():
    data = load()
    before, _, after = data.in_shape((4, 4, 1)), data.test, data.in_shape((2, 2, 1))
    assert before.test_was_read and after.test_was_read


def test_a_view_is_not_given_the_test_data_before_they_are_read():
    data, given_to = load(), []

    def view(x):
        given_to.append(len(x))
        return x

    seen = data.through(view)
    assert sorted(given_to) == [10, 20, 30]
    _ = seen.test
    assert given_to[-1] == 25


def test_a_view_shows_as_many_examples_as_there_are():
    with pytest.raises(ValueError, match=r"as it is given, 30\. Received: 29"):
        load().through(lambda x: x[1:])
    split = Split(np.zeros((2, 1)), np.zeros(2))
    assert viewed(split, lambda x: [[1.0], [2.0]]).x.tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize("size", [1, 30, 31, 100])
def test_examples_are_repeated_in_their_order(size):
    split = load().train
    x, y = split.repeated(size)
    assert len(x) == len(y) == size
    for i in range(size):
        np.testing.assert_array_equal(x[i], split.x[i % 30])
        assert y[i] == split.y[i % 30]

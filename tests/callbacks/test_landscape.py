import keras
import numpy as np
import pytest

from callbacks import (
    along_line,
    along_random_directions,
    filter_normalized_direction,
    interpolate,
    recalibrate_batchnorm,
    weights_at,
    weights_of,
)

pytestmark = pytest.mark.both_backends


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, bias_initializer="ones"),
            keras.layers.BatchNormalization(),
            keras.layers.LayerNormalization(axis=[1, 2]),  # its gamma and beta are matrices
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )


def state(model):
    return [np.asarray(v).copy() for v in model.variables]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_every_filter_has_the_norm_of_its_weights(model):
    direction = filter_normalized_direction(model, seed=1)
    kernels = 0
    for variable, d in zip(model.trainable_variables, direction, strict=True):
        assert d.shape == tuple(variable.shape)
        assert d.dtype == variable.dtype
        if variable.name != "kernel":
            assert not d.any()
            continue
        kernels += 1
        for unit in range(d.shape[-1]):
            weights = np.asarray(variable)[..., unit]
            assert np.linalg.norm(d[..., unit]) == pytest.approx(np.linalg.norm(weights), rel=1e-5)
            assert not np.allclose(d[..., unit], weights)
    assert kernels == 2


def test_direction_depends_on_the_seed_and_scales_with_the_weights(model):
    first = filter_normalized_direction(model)
    assert same(first, filter_normalized_direction(model))
    assert not same(first, filter_normalized_direction(model, seed=1))
    kernel = model.layers[-1].kernel
    kernel.assign(np.asarray(kernel) * np.array([2.0, 1.0, 0.0]))
    scaled = filter_normalized_direction(model)[-2]
    np.testing.assert_allclose(scaled, first[-2] * np.array([2.0, 1.0, 0.0]), rtol=1e-6)


def test_interpolation():
    start, end = [np.zeros((2, 2)), np.ones(3)], [np.full((2, 2), 4.0), np.full(3, 5.0)]
    assert same(interpolate(start, end, 0.0), start)
    assert same(interpolate(start, end, 1), end)
    assert same(interpolate(start, end, np.float64(0.25)), [np.ones((2, 2)), np.full(3, 2.0)])
    assert same(interpolate(start, end, -1), [np.full((2, 2), -4.0), np.full(3, -3.0)])
    single = [np.ones(1, "float32")]
    assert interpolate(single, single, np.float64(0.5))[0].dtype == "float32"
    for other in (end[:1], [end[0], np.ones(4)]):
        with pytest.raises(ValueError, match=r"shapes of `start`.*Received: shapes="):
            interpolate(start, other, 0.5)


def test_weights_and_statistics_come_back(model):
    x = np.random.default_rng(0).normal(1, 1, (8, 6, 6, 2)).astype("float32")
    before, outputs = state(model), model.predict(x, verbose=0)
    other = [np.asarray(v) + 1 for v in model.trainable_variables]

    with weights_at(model, other) as visited:
        assert visited is model
        assert same(other, [np.asarray(v) for v in model.trainable_variables])
        recalibrate_batchnorm(model, x)
        model(x, training=True)  # moves the statistics and the seed of the dropout
        assert not np.array_equal(model.layers[1].moving_mean, np.zeros(4))
    assert same(before, state(model))
    np.testing.assert_array_equal(model.predict(x, verbose=0), outputs)

    with pytest.raises(RuntimeError, match="inside"), weights_at(model, other):
        raise RuntimeError("inside")
    assert same(before, state(model))


def test_training_inside_is_undone(model):
    model.compile("sgd", "mse")
    x, y = np.ones((8, 6, 6, 2)), np.ones((8, 3))
    model.fit(x, y, verbose=0)  # on JAX, the next training donates what these weights are stored in
    before = state(model)
    with weights_at(model, before[:0] + [np.asarray(v) for v in model.trainable_variables]):
        model.fit(x, y, verbose=0)
        assert not same(before, state(model))
    assert same(before, state(model))


def test_wrong_weights_leave_the_model_alone(model):
    before = state(model)
    weights = [np.zeros(v.shape) for v in model.trainable_variables]
    for wrong in (weights[:-1], [*weights[:-1], np.zeros(9)]):
        with (
            pytest.raises(ValueError, match=r"shapes of the trainable weights.*Received: shapes="),
            weights_at(model, wrong),
        ):
            pass
    assert same(before, state(model))


def test_kept_weights_do_not_follow_the_training(model):
    model.compile("sgd", "mse")
    x, y = np.ones((8, 6, 6, 2)), np.ones((8, 3))
    model.fit(x, y, verbose=0)  # on JAX, the next training donates what these weights are stored in
    kept, before = weights_of(model), state(model)
    assert [(a.shape, a.dtype.name) for a in kept] == [
        (tuple(v.shape), v.dtype) for v in model.trainable_variables
    ]
    model.fit(x, y, verbose=0)
    assert not same(kept, weights_of(model))
    with weights_at(model, kept):
        assert same(kept, weights_of(model))
    assert all(any(np.array_equal(a, b) for b in before) for a in kept)


def test_a_line_of_regressions_against_their_closed_form():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 3)), rng.standard_normal((20, 1))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False)])
    start, end = [rng.standard_normal((3, 1))], [rng.standard_normal((3, 1))]
    positions = (-1, 0, 0.25, 1, 2)

    def errors(model):
        error = np.asarray(model(x)) - y
        return {"mean square": np.mean(error**2), "largest": np.max(error)}

    curves = along_line(model, start, end, positions, errors)
    assert list(curves) == ["mean square", "largest"]
    at = [x @ (start[0] + t * (end[0] - start[0])) - y for t in positions]
    assert curves["mean square"] == pytest.approx([np.mean(e**2) for e in at], rel=1e-4)
    assert curves["largest"] == pytest.approx([np.max(e) for e in at], rel=1e-4)


def output_size(x):
    return lambda model: {"size": float(np.linalg.norm(np.asarray(model(x, training=False))))}


@pytest.fixture
def normalized():
    """A network with batch-norm statistics that belong to other weights, and data."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    return model, np.random.default_rng(0).normal(1, 2, (16, 4)).astype("float32")


def test_batch_norm_statistics_along_a_line_are_those_of_its_points(normalized):
    model, x = normalized
    positions, measure = (0, 0.5, 1), output_size(x)
    start, end = weights_of(model), [w + 1 for w in weights_of(model)]
    before, sizes = state(model), []
    for t in positions:
        for variable, a, b in zip(model.trainable_variables, start, end, strict=True):
            variable.assign((1 - t) * a + t * b)
        recalibrate_batchnorm(model, x)
        sizes.append(measure(model)["size"])
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    curves = along_line(model, start, end, positions, measure, recalibrate_on=x)
    assert curves["size"] == pytest.approx(sizes, rel=1e-5)
    assert same(before, state(model))
    stale = along_line(model, start, end, positions, measure)
    assert all(abs(a - b) > 0.1 * b for a, b in zip(stale["size"], sizes, strict=True))
    assert along_line(model, start, end, (), measure) == {}


def test_each_row_is_the_line_along_one_direction(normalized):
    model, x = normalized
    positions, measure, before = (0, 0.3), output_size(x), state(model)
    curves = along_random_directions(model, positions, measure, 3, seed=5, recalibrate_on=x)
    assert curves["size"].shape == (3, 2)
    for row, seed in zip(curves["size"], (5, 6, 7), strict=True):
        step = filter_normalized_direction(model, seed)
        for value, size in zip(row, positions, strict=True):
            moved = [w + size * d for w, d in zip(weights_of(model), step, strict=True)]
            with weights_at(model, moved):
                recalibrate_batchnorm(model, x)
                assert value == pytest.approx(measure(model)["size"], rel=1e-4)
    assert np.ptp(curves["size"][:, 0]) == 0 and np.ptp(curves["size"][:, 1]) > 0
    assert same(before, state(model))
    stale = along_random_directions(model, positions, measure, 3, seed=5)
    assert np.all(np.abs(stale["size"] - curves["size"]) > 0.1 * curves["size"])

import keras
import numpy as np
import pytest

from callbacks import (
    filter_normalized_direction,
    interpolate,
    recalibrate_batchnorm,
    weights_at,
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

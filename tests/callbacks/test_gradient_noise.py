import keras
import numpy as np
import pytest

from callbacks import GradientNoise, gradient_noise, gradient_variances

pytestmark = pytest.mark.both_backends

N, DIMENSIONS = 40, 3


@pytest.fixture(scope="module")
def regression():
    """A linear model, its data, and the gradients of single examples in closed form."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((N, DIMENSIONS)), rng.standard_normal((N, 1))
    model = keras.Sequential([keras.Input((DIMENSIONS,)), keras.layers.Dense(1)])
    w = rng.standard_normal((DIMENSIONS + 1, 1))
    model.layers[0].kernel.assign(w[:-1])
    model.layers[0].bias.assign(w[-1])
    model.compile("sgd", "mse")
    design = np.hstack([x, np.ones((N, 1))])
    return model, x, y, 2 * (design @ w - y) * design


@pytest.mark.parametrize(
    ("batch_size", "replace"), [(1, False), (8, False), (30, False), (8, True)]
)
def test_against_the_gradients_of_single_examples(regression, batch_size, replace):
    model, x, y, gradients = regression
    mean = gradients.mean(axis=0)
    covariance = np.mean(np.sum((gradients - mean) ** 2, axis=1))  # trace, divided by n
    correction = 1 if replace else (N - batch_size) / (N - 1)
    draws = 1000
    result = gradient_noise(model, x, y, batch_size, draws=draws, replace=replace)
    assert result.norm == pytest.approx(np.linalg.norm(mean), rel=1e-5)
    # Four standard errors of a mean of squares, whose spread is at most that of one normal
    # variable squared (batches of one example are heavier-tailed than that: measured, 1.7).
    error = (1.7 if batch_size == 1 else np.sqrt(2)) / np.sqrt(draws)
    assert result.variance == pytest.approx(covariance / batch_size * correction, rel=4 * error)
    assert result.noise_scale == pytest.approx(covariance / (mean @ mean), rel=4 * error)
    expected = result.variance * batch_size / correction / result.norm**2
    assert result.noise_scale == pytest.approx(expected, rel=1e-9)


def test_both_halves_of_two_examples(regression):
    model, x, y, gradients = regression
    a, b = gradients[:2]
    result = gradient_noise(model, x[:2], y[:2], batch_size=1, draws=7)
    assert result.variance == pytest.approx(np.sum((a - b) ** 2) / 4, rel=1e-5)
    assert result.noise_scale == pytest.approx(
        result.variance / np.sum(((a + b) / 2) ** 2), rel=1e-5
    )


def test_vanishing_gradient_is_all_noise(regression):
    x = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
    result = gradient_noise(linear_loss_model(), x, np.zeros((2, 1)), batch_size=1)
    assert result == (0, 1, np.inf)


def linear_loss_model():
    model = keras.Sequential([keras.Input((DIMENSIONS,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", lambda y, p: keras.ops.mean(p, axis=-1))
    return model


@pytest.mark.parametrize("replace", [False, True])
def test_variances_against_the_same_batches_in_closed_form(regression, replace):
    model, x, y, _ = regression
    many = 16
    x, y = np.tile(x, (many, 1)), np.tile(y, (many, 1))
    gradients = np.tile(regression[3], (many, 1))
    n, mean = many * N, gradients.mean(axis=0)
    sizes, variances = gradient_variances(model, x, y, seed=3, replace=replace)
    assert sizes == [1, 4, 16, 64, 256]
    for size, draws, variance in zip(sizes, (2560, 640, 160, 100, 100), variances, strict=True):
        rng = np.random.default_rng(3)
        batches = [rng.choice(n, size, replace=replace) for _ in range(draws)]
        squares = [np.sum((gradients[batch].mean(axis=0) - mean) ** 2) for batch in batches]
        assert variance == pytest.approx(np.mean(squares), rel=1e-4)


def test_the_full_batch_has_a_variance_only_with_replacement(regression):
    model, x, y, _ = regression
    assert gradient_variances(model, x[:16], y[:16])[0] == [1, 4]
    sizes, variances = gradient_variances(model, x[:16], y[:16], replace=True)
    assert sizes == [1, 4, 16] and min(variances) > 0
    assert gradient_variances(model, x[:15], y[:15], replace=True)[0] == [1, 4]


def test_callback_logs_what_the_function_returns(regression):
    model, x, y, _ = regression
    probe = GradientNoise(x, y, batch_size=8, every=2, draws=20, seed=3)
    history = model.fit(x, y, epochs=5, verbose=0, callbacks=[probe]).history
    assert probe.epochs == [1, 3, 4]
    keys = ["gradient/norm", "gradient/variance", "gradient/noise_scale"]
    direct = gradient_noise(model, x, y, 8, draws=20, seed=3)
    assert [history[key][-1] for key in keys] == pytest.approx(list(direct), rel=1e-5)
    assert [len(history[key]) for key in keys] == [3, 3, 3]
    assert probe.seconds > 0
    assert list(probe.measure()) == keys


def test_wrong_arguments(regression):
    model, x, y, _ = regression
    for batch_size in (0, N):
        with pytest.raises(ValueError, match=f"Received: batch_size={batch_size}, replace=False"):
            gradient_noise(model, x, y, batch_size)
    with pytest.raises(ValueError, match="Received: draws=0"):
        gradient_noise(model, x, y, 8, draws=0)

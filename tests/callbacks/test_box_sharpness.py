import keras
import numpy as np
import pytest

from callbacks import adaptive_sharpness, epsilon_sharpness, top_eigenvalues
from callbacks._surface import LossSurface
from callbacks.box_sharpness import _adaptive_sharpness, _epsilon_sharpness, _maximize_in_box
from callbacks.curvature import _top_eigenvalues

pytestmark = pytest.mark.both_backends

DIMENSIONS = 30
RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal(DIMENSIONS)
X = RNG.standard_normal((1, DIMENSIONS))


def linear(loss, weights=WEIGHTS):
    model = keras.Sequential([keras.Input((DIMENSIONS,)), keras.layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign(np.reshape(weights, (DIMENSIONS, 1)))
    model.compile("sgd", loss)
    return model


# In float32 a weight of 2 cannot move by 1e-3 more exactly than 1e-4 of that.
@pytest.mark.parametrize(("epsilon", "accuracy"), [(1e-3, 1e-3), (0.3, 1e-5)])
def test_corner_of_a_quadratic(epsilon, accuracy):
    # One example: (x.w - y)^2 is largest at the corner that moves x.w away from y.
    y, prediction = 0.5, (X @ WEIGHTS).item()
    model = linear("mse")
    loss = (prediction - y) ** 2
    reach = np.sum(np.abs(X) * epsilon * (np.abs(WEIGHTS) + 1))
    corner = (abs(prediction - y) + reach) ** 2
    found = epsilon_sharpness(model, X, np.array([[y]]), epsilon)
    assert found == pytest.approx(100 * (corner - loss) / (1 + loss), rel=accuracy)
    reach = np.sum(np.abs(X) * epsilon * np.abs(WEIGHTS))
    corner = (abs(prediction - y) + reach) ** 2
    found = adaptive_sharpness(model, X, np.array([[y]]), epsilon)
    assert found == pytest.approx(corner - loss, rel=accuracy)


def test_corner_of_a_linear_loss():
    model = linear(lambda y, p: keras.ops.mean(p, axis=-1))
    found = adaptive_sharpness(model, X, np.zeros((1, 1)), rho=0.1)
    assert found == pytest.approx(0.1 * np.sum(np.abs(X * WEIGHTS)), rel=1e-4)


def test_corner_around_an_exact_minimum():
    # The gradient vanishes, so nothing points to the corners; at w = 0 all of them are maxima.
    x = np.diag(np.linspace(1, 3, DIMENSIONS))
    model = linear("mse", np.zeros(DIMENSIONS))
    expected = 0.1**2 * np.mean(np.diag(x) ** 2)
    found = epsilon_sharpness(model, x, np.zeros((DIMENSIONS, 1)), epsilon=0.1)
    assert found == pytest.approx(100 * expected, rel=1e-4)


def test_flat_loss_has_sharpness_zero():
    model = linear("mse")
    x, y = np.zeros((1, DIMENSIONS)), np.ones((1, 1))
    assert epsilon_sharpness(model, x, y) == adaptive_sharpness(model, x, y) == 0


def test_increase_is_never_negative_and_the_best_point_seen_counts():
    calls = []

    class Bumpy:
        """Rises by 3 once, and is lower everywhere else."""

        size, start = 2, np.zeros(2)

        def value_and_gradient(self, w):
            calls.append(w)
            return [5.0, 8.0, *[1.0] * 100][len(calls) - 1], np.array([1.0, -2.0])

    assert _maximize_in_box(Bumpy(), np.ones(2), 10)[:2] == (5.0, 3.0)
    calls[:] = [None, None]
    assert _maximize_in_box(Bumpy(), np.ones(2), 10)[:2] == (1.0, 0.0)


@pytest.fixture(scope="module")
def relu():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 5)).astype("float32")
    y = (x[:, 0] * x[:, 1] > 0).astype("int32") + (x[:, 2] > 0)
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss)
    model.fit(x, y, epochs=15, verbose=0)
    return model, x, y


def test_rescaling_a_relu_network_moves_the_eigenvalue_and_not_adaptive_sharpness(relu):
    model, x, y = relu
    surface = LossSurface(model, x, y)

    def measure():
        w = surface.start
        return (
            surface.value(w),
            _top_eigenvalues(surface, 1)[0],
            _epsilon_sharpness(surface, 1e-3),
            _adaptive_sharpness(surface, 2e-3),
        )

    loss, eigenvalue, epsilon, adaptive = measure()
    first, second = model.layers
    before = [np.asarray(v).copy() for v in (first.kernel, first.bias, second.kernel)]
    try:
        for v, value, factor in zip(
            (first.kernel, first.bias, second.kernel), before, (10, 10, 0.1), strict=True
        ):
            v.assign(factor * value)
        rescaled = measure()
    finally:
        for v, value in zip((first.kernel, first.bias, second.kernel), before, strict=True):
            v.assign(value)
    assert rescaled[0] == pytest.approx(loss, rel=1e-5)  # the same function
    assert rescaled[1] > 10 * eigenvalue
    assert rescaled[2] != pytest.approx(epsilon, rel=0.5)
    assert rescaled[3] == pytest.approx(adaptive, rel=1e-3)


@pytest.mark.parametrize("rho", [5e-4, 2e-3, 0.05])
def test_maximum_is_as_good_as_a_long_sign_ascent(relu, rho):
    model, x, y = relu
    surface = LossSurface(model, x, y)
    w = surface.start
    radius, u, best = rho * np.abs(w), np.zeros(w.size), 0.0
    for step in 0.5 * 0.97 ** np.arange(150):
        loss, gradient = surface.value_and_gradient(w + radius * u)
        best = max(best, loss)
        u = np.clip(u + step * np.sign(radius * gradient), -1, 1)
    assert _adaptive_sharpness(surface, rho) > 0.99 * (best - surface.value(w))


def test_out_of_range_arguments():
    model = linear("mse")
    for measure in (epsilon_sharpness, adaptive_sharpness):
        with pytest.raises(ValueError, match=r"must be positive. Received: \w+=0"):
            measure(model, X, np.zeros((1, 1)), 0)
    uncompiled = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for measure in (epsilon_sharpness, adaptive_sharpness, top_eigenvalues):
        with pytest.raises(ValueError, match="compiled with a loss"):
            measure(uncompiled, np.ones((1, 2)), np.ones((1, 1)))

import keras
import numpy as np
import pytest
from scipy.sparse.linalg import eigsh

from callbacks import hessian_trace, hessian_vector_product, top_eigenvalues
from callbacks._surface import LossSurface
from callbacks.curvature import _hessian_trace, _top_eigenvalues

pytestmark = pytest.mark.both_backends

INPUTS, HIDDEN, CLASSES, EXAMPLES = 4, 5, 3, 60


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((EXAMPLES, INPUTS)).astype("float32")
    return x, rng.integers(0, CLASSES, EXAMPLES)


@pytest.fixture(scope="module")
def network(data):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((INPUTS,)),
            keras.layers.Dense(HIDDEN, activation="tanh"),
            keras.layers.Dense(CLASSES),
        ]
    )
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.fixture(scope="module")
def hessian(network, data):
    """The Hessian of the same network written in NumPy, float64, without backpropagation."""
    shapes = [(INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,)]
    x, y = data

    def loss(w):
        kernel1, bias1, kernel2, bias2 = (
            part.reshape(shape)
            for part, shape in zip(
                np.split(w, np.cumsum([np.prod(s) for s in shapes])[:-1]), shapes, strict=True
            )
        )
        logits = np.tanh(x.astype(complex) @ kernel1 + bias1) @ kernel2 + bias2
        log_sum = np.log(np.exp(logits).sum(axis=1))
        return np.mean(log_sum - logits[np.arange(EXAMPLES), y])

    def gradient(w):  # the complex step has no cancellation
        return np.array([loss(w + 1e-30j * e).imag / 1e-30 for e in np.eye(len(w))])

    w, h = flat(network), 1e-5
    return np.stack([(gradient(w + h * e) - gradient(w - h * e)) / (2 * h) for e in np.eye(len(w))])


def flat(model):
    return np.concatenate([np.asarray(v).ravel() for v in model.trainable_variables]).astype(float)


def dense(units, inputs, loss, seed=0, **options):
    """One layer with random weights."""
    model = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(units, **options)])
    rng = np.random.default_rng(seed)
    for v in model.trainable_variables:
        v.assign(rng.standard_normal(v.shape))
    model.compile(loss=loss)
    return model


def test_products_are_the_columns_of_the_hessian(network, data, hessian):
    product = hessian_vector_product(network, *data)
    columns = np.stack([product(e) for e in np.eye(len(hessian))])
    np.testing.assert_allclose(columns, hessian, atol=2e-6)


def test_product_stays_at_the_weights_where_it_was_made(network, data):
    model = dense(CLASSES, INPUTS, "sparse_categorical_crossentropy", activation="softmax")
    product = hessian_vector_product(model, *data)
    before = product(np.ones(15))
    model.layers[0].kernel.assign(np.zeros((INPUTS, CLASSES)))
    np.testing.assert_array_equal(product(np.ones(15)), before)


@pytest.mark.parametrize("k", [1, 3, 43])
def test_top_eigenvalues(network, data, hessian, k):
    assert len(hessian) == 43  # more than the Krylov space for k = 1 and 3: not the dense branch
    expected = np.linalg.eigvalsh(hessian)[::-1][:k]
    found = top_eigenvalues(network, *data, k=k)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-6)


def test_eigenvalues_are_the_same_every_time(network, data):
    np.testing.assert_array_equal(top_eigenvalues(network, *data), top_eigenvalues(network, *data))


def test_trace_is_within_its_standard_error(network, data, hessian):
    surface, draws = LossSurface(network, *data), 50
    results = [_hessian_trace(surface, draws, seed) for seed in range(30)]
    traces, errors = np.array(results).T
    assert np.all(np.abs(traces - np.trace(hessian)) < 4 * errors)
    # Var(v^T H v) = 2 (|H|_F^2 - sum of h_ii^2) for random signs v.
    exact = np.sqrt(2 * (np.sum(hessian**2) - np.sum(np.diag(hessian) ** 2)) / draws)
    assert np.mean(errors) == pytest.approx(exact, rel=0.1)
    # 30 estimates give their spread to 1 / sqrt(58) = 13 %.
    assert np.std(traces, ddof=1) == pytest.approx(exact, rel=0.4)
    assert hessian_trace(network, *data, draws=draws, seed=3) == pytest.approx(results[3])


def test_binary_logistic_regression(data):
    x, y = data[0], data[1] > 0
    model = dense(1, INPUTS, "binary_crossentropy", activation="sigmoid")
    design = np.hstack([x, np.ones((EXAMPLES, 1))])
    p = 1 / (1 + np.exp(-design @ flat(model)))
    expected = design.T @ np.diag(p * (1 - p)) @ design / EXAMPLES
    product = hessian_vector_product(model, x, y.astype("float32")[:, None])
    np.testing.assert_allclose([product(e) for e in np.eye(5)], expected, atol=2e-6)


def test_multinomial_logistic_regression(data):
    x, y = data
    model = dense(CLASSES, INPUTS, "sparse_categorical_crossentropy", activation="softmax")
    design = np.hstack([x, np.ones((EXAMPLES, 1))])
    logits = design @ flat(model).reshape(INPUTS + 1, CLASSES)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    covariance = p[:, :, None] * np.eye(CLASSES) - p[:, :, None] * p[:, None, :]
    size = (INPUTS + 1) * CLASSES
    expected = np.einsum("na,nb,ncd->acbd", design, design, covariance).reshape(size, size)
    expected = np.linalg.eigvalsh(expected / EXAMPLES)[::-1]
    found = top_eigenvalues(model, x, y, k=size)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-6)


def test_curvature_of_a_penalty_is_added(data):
    x, y = data
    plain = dense(1, INPUTS, "mse")
    penalized = dense(1, INPUTS, "mse", kernel_regularizer=keras.regularizers.L2(0.25))
    v = np.arange(1.0, 6.0)
    difference = hessian_vector_product(penalized, x, y)(v) - hessian_vector_product(plain, x, y)(v)
    np.testing.assert_allclose(difference, 2 * 0.25 * v * [1, 1, 1, 1, 0], atol=1e-5)


def test_flat_loss_has_eigenvalue_zero(data):
    model = dense(CLASSES, 30, lambda y, p: keras.ops.mean(p, axis=-1))
    x = np.ones((4, 30), "float32")
    np.testing.assert_array_equal(top_eigenvalues(model, x, np.zeros((4, 3)), k=2), [0, 0])


def test_largest_eigenvalue_is_found_beside_much_larger_negative_ones(monkeypatch):
    # Eigenvalues from -1 to 0, crowded near 0: relative to the largest, Lanczos never converges.
    n, runs = 300, []
    monkeypatch.setattr(
        "callbacks.curvature.eigsh", lambda *a, **k: (runs.append(1), eigsh(*a, **k))[1]
    )
    x = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
    y = -n / 2 * np.linspace(0, 1, n)[:, None] ** 4
    model = dense(1, n, lambda y, p: keras.ops.mean(y * p**2, axis=-1), use_bias=False)
    assert abs(top_eigenvalues(model, x, y)[0]) < 2e-4
    assert len(runs) == 2


def test_out_of_range_arguments(network, data):
    surface = LossSurface(network, *data)
    for k in (0, 44):
        with pytest.raises(ValueError, match=f"Received: k={k}"):
            _top_eigenvalues(surface, k)
    with pytest.raises(ValueError, match="Received: draws=1"):
        _hessian_trace(surface, 1, 0)

import keras
import numpy as np
import pytest

from callbacks import _backend
from callbacks._surface import LossSurface, NonFiniteError
from tests.tracing import counting

pytestmark = pytest.mark.both_backends

RNG = np.random.default_rng(0)
X = RNG.standard_normal((50, 6)).astype("float32")
Y = RNG.integers(0, 3, 50)


def mlp(loss="sparse_categorical_crossentropy", **options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="tanh", **options),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=1),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("sgd", loss)
    return model


def state(model):
    return [np.asarray(v).copy() for v in model.variables]


def evaluate(model, x=X, y=Y):
    return model.evaluate(x, y, batch_size=len(X), verbose=0)


@pytest.fixture(scope="module")
def surface():
    return LossSurface(mlp(), X, Y)


@pytest.mark.parametrize(
    "loss",
    ["crossentropy", keras.losses.sparse_categorical_crossentropy],
    ids=["string", "function"],
)
def test_value_is_what_evaluate_reports(loss):
    model = mlp(loss)
    surface = LossSurface(model, X, Y)
    assert surface.value(surface.start) == pytest.approx(evaluate(model), rel=1e-6)


def test_penalties_on_weights_are_included():
    model = mlp(kernel_regularizer=keras.regularizers.L2(0.1))
    surface = LossSurface(model, X, Y, chunk_size=25)
    assert surface.value(surface.start) == pytest.approx(evaluate(model), rel=1e-6)


def test_penalties_on_activations_are_included():
    model = mlp(activity_regularizer=keras.regularizers.L1(0.1))
    # In one chunk: not every Keras (3.15 does, 3.12 does not) divides them by the batch size.
    surface = LossSurface(model, X, Y)
    assert surface.value(surface.start) == pytest.approx(evaluate(model), rel=1e-6)


def test_chunks_make_no_difference(surface):
    whole, chunked = surface, LossSurface(surface.model, X, Y, chunk_size=20)
    assert [len(x) for x, _ in chunked._chunks] == [16, 17, 17]
    w, v = whole.start, np.linspace(-1, 1, whole.size)
    for a, b in [
        (whole.value_and_gradient(w)[0], chunked.value_and_gradient(w)[0]),
        (whole.value_and_gradient(w)[1], chunked.value_and_gradient(w)[1]),
        (whole.hessian_vector_product(w, v), chunked.hessian_vector_product(w, v)),
    ]:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_gradient_is_the_slope_of_the_value(surface):
    w, gradient = surface.start, surface.value_and_gradient(surface.start)[1]
    direction = gradient / np.linalg.norm(gradient)
    rise = surface.value(w + 1e-2 * direction) - surface.value(w - 1e-2 * direction)
    assert rise / 2e-2 == pytest.approx(np.linalg.norm(gradient), rel=1e-3)


def test_model_is_left_alone(surface):
    model = surface.model
    before = state(model)
    w = surface.start
    surface.value(w + 1)
    surface.value_and_gradient(w + 1)
    surface.hessian_vector_product(w + 1, w)
    surface.batch_gradient(w + 1, np.arange(5))
    with pytest.raises(NonFiniteError):
        surface.value(w * np.nan)
    assert all(np.array_equal(a, b) for a, b in zip(before, state(model), strict=True))


def test_exception_in_the_loss_leaves_the_model_alone():
    def broken(y, p):
        raise RuntimeError("broken loss")

    model = mlp(broken)
    before = state(model)
    with pytest.raises(RuntimeError, match="broken loss"):
        LossSurface(model, X, Y).value(np.zeros(99))
    assert all(np.array_equal(a, b) for a, b in zip(before, state(model), strict=True))
    assert np.all(np.isfinite(model.predict(X, verbose=0)))  # no scope was left open


def test_surface_follows_the_model():
    model = mlp()
    surface = LossSurface(model, X, Y)
    surface.value(surface.start)
    model.fit(X, Y, epochs=2, verbose=0)  # new weights and new batch-norm statistics
    assert surface.value(surface.start) == pytest.approx(evaluate(model), rel=1e-6)
    model.layers[1].moving_mean.assign(np.ones(8))
    assert surface.value(surface.start) == pytest.approx(evaluate(model), rel=1e-6)
    assert surface.is_of(model)
    model.compile("sgd", model.loss)
    assert not surface.is_of(model)


def test_frozen_layers_are_not_part_of_the_weights():
    model = mlp()
    model.layers[0].trainable = False
    model.compile("sgd", model.loss)
    surface = LossSurface(model, X, Y)
    assert surface.size == 2 * 8 + 8 * 3 + 3
    assert surface.value(surface.start) == pytest.approx(evaluate(model), rel=1e-6)


def test_several_inputs_and_outputs():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    hidden = keras.layers.Dense(4)(keras.layers.Concatenate()([a, b]))
    outputs = [keras.layers.Dense(1, name="p")(hidden), keras.layers.Dense(1, name="q")(hidden)]
    model = keras.Model([a, b], outputs)
    model.compile("sgd", ["mse", "mae"], loss_weights=[1.0, 3.0])
    x, y = [X, X[::-1].copy()], [X[:, :1], X[:, 1:2]]
    surface = LossSurface(model, x, y, chunk_size=20)
    expected = evaluate(model, x, y)[0]
    assert surface.value(surface.start) == pytest.approx(expected, rel=1e-5)
    model.fit(x, y, verbose=0)
    assert surface.value(surface.start) == pytest.approx(evaluate(model, x, y)[0], rel=1e-5)


def test_layers_with_unusual_gradients():
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 1))
    # Of a positive multiple, the same pixel stays the largest: no kinks in the difference quotient.
    positive = keras.initializers.RandomUniform(0.5, 1)
    h = keras.layers.Conv2D(4, 1, activation="tanh", kernel_initializer=positive)(images)
    h = keras.layers.Conv2D(4, 3, activation="tanh")(keras.layers.MaxPooling2D()(h))
    h = keras.layers.GlobalAveragePooling2D()(h)
    words = keras.Input((5,), dtype="int32")
    e = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(10, 4)(words))
    model = keras.Model([images, words], keras.layers.Dense(1)(keras.layers.Multiply()([h, e])))
    model.compile(loss="mse")
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((9, 8, 8, 1)), rng.integers(0, 10, (9, 5))]
    surface = LossSurface(model, x, rng.standard_normal((9, 1)))
    w = surface.start
    direction = rng.standard_normal(surface.size)
    gradients = [surface.value_and_gradient(w + s * direction)[1] for s in (1e-3, -1e-3)]
    product = surface.hessian_vector_product(w, direction)
    difference = (gradients[0] - gradients[1]) / 2e-3
    assert np.linalg.norm(product - difference) < 0.002 * np.linalg.norm(product)


def test_functions_are_traced_once():
    counter, traces = counting()
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3), counter])
    model.compile(loss="mse")
    surface = LossSurface(model, X, np.zeros((50, 3)), chunk_size=25)
    traces.clear()
    for _ in range(3):
        surface.value_and_gradient(surface.start)
        surface.batch_gradient(surface.start, np.arange(25))
    # The gradient, and in float64 to weigh the chunks with: of JAX for each number of rows.
    assert len(traces) == (5 if keras.backend.backend() == "jax" else 2)


def test_other_data_of_the_same_kind_is_not_another_trace():
    counter, traces = counting()

    def product(model, x, y):
        surface = LossSurface(model, x, y)
        return surface.hessian_vector_product(surface.start, np.ones(surface.size))

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3), counter])
    model.compile(loss="mse")
    y = np.zeros((50, 3))
    first = product(model, X, y)
    traces.clear()
    np.testing.assert_array_equal(product(model, X, y), first)
    twice = product(model, 2 * X[::-1], y)
    assert not traces
    plain = keras.Sequential([*model.layers[:1]])
    plain.compile(loss="mse")
    np.testing.assert_allclose(twice, product(plain, 2 * X[::-1], y), rtol=1e-5)
    assert np.linalg.norm(first) > 1
    model.compile(loss="mae")  # which is linear almost everywhere: there is no curvature
    np.testing.assert_allclose(product(model, X, y), 0, atol=1e-5)


def test_clear_errors():
    model = mlp()
    uncompiled = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    lossless = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    lossless.compile("sgd")
    unbuilt = keras.Sequential([keras.layers.Dense(3)])
    unbuilt.compile("sgd", "mse")
    for wrong, message in [
        (lambda: LossSurface(uncompiled, X, Y), "compiled with a loss.*Received: model=<Seq"),
        (lambda: LossSurface(lossless, X, Y), "compiled with a loss.*Received: model=<Seq"),
        (lambda: LossSurface(unbuilt, X, Y), "built.*Received: .*built=False"),
        (lambda: LossSurface(model, X, Y[:-1]), r"Received: x.shape=\(50, 6\), y.shape=\(49,\)"),
        (lambda: LossSurface(model, X[:0], Y[:0]), r"Received: x.shape=\(0, 6\)"),
        (lambda: LossSurface(mlp(keras.losses.MeanSquaredError("sum")), X, Y), "'sum'"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()


def test_non_finite_weights_are_an_error():
    model = mlp()
    model.layers[0].bias.assign(np.full(8, np.nan))
    with pytest.raises(ValueError, match=r"the weights of the model.*8 of 99 not finite"):
        LossSurface(model, X, Y)


def test_other_backends_are_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match=r"Received: keras.backend.backend\(\)='torch'"):
        _backend.compile_derivatives(None, None, None, None, None)

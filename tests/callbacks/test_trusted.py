"""Curvature that says when it cannot be trusted: against Hessians from gradients alone."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from callbacks import SharpnessProbe, hessian_trace, hessian_vector_product, top_eigenvalues
from callbacks._differences import Differences
from callbacks._surface import LossSurface
from callbacks._trusted import CurvatureError
from tests.tracing import counting

pytestmark = pytest.mark.both_backends
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
RNG = np.random.default_rng(0)
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(*inner, shape, loss=CROSS_ENTROPY, scale=2.0):
    """A small compiled network with weights that make its layers bend."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape), *inner, layers.Dense(3)])
    rng = np.random.default_rng(1)
    for v in model.trainable_variables:
        v.assign(np.asarray(v) * scale + 0.1 * rng.standard_normal(v.shape))
    model.compile(loss=loss)
    return model


def data(shape, n=40):
    return RNG.standard_normal((n, *shape)).astype("float32") + 0.5, RNG.integers(0, 3, n)


def naive_hessian(model, x, y, step=4e-3):
    """From differences of the gradient in float32, which is right on both backends."""
    surface = LossSurface(model, x, y)
    w = surface.start

    def columns(step):
        gradients = [
            [surface.value_and_gradient(w + e)[1] for e in (h, -h)] for h in step * np.eye(len(w))
        ]
        return np.array([(plus - minus) / (2 * step) for plus, minus in gradients])

    hessian = (4 * columns(step / 2) - columns(step)) / 3  # Richardson: right to step^4
    return (hessian + hessian.T) / 2


def images(*inner):
    return [
        layers.Conv2D(2, 2, activation="tanh"),
        *inner,
        layers.Conv2D(2, 2, activation="tanh"),
        layers.GlobalAveragePooling2D(),
    ]


@keras.saving.register_keras_serializable("tests")
class SlowlyRight(layers.Layer):
    """The softplus with a gradient that is right and has no gradient of its own."""

    def call(self, x):
        @ops.custom_gradient
        def softplus(x):
            slope = ops.stop_gradient(ops.sigmoid(x))

            def gradient(*args, upstream=None):
                return slope * (args[0] if upstream is None else upstream)

            return ops.softplus(x), gradient

        return softplus(x)


WRONG_ON_TENSORFLOW = {
    "bilinear": (images(layers.UpSampling2D(2, interpolation="bilinear")), (4, 4, 1)),
    "bicubic": (images(layers.UpSampling2D(2, interpolation="bicubic")), (4, 4, 1)),
    "lanczos, smaller": (images(layers.Resizing(2, 2, interpolation="lanczos3")), (5, 5, 1)),
    "layer normalization": (
        [layers.Dense(5), layers.LayerNormalization(), layers.Activation("tanh")],
        (4,),
    ),
    "group normalization": (
        [layers.Dense(6), layers.GroupNormalization(2), layers.Activation("tanh")],
        (4,),
    ),
    "moments in a layer": (
        [layers.Dense(5), layers.Lambda(lambda x: x / ops.sqrt(ops.var(x, 1, True) + 0.1))],
        (4,),
    ),
}


@pytest.mark.parametrize("kind", WRONG_ON_TENSORFLOW)
def test_operations_without_a_right_second_derivative(kind):
    inner, shape = WRONG_ON_TENSORFLOW[kind]
    model, (x, y) = network(*inner, shape=shape), data(shape)
    expected = naive_hessian(model, x, y)
    product = hessian_vector_product(model, x, y)
    found = np.stack([product(e) for e in np.eye(len(expected))])
    assert np.linalg.norm(found - expected) < 2e-3 * np.linalg.norm(expected)
    assert product.error < 1e-3
    assert product.size == pytest.approx(np.linalg.norm(expected), rel=0.7)
    surface = LossSurface(model, x, y)
    try:
        raw = np.stack(
            [surface.hessian_vector_product(surface.start, e) for e in np.eye(len(found))]
        )
        wrong = np.linalg.norm(raw - expected) > 2e-3 * np.linalg.norm(expected)
    except LookupError:  # TensorFlow, of an operation that it knows to have none
        wrong = True
    assert (product.how != "float32") == wrong


def test_a_gradient_without_a_gradient_is_differenced():
    model, (x, y) = network(layers.Dense(4), SlowlyRight(), shape=(4,)), data((4,))
    plain = network(layers.Dense(4), layers.Activation("softplus"), shape=(4,))
    expected = hessian_vector_product(plain, x, y)
    product = hessian_vector_product(model, x, y)
    assert product.how == "differences"
    v = RNG.standard_normal(LossSurface(model, x, y).size)
    np.testing.assert_allclose(product(v), expected(v), rtol=1e-4, atol=1e-5)
    assert product.error < 1e-5
    np.testing.assert_array_equal(product(0 * v), 0 * v)


class Reversed(layers.Layer):
    """As for adversarial domains: the gradient that comes back has the other sign."""

    def call(self, x):
        return 2 * ops.stop_gradient(x) - x


class Rounded(layers.Layer):
    """A straight-through estimator: the slope of what is flat."""

    def call(self, x):
        return x + ops.stop_gradient(ops.round(4 * x) / 4 - x)


class Half(layers.Layer):
    """A gradient that is stopped on one of two ways."""

    def call(self, x):
        return ops.square(x) * ops.stop_gradient(x)


@pytest.mark.parametrize("layer", [Reversed, Rounded, Half])
def test_what_is_no_gradient_is_refused_with_the_name_of_the_layer(layer):
    culprit = layer(name="culprit")
    model = network(layers.Dense(4, "tanh", name="first"), culprit, shape=(4,))
    for measure in (hessian_vector_product, top_eigenvalues, hessian_trace):
        with pytest.raises(CurvatureError, match=rf"layer 'culprit' \({layer.__name__}\)") as said:
            measure(model, *data((4,)))
        assert "'first'" not in str(said.value)
    with pytest.raises(ValueError, match="culprit"):
        SharpnessProbe(*data((4,)), measures=("trace",)).measure(model)


class OnlyFloat32(layers.Layer):
    """Refuses anything else."""

    def call(self, x):
        if keras.backend.standardize_dtype(x.dtype) != "float32":
            raise TypeError("float32 only")
        return 1.5 * x


class Through32(layers.Layer):
    """Has the digits of float32 whatever comes."""

    def call(self, x):
        small = ops.cast(ops.multiply(x, 1e3), "int32")  # thousandths, and what is left over
        rest = ops.multiply(x, 1e3) - ops.cast(small, x.dtype)
        return ops.cast(small, x.dtype) / 1e3 + ops.cast(rest / 1e3, "float32")


@pytest.mark.parametrize("layer", [OnlyFloat32, Through32])
def test_models_that_do_not_compute_in_float64_are_tested_in_float32(layer):
    model = network(layers.Dense(4, "tanh"), layer(), shape=(4,))
    x, y = data((4,))
    expected = naive_hessian(model, x, y)
    product = hessian_vector_product(model, x, y)
    found = np.stack([product(e) for e in np.eye(len(expected))])
    assert np.linalg.norm(found - expected) < 5e-3 * np.linalg.norm(expected)
    assert product.error < 5e-2


@pytest.mark.skipif(not ON_TENSORFLOW, reason="JAX has all second derivatives")
def test_a_wrong_product_that_cannot_be_had_another_way_is_refused():
    inner = [layers.Dense(5), layers.LayerNormalization(), OnlyFloat32(name="culprit")]
    model = network(*inner, layers.Activation("tanh"), shape=(4,))
    with pytest.raises(CurvatureError, match=r"does not compute in float64.*'culprit'"):
        top_eigenvalues(model, *data((4,)))


def separable(dtype="float32"):
    keras.utils.set_random_seed(0)
    keras.config.set_floatx(dtype)
    try:
        model = keras.Sequential(
            [keras.Input((4,)), layers.Dense(8, "tanh"), layers.Dense(2, use_bias=False)]
        )
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    finally:
        keras.config.set_floatx("float32")
    return model


@pytest.mark.parametrize("scale", [5.0, 10.0, 20.0])
def test_curvature_of_almost_no_loss_is_not_rounding(scale):
    """On TensorFlow float32 gives 40 times too much at a loss of 1e-8."""
    x = RNG.standard_normal((60, 4)).astype("float32")
    x[:, 0] = np.where(x[:, 0] > 0, 1 + x[:, 0], x[:, 0] - 1)
    y = (x[:, 0] > 0).astype("int32")
    model = separable()
    kernel = np.zeros((4, 8), "float32")
    kernel[0] = 1
    head = np.ones((8, 2), "float32") * [-scale / 16, scale / 16]
    model.set_weights([kernel, np.zeros(8), head])

    z = np.tanh(x.astype(float) @ kernel)  # the Hessian in the head alone: sum of p(1-p) zz'
    gap = z @ (head[:, 1] - head[:, 0])
    p = 1 / (1 + np.exp(gap)), 1 / (1 + np.exp(-gap))
    block = np.einsum("n,ni,nj->ij", p[0] * p[1], z, z) / len(x)
    expected = 2 * np.linalg.eigvalsh(block)[-1]  # of [[block, -block], [-block, block]]

    product = hessian_vector_product(model, x, y)
    size = LossSurface(model, x, y).size
    head_only = np.zeros((size, 16))
    head_only[-16:] = np.eye(16)
    found = np.stack([product(column)[-16:] for column in head_only.T])
    assert np.linalg.eigvalsh((found + found.T) / 2)[-1] == pytest.approx(expected, rel=1e-3)
    values, errors = top_eigenvalues(model, x, y, k=2, errors=True)
    assert values[0] >= expected * (1 - 1e-3)  # a principal block's is at most the whole's
    assert np.all(errors < 1e-3 * values[0])


def test_curvature_that_float64_does_not_resolve_is_refused():
    x, y = np.array([[1.0], [-1.0]], "float32"), np.array([1, 0])
    model = keras.Sequential([keras.Input((1,)), layers.Dense(2, use_bias=False)])
    model.compile(loss=CROSS_ENTROPY)
    model.set_weights([np.array([[-20.0, 20.0]])])
    with pytest.raises(CurvatureError, match="too near to zero for float64"):
        top_eigenvalues(model, x, y)


def test_sharpness_of_almost_no_loss_is_not_rounding():
    x, y = np.array([[1.0], [-1.0]], "float32"), np.array([1, 0])
    model = keras.Sequential([keras.Input((1,)), layers.Dense(2, use_bias=False)])
    model.compile(loss=CROSS_ENTROPY)
    a = 10.0
    model.set_weights([np.array([[-a, a]])])
    probe = SharpnessProbe(x, y, measures=("adaptive", "epsilon"), rho=0.01, errors=True)
    logs = probe.measure(model)

    def loss(a):  # log(1 + exp(-2a)), worst where a is smallest
        return np.log1p(np.exp(-2 * a))

    exact = loss(0.99 * a) - loss(a)
    assert logs["sharpness/adaptive"] == pytest.approx(exact, rel=1e-3)
    assert logs["sharpness/adaptive_error"] < 0.01 * exact
    exact = 100 * (loss(a - 1e-3 * (a + 1)) - loss(a)) / (1 + loss(a))
    assert logs["sharpness/epsilon"] == pytest.approx(exact, rel=1e-3)


def test_errors_hold_what_is_known_of_the_truth():
    inner, shape = [layers.Dense(8, "tanh"), layers.BatchNormalization()], (4,)
    model, (x, y) = network(*inner, shape=shape), data(shape)
    hessian = naive_hessian(model, x, y)
    exact = np.linalg.eigvalsh(hessian)
    values, errors = top_eigenvalues(model, x, y, k=3, errors=True)
    np.testing.assert_allclose(values, top_eigenvalues(model, x, y, k=3), rtol=1e-9)
    assert np.all(np.abs(values - exact[::-1][:3]) < errors + 1e-3 * exact[-1])
    assert np.all(errors < 0.01 * exact[-1])
    trace = hessian_trace(model, x, y, draws=20)
    assert len(trace) == 2
    assert trace.error == pytest.approx(trace.standard_error, rel=1e-3)
    assert abs(trace.trace - exact.sum()) < 4 * trace.error

    probe = SharpnessProbe(x, y, errors=True, draws=20)
    plain = SharpnessProbe(x, y, draws=20)
    logs = probe.measure(model)
    assert list(plain.measure(model).values()) == pytest.approx(
        [v for k, v in logs.items() if not k.endswith("_error")], rel=1e-9
    )
    assert logs["sharpness/trace_error"] == pytest.approx(trace.error)
    assert 0 < logs["sharpness/lambda_max_error"] < 0.01 * values[0]
    assert 0 <= logs["sharpness/adaptive_error"] <= 0.01 * logs["sharpness/adaptive"]


def test_the_test_of_a_product_is_traced_once_and_is_a_few_gradients():
    counter, traces = counting()
    model, (x, y) = network(layers.Dense(4, "tanh"), counter, shape=(4,)), data((4,))
    traces.clear()
    hessian_vector_product(model, x, y)
    assert len(traces) <= 2 + 1  # product, gradient in float64; JAX tells by trying once more
    traces.clear()
    surface = LossSurface(model, x, y)
    kinds = []
    run = surface._loss.run
    surface._loss.run = lambda kind, *a, **k: kinds.append(kind) or run(kind, *a, **k)
    for _ in range(2):
        hessian_vector_product(model, 2 * x, y)
    assert not traces
    assert len(kinds) <= 2 * 12
    assert kinds.count("hessian_vector_product") <= 2 * 3


def test_the_model_is_left_alone_and_still_computes_in_float32():
    inner = [layers.Dense(4), layers.LayerNormalization(), layers.Dropout(0.5)]
    model, (x, y) = network(*inner, shape=(4,)), data((4,))
    before, outputs = [np.asarray(v).copy() for v in model.variables], model.predict(x, verbose=0)
    top_eigenvalues(model, x, y)
    assert keras.config.floatx() == "float32"
    assert model.layers[0].dtype_policy.name == "float32"
    assert model(x).dtype == ops.convert_to_tensor(outputs).dtype
    np.testing.assert_array_equal(model.predict(x, verbose=0), outputs)
    assert all(
        np.array_equal(a, v) and keras.backend.standardize_dtype(v.dtype) == a.dtype.name
        for a, v in zip(before, model.variables, strict=True)
    )
    model.compile("sgd", CROSS_ENTROPY)
    model.fit(x, y, verbose=0)


@pytest.mark.parametrize("loss", ["mse", lambda y, p: ops.mean((y - p) ** 2, -1)])
def test_a_loss_that_a_measurement_built_stays_float32(loss):
    """Built inside the float64 probe it kept that type, on TensorFlow without a word."""
    model, (x, _) = network(layers.Dense(4), shape=(4,), loss=loss), data((4,))
    LossSurface(model, x, np.zeros((len(x), 3)), chunk_size=10).value_and_gradient(
        LossSurface(model, x, np.zeros((len(x), 3))).start
    )
    built = [one for _, one, *_ in model._compile_loss._flat_losses]
    assert built and {one.dtype for one in built} == {"float32"}


def test_kinks_are_no_reason_to_refuse():
    inner = [layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten()]
    model, (x, y) = network(*inner, shape=(8, 8, 1)), data((8, 8, 1), 300)
    assert hessian_vector_product(model, x, y).how == "float32"


def test_half_precision_is_seen():
    policy = "mixed_bfloat16"
    inner = [layers.Dense(6, "tanh", dtype=policy), layers.Dense(5, "tanh", dtype=policy)]
    model, (x, y) = network(*inner, shape=(4,)), data((4,))
    exact = network(layers.Dense(6, "tanh"), layers.Dense(5, "tanh"), shape=(4,))
    product = hessian_vector_product(model, x, y)
    assert product.how == "float64"
    v = RNG.standard_normal(LossSurface(model, x, y).size)
    np.testing.assert_allclose(
        product(v), hessian_vector_product(exact, x, y)(v), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_kinks_that_lie_close_are_not_taken_for_a_wrong_gradient(share):
    """A network that had been trained for long had kinks within a hundred-millionth."""
    rng = np.random.default_rng(3)
    w, v, d = rng.standard_normal((3, 50))
    reach = np.sqrt(np.mean(w**2)) * np.sqrt(50) / np.linalg.norm(v) * abs(d @ v)
    kinks = reach * np.array([3e-9, -5e-9, 2e-7, 7e-7, -3e-6])

    def value_and_gradient(point):
        over = d @ (point - w) - kinks
        value = np.sum(point**2) / 2 + np.sum(np.maximum(over, 0)) * 100
        return value, share * (point + 100 * np.sum(over > 0) * d)

    assert Differences(value_and_gradient, w).are_of_a_gradient(v) == (share == 1)


@pytest.mark.parametrize("closest", [3e-9, 3e-10])
@pytest.mark.parametrize("share", [1.0, 0.9])
def test_a_kink_that_lies_closer_than_most_steps_is_no_reason_to_refuse(closest, share):
    """One of 300 trained networks had kinks at all steps but the smallest."""
    rng = np.random.default_rng(3)
    w, v, d = rng.standard_normal((3, 50))
    reach = np.sqrt(np.mean(w**2)) * np.sqrt(50) / np.linalg.norm(v) * abs(d @ v)
    kinks = reach * np.array([closest, 5e-9, -2e-8, 2e-7, 7e-7, -3e-5])

    def value_and_gradient(point):
        over = d @ (point - w) - kinks
        value = np.sum(point**2) / 2 + np.sum(np.maximum(over, 0))
        return value, point + np.sum(over > 0) * d

    distance = Differences(value_and_gradient, w).distance(share * v, v, 1e-3)
    assert distance < 1e-3 if share == 1 else distance > 0.05

"""Losses that are no means over examples: weighed right in chunks, or refused."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from callbacks import gradient_noise, hessian_trace
from callbacks._surface import LossSurface

pytestmark = pytest.mark.both_backends
RNG = np.random.default_rng(0)
N, STEPS = 90, 6
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def words():
    """Sequences sorted by length, as one does: one word, then six."""
    x = RNG.integers(1, 9, (N, STEPS))
    x[: N // 2, 1:] = 0
    return x, np.where(np.arange(N)[:, None] < N // 2, RNG.integers(0, 3, (N, 1)), x % 3)


def tagger(loss=CROSS_ENTROPY, mask=True):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((STEPS,), dtype="int32")
    hidden = layers.Embedding(9, 3, mask_zero=mask, embeddings_initializer="normal")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(hidden))
    model.compile(loss=loss)
    return model


def regressor(loss):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(1)])
    model.compile(loss=loss)
    x = RNG.standard_normal((N, 4)).astype("float32")
    y = np.where(np.arange(N)[:, None] < N // 3, x[:, :1], 3 + x[:, 1:2])
    return model, x, y


def weighted(y, p):
    """A mean of squares with weights that depend on the target."""
    weights = ops.where(y > 2, 5.0, 1.0)
    return ops.sum(weights * (y - p) ** 2) / ops.sum(weights)


def root(y, p):
    return ops.sqrt(ops.mean((y - p) ** 2))


def total(y, p):
    return ops.sum((y - p) ** 2)


def ranked(y, p):
    """Compares examples with each other."""
    return ops.mean(ops.square((y - ops.transpose(y)) - (p - ops.transpose(p))))


def cases():
    ignoring = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    x, y = words()
    yield "mask", tagger(), x, y
    yield "ignored class", tagger(ignoring, mask=False), x, np.where(x > 0, y, -1)
    yield "both, sorted the other way", tagger(ignoring), x[::-1].copy(), y[::-1].copy()
    for loss in (weighted, root, total, ranked):
        yield (loss.__name__, *regressor(loss))


CASES = {name: rest for name, *rest in cases()}
MEANS = ("mask", "ignored class", "both, sorted the other way", "weighted")


@pytest.mark.parametrize("name", CASES)
def test_chunks_make_the_loss_of_the_whole(name):
    model, x, y = CASES[name]
    whole, chunked = LossSurface(model, x, y), LossSurface(model, x, y, chunk_size=20)
    w, v = whole.start, np.linspace(-1, 1, whole.size)
    evaluated = model.evaluate(x, y, batch_size=N, verbose=0)
    assert chunked.value(w) == pytest.approx(evaluated, rel=1e-5)
    for a, b in [
        (whole.value_and_gradient(w)[1], chunked.value_and_gradient(w)[1]),
        (whole.hessian_vector_product(w, v), chunked.hessian_vector_product(w, v)),
    ]:
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())
    assert len(chunked._chunks) == (5 if name in MEANS else 1)


def test_weights_of_chunks_are_what_the_mask_leaves():
    model, x, y = CASES["mask"]
    chunked = LossSurface(model, x, y, chunk_size=30)
    chunked.value(chunked.start)
    left = [np.sum(x[a : a + 30] > 0) for a in (0, 30, 60)]
    np.testing.assert_allclose(chunked._weights, np.array(left) / np.sum(left), rtol=1e-5)


def test_the_order_of_examples_makes_no_difference_to_curvature(monkeypatch):
    monkeypatch.setattr("callbacks._surface.LossSurface.__init__.__defaults__", (20,))
    model, x, y = CASES["mask"]
    shuffled = RNG.permutation(N)
    first = hessian_trace(model, x, y, draws=5).trace
    assert hessian_trace(model, x[shuffled], y[shuffled], draws=5).trace == pytest.approx(first)


def test_what_is_too_large_and_not_made_of_chunks_is_refused(monkeypatch):
    monkeypatch.setattr("callbacks._surface.WHOLE_SIZE", 50)
    model, x, y = CASES["ranked"]
    surface = LossSurface(model, x, y, chunk_size=20)
    with pytest.raises(ValueError, match=r"not a mean of the losses of fewer.*Received: 90"):
        surface.value(surface.start)


@pytest.mark.parametrize("name", CASES)
def test_the_noise_of_gradients_is_of_means_over_examples_alone(name):
    model, x, y = CASES[name]
    with pytest.raises(ValueError, match="of a mean over examples only if the loss is one"):
        gradient_noise(model, x, y, batch_size=8, draws=3)


def test_the_noise_of_gradients_of_a_mean_is_not_refused():
    model, x, y = CASES["mask"]
    of_one_length = model, x[N // 2 :], y[N // 2 :]
    for asked in (regressor("mse"), of_one_length):
        noise = gradient_noise(*asked, batch_size=8, draws=3)
        assert np.isfinite(noise).all() and min(noise) > 0


def test_several_outputs_with_masks_of_their_own():
    keras.utils.set_random_seed(0)
    inputs = [keras.Input((STEPS,), dtype="int32", name=name) for name in "ab"]
    hidden = [layers.Embedding(9, 3, mask_zero=True)(one) for one in inputs]
    model = keras.Model(inputs, [layers.Dense(3)(one) for one in hidden])
    model.compile(loss=[CROSS_ENTROPY, CROSS_ENTROPY])
    (a, y), (b, z) = words(), words()
    b, z = b[::-1].copy(), z[::-1].copy()
    surface = LossSurface(model, [a, b], [y, z], chunk_size=20)
    expected = model.evaluate([a, b], [y, z], batch_size=N, verbose=0)[0]
    assert surface.value(surface.start) == pytest.approx(expected, rel=1e-5)


def test_masked_arrays_are_refused():
    model, x, y = regressor("mse")
    with pytest.raises(ValueError, match=r"must not be masked arrays.*Received: 4 of 360"):
        LossSurface(model, np.ma.array(x, mask=np.arange(N)[:, None] == [3] * 4), y)

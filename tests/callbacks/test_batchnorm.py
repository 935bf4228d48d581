import keras
import numpy as np
import pytest

from callbacks import recalibrate_batchnorm

pytestmark = pytest.mark.both_backends

N = 50  # no multiple of 7
BATCH_SIZES = [7, 1000]
X = np.random.default_rng(0).normal(3, 2, (N, 6)).astype("float32")


class Recording(keras.layers.BatchNormalization):
    """A subclass, which keeps the inputs it is given."""

    def call(self, inputs, training=None, mask=None):
        self.last = keras.ops.convert_to_numpy(inputs) if recording else None
        return super().call(inputs, training=training, mask=mask)


recording = False


def inputs_of(layer, model, x):
    """What reaches a `Recording` layer in one ordinary pass over x."""
    global recording
    recording = True
    try:
        model(x, training=False)
    finally:
        recording = False
    return layer.last.astype("float64")


def dense(units=5):
    return keras.layers.Dense(units, activation="tanh")


def sequential():
    layers = [dense(), Recording(), keras.layers.Dropout(0.5), dense(), Recording()]
    model = keras.Sequential([keras.Input((6,)), *layers])
    return model, [layers[1], layers[4]]


def residual():
    first, second, last = Recording(), Recording(), Recording()
    x = keras.Input((6,))
    h = first(dense()(x))
    h = keras.layers.Add()([h, second(dense()(h))])
    return keras.Model(x, keras.layers.Dense(2)(last(h))), [first, second, last]


def nested():
    inner, (a, b) = sequential()
    first, last = Recording(), Recording()
    x = keras.Input((6,))
    model = keras.Model(x, last(dense()(inner(dense(6)(first(x))))))
    return model, [first, a, b, last]


def subclassed():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense, self.norm = dense(), Recording()

        def build(self, shape):
            self.dense.build(shape)
            self.norm.build((None, 5))

        def call(self, x):
            return self.norm(self.dense(x))

    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            # Created in another order than they run in.
            self.last, self.first = Recording(), Recording()
            self.blocks = [Block(), Block()]

        def call(self, x, training=None):
            x = self.first(x)
            for block in self.blocks:
                x = block(x)
            return self.last(x)

    model = Subclassed()
    model(X[:2])
    return model, [model.first, *[block.norm for block in model.blocks], model.last]


@pytest.mark.parametrize("make", [sequential, residual, nested, subclassed])
def test_statistics_are_those_of_the_inputs(make):
    keras.utils.set_random_seed(0)
    model, layers = make()
    results = []
    for batch_size in BATCH_SIZES:
        for layer in layers:
            layer.moving_mean.assign(np.full(layer.moving_mean.shape, 7.0))
        recalibrate_batchnorm(model, X, batch_size=batch_size)
        for layer in layers:
            inputs = inputs_of(layer, model, X)
            np.testing.assert_allclose(layer.moving_mean, inputs.mean(axis=0), atol=1e-5)
            np.testing.assert_allclose(layer.moving_variance, inputs.var(axis=0), atol=1e-5)
        results.append(model.predict(X, verbose=0))
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-5)


def test_inputs_of_a_functional_model_from_its_graph():
    # The same check without any hook of ours: the layer's input as the output of another model.
    model, layers = residual()
    recalibrate_batchnorm(model, X, batch_size=7)
    inputs = keras.Model(model.inputs, [layer.input for layer in layers]).predict(X, verbose=0)
    for layer, values in zip(layers, inputs, strict=True):
        np.testing.assert_allclose(layer.moving_mean, values.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(layer.moving_variance, values.var(axis=0), atol=1e-5)


def test_images_channels_first_and_last():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(9, 3, 4, 5)).astype("float32")
    for axis, others in [(1, (0, 2, 3)), (-1, (0, 1, 2))]:
        model = keras.Sequential(
            [keras.Input((3, 4, 5)), keras.layers.BatchNormalization(axis=axis)]
        )
        recalibrate_batchnorm(model, x, batch_size=4)
        np.testing.assert_allclose(model.layers[0].moving_mean, x.mean(others), atol=1e-6)
        np.testing.assert_allclose(model.layers[0].moving_variance, x.var(others), atol=1e-6)


def test_large_offsets_do_not_cancel():
    model = keras.Sequential([keras.Input((1,)), keras.layers.BatchNormalization()])
    x = np.float32(4096) + np.random.default_rng(0).normal(size=(1000, 1)).astype("float32")
    recalibrate_batchnorm(model, x, batch_size=64)
    assert np.asarray(model.layers[0].moving_variance) == pytest.approx(
        x.astype("float64").var(), rel=1e-6
    )


def test_masked_steps_do_not_count():
    norm = keras.layers.BatchNormalization()
    steps = keras.Input((4, 2))
    model = keras.Model(steps, norm(keras.layers.Masking(0.0)(steps)))
    x = np.random.default_rng(0).normal(5, 1, (9, 4, 2)).astype("float32")
    x[::2, 2:] = 0
    recalibrate_batchnorm(model, x, batch_size=4)
    kept = x[np.any(x != 0, axis=-1)]
    np.testing.assert_allclose(norm.moving_mean, kept.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, kept.var(axis=0), rtol=1e-5)


def test_layer_that_runs_twice_gets_the_statistics_of_both_runs():
    shared, x = keras.layers.BatchNormalization(), keras.Input((6,))
    model = keras.Model(x, keras.layers.Add()([shared(x), shared(keras.layers.Rescaling(3)(x))]))
    both = np.concatenate([X, 3 * X]).astype("float64")
    for batch_size in BATCH_SIZES:
        recalibrate_batchnorm(model, X, batch_size=batch_size)
        np.testing.assert_allclose(shared.moving_mean, both.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(shared.moving_variance, both.var(axis=0), rtol=1e-5)


def test_frozen_layers_are_set_and_idle_ones_are_not():
    class Idle(keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.idle = keras.layers.BatchNormalization(), Recording()
            self.idle.build((None, 6))

        def call(self, x, training=None):
            return self.used(x)

    model = Idle()
    model(X[:2])
    model.used.trainable = False
    for batch_size in (N, 7):
        recalibrate_batchnorm(model, X, batch_size=batch_size)
        np.testing.assert_allclose(model.used.moving_mean, X.mean(axis=0), rtol=1e-5)
        np.testing.assert_array_equal(model.idle.moving_mean, np.zeros(6))


class Noise(keras.layers.Layer):
    """Draws a random number in inference as well, and can fail."""

    fails = False

    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x):
        noise = keras.random.normal((1,), seed=self.seed)
        if self.fails:
            raise RuntimeError("broken layer")
        return x + 0 * noise


@pytest.mark.parametrize("batch_size", [N, 7])
def test_nothing_else_changes(batch_size):
    layers = [keras.layers.BatchNormalization(), Noise(), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dropout(0.5), dense()])

    def state():
        return [np.asarray(v).copy() for v in model.variables]

    before = state()
    layers[1].fails = True
    with pytest.raises(RuntimeError, match="broken layer"):
        recalibrate_batchnorm(model, X, batch_size=batch_size)
    assert all(np.array_equal(a, b) for a, b in zip(before, state(), strict=True))
    assert not any("call" in vars(layer) for layer in layers)

    layers[1].fails = False
    recalibrate_batchnorm(model, X, batch_size=batch_size)
    changed = [
        v.name
        for v, a, b in zip(model.variables, before, state(), strict=True)
        if not np.array_equal(a, b)
    ]
    assert changed == ["moving_mean", "moving_variance"] * 2
    assert not any("call" in vars(layer) for layer in layers)


def test_model_without_batchnorm_is_not_run():
    class Untouchable(keras.Model):
        def call(self, x, training=None):
            raise AssertionError("the model was run")

    recalibrate_batchnorm(Untouchable(), X)


def test_empty_data_and_batches():
    model, _ = sequential()
    for x, batch_size in [(X[:0], 10), (X, 0)]:
        with pytest.raises(ValueError, match=f"Received: len.x.={len(x)}, batch_size={batch_size}"):
            recalibrate_batchnorm(model, x, batch_size=batch_size)

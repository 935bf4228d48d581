"""Ghost batches against NumPy, one after the other, and against batch normalization."""

import functools

import keras
import numpy as np
import pytest

from callbacks import GhostBatchNormalization, recalibrate_batchnorm
from lab.engines.fit import Fit
from lab.engines.training import train

pytestmark = pytest.mark.both_backends

TENSORFLOW = keras.backend.backend() == "tensorflow"
RNG = np.random.default_rng(0)
SHAPES = [((24, 3), -1), ((24, 3), 1), ((24, 2, 5, 3), -1), ((24, 3, 2, 5), 1), ((24, 4, 3), 2)]
GAMMA, BETA = np.array([0.5, 1.0, 2.0]), np.array([-1.0, 0.0, 3.0])


def numbers(shape, axis=-1):
    """Inputs whose channels differ in mean and in scale."""
    x = np.moveaxis(RNG.standard_normal(shape), axis, -1)
    return np.moveaxis(x * [1, 2, 0.5] + [0, 5, -3], -1, axis).astype("float32")


def array(tensor):
    return np.array(keras.ops.convert_to_numpy(tensor), "float64")


def layer_for(x, virtual_batch_size=None, **options):
    kind = keras.layers.BatchNormalization
    if virtual_batch_size is not None:
        kind = functools.partial(GhostBatchNormalization, virtual_batch_size)
    layer = kind(**options)
    layer.build(x.shape)
    layer.gamma.assign(GAMMA)
    layer.beta.assign(BETA)
    return layer


def by_hand(x, sizes, axis=-1, epsilon=1e-3):
    """What ghost batches of these sizes become, and mean and variance of the whole of x."""
    x = np.moveaxis(x.astype("float64"), axis, -1)
    others = tuple(range(x.ndim - 1))
    ghosts = np.split(x, np.cumsum(sizes)[:-1])
    ghosts = [(g - g.mean(others)) / np.sqrt(g.var(others) + epsilon) for g in ghosts]
    output = np.concatenate(ghosts) * GAMMA + BETA
    return np.moveaxis(output, -1, axis), x.mean(others), x.var(others)


def compiled(layer, x):
    """The layer in training, in a compiled function of batches of any size where there are such."""
    if TENSORFLOW:
        import tensorflow as tf

        signature = [tf.TensorSpec([None, *x.shape[1:]])]
        return tf.function(lambda x: layer(x, training=True), input_signature=signature)(x)
    import jax

    variables = layer.non_trainable_variables

    @jax.jit
    def run(x):
        with keras.StatelessScope() as scope:
            output = layer(x, training=True)
        return output, [scope.get_current_value(v) for v in variables]

    output, state = run(x)
    for variable, value in zip(variables, state, strict=True):
        variable.assign(value)
    return output


def run(layer, x, how):
    return array(compiled(layer, x) if how == "compiled" else layer(x, training=True))


HOWS = pytest.mark.parametrize("how", ["eager", "compiled"])


@HOWS
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_each_ghost_batch_is_normalized_by_itself(shape, axis, how):
    x = numbers(shape, axis)
    layer = layer_for(x, 8, axis=axis, momentum=0.9)
    expected, mean, variance = by_hand(x, [8, 8, 8], axis)
    np.testing.assert_allclose(run(layer, x, how), expected, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(array(layer.moving_mean), 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(array(layer.moving_variance), 0.9 + 0.1 * variance, rtol=1e-5)


@HOWS
@pytest.mark.parametrize(
    ("examples", "virtual", "sizes"),
    [
        (7, 8, [7]),
        (11, 8, [11]),
        (12, 8, [12]),
        (3, 2, [3]),
        (13, 8, [7, 6]),
        (17, 8, [9, 8]),
        (22, 8, [8, 7, 7]),
        (26, 8, [9, 9, 8]),
        (5, 1, [1] * 5),
        (1, 8, [1]),
    ],
)
def test_uneven_batches_are_cut_into_nearly_equal_parts(examples, virtual, sizes, how):
    x = numbers((examples, 2, 3))
    layer = layer_for(x, virtual, momentum=0.0)
    expected, mean, variance = by_hand(x, sizes)
    np.testing.assert_allclose(run(layer, x, how), expected, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(array(layer.moving_mean), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(array(layer.moving_variance), variance, rtol=1e-5)


@pytest.mark.parametrize("virtual", [1, 2, 3, 7, 32])
def test_parts_hold_every_example_and_stay_near_the_virtual_size(virtual):
    layer = GhostBatchNormalization(virtual)
    for n in range(1, 200):
        parts = layer._parts(n)
        assert sum(number * size for number, size in parts) == n
        assert all(number > 0 for number, _ in parts)
        if n >= virtual:
            assert all(2 / 3 * virtual <= size <= 1.5 * virtual for _, size in parts)
        if n % virtual == 0:
            assert parts == [(n // virtual, virtual)]


@HOWS
@pytest.mark.parametrize("virtual", [24, 1000])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_one_ghost_batch_is_batch_normalization(shape, axis, virtual, how):
    x = numbers(shape, axis)
    ghost, ordinary = layer_for(x, virtual, axis=axis), layer_for(x, axis=axis)
    np.testing.assert_allclose(run(ghost, x, how), run(ordinary, x, how), rtol=1e-5, atol=1e-5)
    for a, b in zip(ghost.variables, ordinary.variables, strict=True):
        np.testing.assert_allclose(array(a), array(b), rtol=1e-5, atol=1e-6)


def network(norm, **compiled):
    init = keras.initializers.GlorotUniform
    layers = [keras.layers.Dense(3, kernel_initializer=init(0)), norm()]
    layers += [keras.layers.Activation("tanh"), keras.layers.Dense(1, kernel_initializer=init(1))]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(keras.optimizers.SGD(0.1), "mse", **compiled)
    return model


def weights_after_a_step(norm, x, y):
    """Which are the gradients, for all that matters."""
    model = network(norm)
    model.train_on_batch(x, y)
    return [array(v) for v in model.weights]


def test_gradients_of_one_ghost_batch_are_those_of_batch_normalization():
    x, y = numbers((24, 3)), numbers((24, 3))[:, :1]
    ghost = weights_after_a_step(lambda: GhostBatchNormalization(24), x, y)
    ordinary = weights_after_a_step(keras.layers.BatchNormalization, x, y)
    smaller = weights_after_a_step(lambda: GhostBatchNormalization(6), x, y)
    for a, b in zip(ghost, ordinary, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert max(np.abs(a - b).max() for a, b in zip(ghost, smaller, strict=True)) > 1e-3


def test_a_step_on_two_ghost_batches_is_the_mean_of_a_step_on_each():
    # Of the weights: their gradients are sums over examples, and ghost batches do not mix.
    x, y = numbers((17, 3)), numbers((17, 3))[:, :1]
    ghost = network(lambda: GhostBatchNormalization(8))
    start = [array(v) for v in ghost.trainable_variables]
    ghost.train_on_batch(x, y)
    moves = []
    for part in (slice(0, 9), slice(9, 17)):
        model = network(keras.layers.BatchNormalization)
        model.train_on_batch(x[part], y[part])
        moves.append([array(v) - w for v, w in zip(model.trainable_variables, start, strict=True)])
    for v, w, a, b in zip(ghost.trainable_variables, start, *moves, strict=True):
        np.testing.assert_allclose(array(v) - w, (9 * a + 8 * b) / 17, rtol=1e-4, atol=1e-6)


def test_moving_statistics_estimate_the_population_whatever_the_virtual_size():
    x = numbers((4000, 3))
    layer = layer_for(x, 4, momentum=0.0)
    output = array(layer(x, training=True))
    np.testing.assert_allclose(array(layer.moving_variance), [1, 4, 0.25], rtol=0.1)
    # Whereas the mean of the ghost variances is a quarter short.
    within = x.reshape(1000, 4, 3).var(axis=1).mean(axis=0)
    np.testing.assert_allclose(within, 0.75 * x.var(axis=0), rtol=0.05)
    np.testing.assert_allclose(((output - BETA) / GAMMA).mean(axis=0), 0, atol=1e-3)


def test_inference_and_frozen_layers_are_batch_normalization():
    x = numbers((24, 3))
    ghost, ordinary = layer_for(x, 8), layer_for(x)
    for training, trainable in [(False, True), (True, False), (False, False)]:
        outputs = []
        for layer in (ghost, ordinary):
            layer.trainable = trainable
            layer.moving_mean.assign([0.5, 4.0, -2.0])
            layer.moving_variance.assign([2.0, 3.0, 4.0])
            outputs.append(array(layer(x, training=training)))
            np.testing.assert_array_equal(array(layer.moving_mean), [0.5, 4, -2])
            np.testing.assert_array_equal(array(layer.moving_variance), [2, 3, 4])
        np.testing.assert_array_equal(*outputs)


def test_recalibration_sets_it():
    x = numbers((24, 3))
    model = keras.Sequential([keras.Input((3,)), GhostBatchNormalization(8)])
    recalibrate_batchnorm(model, x, batch_size=10)
    np.testing.assert_allclose(array(model.layers[0].moving_mean), x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(array(model.layers[0].moving_variance), x.var(axis=0), rtol=1e-5)


@pytest.mark.parametrize("virtual", [8, 24])
def test_half_precision_has_statistics_in_single_precision(virtual):
    # The squares of such numbers overflow float16, and 300 of them do not add up in it.
    x = 1000 + 300 * numbers((24, 100, 3)).astype("float32")
    layer = layer_for(x, virtual, dtype="mixed_float16", momentum=0.0)
    output = layer(x.astype("float16"), training=True)
    assert keras.backend.standardize_dtype(output.dtype) == "float16"
    expected, mean, variance = by_hand(x.astype("float16"), [virtual] * (24 // virtual))
    np.testing.assert_allclose(array(output), expected, atol=0.01)
    np.testing.assert_allclose(array(layer.moving_mean), mean, rtol=1e-5)
    np.testing.assert_allclose(array(layer.moving_variance), variance, rtol=1e-5)


def test_large_offsets_do_not_cancel():
    x = (4096 + RNG.standard_normal((64, 3))).astype("float32")
    layer = layer_for(x, 16, momentum=0.0)
    expected, _, variance = by_hand(x, [16] * 4)
    np.testing.assert_allclose(array(layer(x, training=True)), expected, atol=5e-3)
    np.testing.assert_allclose(array(layer.moving_variance), variance, rtol=1e-3)


def test_without_scale_and_center():
    x = numbers((24, 3))
    layer = GhostBatchNormalization(8, scale=False, center=False)
    expected, *_ = by_hand(x, [8, 8, 8])
    output = array(layer(x, training=True))
    np.testing.assert_allclose(output, (expected - BETA) / GAMMA, rtol=1e-5, atol=2e-5)
    assert len(layer.weights) == 2


def trained(engine):
    """The weights after training and the histories of three models."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((53, 3)), rng.standard_normal((53, 1))  # a last batch of 13
    data = x.astype("float32"), y.astype("float32")
    ghost = functools.partial(GhostBatchNormalization, 8, momentum=0.8)
    fits = [Fit(network(ghost), data, 20, 3, data, seed=seed) for seed in range(3)]
    histories = train(fits, engine)
    return [[array(v) for v in fit.model.weights] for fit in fits], histories


@pytest.fixture(scope="module")
def plainly_trained():
    return trained("plain")


@pytest.mark.parametrize("engine", ["fused", "stacked"])
def test_engines_agree(engine, plainly_trained):
    if engine == "stacked" and TENSORFLOW:
        pytest.skip("stacking needs JAX")
    weights, histories = trained(engine)
    for a, b in zip(weights, plainly_trained[0], strict=True):
        for v, w in zip(a, b, strict=True):
            np.testing.assert_allclose(v, w, rtol=2e-4, atol=1e-5)
    for a, b in zip(histories, plainly_trained[1], strict=True):
        for name in ("loss", "val_loss"):
            np.testing.assert_allclose(a.history[name], b.history[name], rtol=2e-5)


def test_training_moves_the_statistics_by_numpy():
    x, y = numbers((53, 3)), numbers((53, 3))[:, :1]
    layer = GhostBatchNormalization(8, momentum=0.8)
    model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=8)
    model.fit(x, y, batch_size=20, shuffle=False, verbose=0)
    mean, variance = np.zeros(3), np.ones(3)
    for batch in (x[:20], x[20:40], x[40:]):
        mean, variance = 0.8 * mean + 0.2 * batch.mean(0), 0.8 * variance + 0.2 * batch.var(0)
    np.testing.assert_allclose(array(layer.moving_mean), mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(array(layer.moving_variance), variance, rtol=1e-5)


def test_saved_and_loaded(tmp_path):
    x = numbers((24, 3))
    model = keras.Sequential(
        [keras.Input((3,)), GhostBatchNormalization(np.int64(8), momentum=0.7, epsilon=0.1)]
    )
    model.compile("sgd", "mse")
    model.fit(x, x, batch_size=24, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    layer = loaded.layers[0]
    assert isinstance(layer, GhostBatchNormalization)
    assert (layer.virtual_batch_size, layer.momentum, layer.epsilon) == (8, 0.7, 0.1)
    for training in (False, True):
        outputs = [array(m(x, training=training)) for m in (model, loaded)]
        np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("size", [0, -1, 1.5, 8.0, "8", None, True])
def test_virtual_batch_size_out_of_range(size):
    with pytest.raises(ValueError, match=r"`virtual_batch_size` must be .*Received: virt"):
        GhostBatchNormalization(size)


@pytest.mark.parametrize("name", ["renorm", "synchronized"])
def test_what_it_cannot_do_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be False.*Received: {name}=True"):
        GhostBatchNormalization(8, **{name: True})


@pytest.mark.parametrize("axis", [0, -2])
def test_axis_of_the_examples_is_refused(axis):
    with pytest.raises(ValueError, match=f"`axis` must be .*Received: axis={axis}"):
        GhostBatchNormalization(8, axis=axis)(numbers((24, 3)))


def test_mask_is_refused_in_training_alone():
    steps = keras.Input((4, 3))
    model = keras.Model(steps, GhostBatchNormalization(8)(keras.layers.Masking(0.0)(steps)))
    x = numbers((24, 4, 3))
    model(x, training=False)
    with pytest.raises(ValueError, match="`mask` must be None in training"):
        model(x, training=True)

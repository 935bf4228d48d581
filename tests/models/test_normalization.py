import keras
import numpy as np
import pytest

from models import convnet, mlp, resnet
from models.normalization import normalization

pytestmark = pytest.mark.both_backends

X = np.random.default_rng(0).normal(3.0, 2.0, size=(5, 4, 6, 16)).astype("float32")


def applied(kind, x):
    return keras.ops.convert_to_numpy(normalization(kind, x.shape[-1])(x, training=True))


def standardized(x, axis):
    epsilon = 1e-3  # Keras's
    return (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + epsilon)


def test_batch_is_over_examples_and_positions():
    np.testing.assert_allclose(applied("batch", X), standardized(X, (0, 1, 2)), atol=1e-4)


def test_layer_is_over_positions_and_channels():
    np.testing.assert_allclose(applied("layer", X), standardized(X, (1, 2, 3)), atol=1e-4)


def test_layer_on_a_dense_layer_is_layer_normalization():
    x = X[:, 0, 0]
    expected = keras.ops.convert_to_numpy(keras.layers.LayerNormalization()(x))
    np.testing.assert_allclose(applied("layer", x), expected, atol=1e-5)


def test_group_is_over_positions_and_a_few_channels():
    groups = X.reshape(5, 4, 6, 4, 4)  # 16 channels: 4 groups of 4
    expected = standardized(groups, (1, 2, 4)).reshape(X.shape)
    np.testing.assert_allclose(applied("group", X), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [(1, 1), (4, 1), (7, 1), (8, 2), (10, 2), (13, 1), (16, 4), (32, 8), (96, 8)],
)
def test_groups_divide_the_channels_and_none_is_a_single_unit(channels, groups):
    assert normalization("group", channels).groups == groups


def test_none_is_the_identity():
    assert normalization("none", 16)(X) is X


def test_every_call_returns_a_fresh_layer():
    assert normalization("batch", 16) is not normalization("batch", 16)


def test_a_callable_is_called_once_for_every_place():
    made = []

    def layer():
        made.append(keras.layers.BatchNormalization(momentum=0.5))
        return made[-1]

    model = convnet((8, 8, 1), 10, normalization=layer)
    assert [x for x in model.layers if x in made] == made
    assert len(made) == 6
    assert not any(x.use_bias for x in model.layers if isinstance(x, keras.layers.Conv2D))


@pytest.mark.parametrize("build", [convnet, mlp, resnet])
@pytest.mark.parametrize("wrong", ["instance", "", None, "Batch"])
def test_unknown_names_are_refused_with_the_choices(build, wrong):
    with pytest.raises(ValueError, match=r"none, batch, layer, group.*Received: normalization="):
        build((8, 8, 1), 10, normalization=wrong)

import math

import keras
import numpy as np
import pytest

from models import mlp

pytestmark = pytest.mark.both_backends


@pytest.mark.parametrize("normalization", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (40, 1), (40,), (28, 28, 1), (4, 3, 2, 5)])
def test_output_shape_and_parameter_count(shape, normalization):
    model = mlp(shape, 7, widths=(20, 12), normalization=normalization)
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, 7)
    bias = normalization != "batch"
    norm = {"none": 0, "batch": 4, "layer": 2, "group": 2}[normalization]
    assert model.count_params() == (
        (math.prod(shape) + bias + norm) * 20 + (20 + bias + norm) * 12 + (12 + 1) * 7
    )


def test_is_what_it_says():
    """A second computation in NumPy of a network with one hidden layer."""
    model = mlp((3, 2), 4, widths=(5,), seed=1)
    x = np.random.default_rng(0).normal(size=(6, 3, 2)).astype("float32")
    kernel, bias, head, head_bias = model.get_weights()
    expected = np.maximum(x.reshape(6, 6) @ kernel + bias, 0) @ head + head_bias
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


def test_no_hidden_layer_is_a_linear_model():
    assert mlp((8, 8, 1), 10, widths=()).count_params() == 650


def test_activation_by_name_and_its_initializer():
    model = mlp((400,), 10, widths=(300,), activation="tanh")
    x = np.random.default_rng(0).normal(size=(2, 400)).astype("float32")
    kernel, bias, head, head_bias = model.get_weights()
    np.testing.assert_allclose(model(x), np.tanh(x @ kernel + bias) @ head + head_bias, atol=1e-4)
    assert kernel.var() == pytest.approx(2 / 700, rel=0.03)  # Glorot & Bengio 2010


def test_dropout_acts_in_training_alone():
    model = mlp((8, 8, 1), 10, dropout=0.5)
    x = np.ones((4, 8, 8, 1), "float32")
    assert sum(isinstance(layer, keras.layers.Dropout) for layer in model.layers) == 2
    np.testing.assert_array_equal(model(x), model(x))
    assert np.abs(np.asarray(model(x, training=True)) - np.asarray(model(x))).max() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"widths": (0,)},
        {"widths": [16, -1]},
        {"classes": 0},
        {"dropout": -0.1},
        {"dropout": 1.5},
        {"activation": "rleu"},
    ],
)
def test_arguments_out_of_range_are_refused(wrong):
    """Keras 3.12 builds a dense layer without units where Keras 3.15 refuses."""
    with pytest.raises(ValueError, match=r"[Rr]eceived|Could not interpret"):
        mlp(**{"shape": (8, 8, 1), "classes": 10} | wrong)

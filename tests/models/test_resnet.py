import math

import keras
import numpy as np
import pytest

from models import resnet

pytestmark = pytest.mark.both_backends


def trainable(model):
    return sum(math.prod(w.shape) for w in model.trainable_variables)


def expected_parameters(depth, width, channels, classes, rank=2):
    """Convolutions, scale and shift of batch normalization, dense layer; shortcuts are free."""
    n = (depth - 2) // 6
    taps = 3**rank
    convolutions = taps * channels * width + taps * width**2 * 2 * n
    for factor in (2, 4):
        convolutions += taps * (factor / 2) * factor * width**2
        convolutions += taps * (factor * width) ** 2 * (2 * n - 1)
    normalized = width * (1 + 2 * n * (1 + 2 + 4))
    return convolutions + 2 * normalized + (4 * width + 1) * classes


@pytest.mark.parametrize(
    ("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)]
)
def test_parameters_are_those_of_the_papers_table_6(depth, millions):
    expected = expected_parameters(depth, 16, 3, 10)
    assert round(expected / 1e6, 1 if depth == 110 else 2) == millions
    if depth < 50:  # building the deeper ones takes seconds and shows nothing new
        assert trainable(resnet((32, 32, 3), 10, depth=depth)) == expected


@pytest.mark.parametrize("normalization", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (5, 9, 2), (1, 1, 3), (40, 1), (40,)])
def test_output_shape_and_parameter_count(shape, normalization):
    model = resnet(shape, 7, depth=8, width=4, normalization=normalization)
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, 7)
    channels = shape[-1] if len(shape) > 1 else 1
    expected = expected_parameters(8, 4, channels, 7, rank=max(1, len(shape) - 1))
    normalized = 4 * (1 + 2 * 7)
    expected += {"none": -1, "batch": 0, "layer": 1, "group": 1}[normalization] * normalized
    assert trainable(model) == expected


def test_stages_halve_the_side_and_double_the_width():
    model = resnet((32, 32, 3), 10)
    shapes = [x.output.shape[1:] for x in model.layers if isinstance(x, keras.layers.Add)]
    assert shapes == [(32, 32, 16)] * 3 + [(16, 16, 32)] * 3 + [(8, 8, 64)] * 3


def test_the_strided_shortcut_keeps_every_second_position_and_fills_up_with_zeros():
    """With every residual branch at zero what comes out of stage two is its shortcut."""
    model = resnet((8, 8, 1), 10, depth=8, width=4, normalization="none")
    adds = [x.output for x in model.layers if isinstance(x, keras.layers.Add)]
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("float32")
    before, after = keras.Model(model.inputs, adds[:2]).predict(x, verbose=0)
    np.testing.assert_array_equal(after[..., :4], before[:, ::2, ::2])
    np.testing.assert_array_equal(after[..., 4:], 0)


def test_without_normalization_the_signal_keeps_its_scale_at_any_depth():
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype("float32")
    spread = [
        float(np.std(resnet((8, 8, 1), 10, depth=depth, normalization="none", seed=1)(x)))
        for depth in (8, 32)
    ]
    assert 0.5 < spread[0] / spread[1] < 2


def test_without_normalization_every_second_convolution_of_a_block_starts_at_zero():
    model = resnet((8, 8, 1), 10, depth=14, normalization="none")
    convolutions = [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]
    zero = [not np.any(x.kernel.numpy()) for x in convolutions]
    assert zero == [False] + [False, True] * 6


@pytest.mark.parametrize("depth", [2, 7, 18, 21, 0, -4])
def test_an_impossible_depth_is_refused(depth):
    with pytest.raises(ValueError, match=f"6n \\+ 2.*Received: depth={depth}"):
        resnet((8, 8, 1), 10, depth=depth)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"classes": 0}, {"shape": (2, 8, 8, 1)}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"Received: "):
        resnet(**{"shape": (8, 8, 1), "classes": 10} | wrong)

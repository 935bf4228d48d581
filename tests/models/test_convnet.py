import itertools

import keras
import numpy as np
import pytest

from models import convnet

pytestmark = pytest.mark.both_backends

SHAPES = [(8, 8, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3), (5, 9, 2), (1, 1, 3), (40, 1), (40,)]


def expected_parameters(shape, classes, normalization, widths, blocks):
    rank = max(1, len(shape) - 1)
    channels = [1 if len(shape) == 1 else shape[-1]]
    channels += [width for width in widths for _ in range(blocks)]
    extra = {"none": 1, "batch": 4, "layer": 3, "group": 3}[normalization]
    return (
        sum((3**rank * before + extra) * after for before, after in itertools.pairwise(channels))
        + (channels[-1] + 1) * classes
    )


@pytest.mark.parametrize("normalization", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("shape", SHAPES)
def test_output_shape_and_parameter_count(shape, normalization):
    model = convnet(shape, 7, widths=(4, 8, 12), normalization=normalization)
    assert model.input_shape == (None, *shape)
    assert model.output_shape == (None, 7)
    assert model.count_params() == expected_parameters(shape, 7, normalization, (4, 8, 12), 2)


def test_the_default_on_digits():
    """Six convolutions by hand: 1-16-16-32-32-64-64, then 64-10."""
    weights = 9 * (1 * 16 + 16 * 16 + 16 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 64 * 10
    assert convnet((8, 8, 1), 10).count_params() == weights + 2 * (16 + 32 + 64) + 10


@pytest.mark.parametrize(
    ("shape", "sides"),
    [((8, 8, 1), [8, 4, 2]), ((40, 1), [40, 20, 10]), ((5, 9, 2), [5, 2, 2]), ((3, 3, 1), [3] * 3)],
)
def test_pools_only_while_the_side_allows(shape, sides):
    model = convnet(shape, 10, blocks=1)
    convolutions = [x for x in model.layers if hasattr(x, "kernel_size")]
    assert [layer.output.shape[1] for layer in convolutions] == sides


def test_is_what_it_says():
    """A second computation in NumPy of one convolution over a signal."""
    model = convnet((6,), 3, widths=(4,), blocks=1, seed=1)
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    kernel, bias, head, head_bias = model.get_weights()
    padded = np.pad(x, [[0, 0], [1, 1]])
    hidden = np.stack([padded[:, i : i + 3] @ kernel[:, 0] + bias for i in range(6)], axis=1)
    expected = np.maximum(hidden, 0).mean(1) @ head + head_bias
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


def test_there_is_no_bias_before_batch_normalization():
    for kind, bias in (("batch", False), ("none", True)):
        layers = convnet((8, 8, 1), 10, normalization=kind).layers
        assert {x.use_bias for x in layers if isinstance(x, keras.layers.Conv2D)} == {bias}


@pytest.mark.parametrize(
    "wrong",
    [
        {"widths": ()},
        {"widths": (16, 0)},
        {"blocks": 0},
        {"classes": 0},
        {"shape": ()},
        {"shape": (2, 8, 8, 1)},
    ],
)
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="Received: "):
        convnet(**{"shape": (8, 8, 1), "classes": 10} | wrong)

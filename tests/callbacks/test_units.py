"""Which axis of a kernel counts the units depends on the layer."""

import keras
import numpy as np
import pytest
from keras import layers

from callbacks import filter_normalized_direction
from callbacks._units import unit_axes

pytestmark = pytest.mark.both_backends

# Layer, shape of an example, and for each kernel the axes that count units.
LAYERS = [
    (layers.Dense(5), (4,), {"kernel": (1,)}),
    (layers.Conv1D(5, 3), (8, 4), {"kernel": (2,)}),
    (layers.Conv2D(6, 3, groups=2), (8, 8, 4), {"kernel": (3,)}),
    (layers.Conv3D(5, 2), (4, 4, 4, 2), {"kernel": (4,)}),
    (layers.Conv1DTranspose(5, 3), (8, 4), {"kernel": (1,)}),
    (layers.Conv2DTranspose(6, 3), (8, 8, 4), {"kernel": (2,)}),
    (layers.Conv3DTranspose(5, 2), (4, 4, 4, 2), {"kernel": (3,)}),
    (layers.DepthwiseConv1D(3, depth_multiplier=2), (8, 4), {"kernel": (1, 2)}),
    (layers.DepthwiseConv2D(3, depth_multiplier=2), (8, 8, 4), {"kernel": (2, 3)}),
    (
        layers.SeparableConv1D(5, 3, depth_multiplier=2),
        (8, 4),
        {"depthwise_kernel": (1, 2), "pointwise_kernel": (2,)},
    ),
    (
        layers.SeparableConv2D(5, 3),
        (8, 8, 4),
        {"depthwise_kernel": (2, 3), "pointwise_kernel": (3,)},
    ),
    (layers.EinsumDense("abc,cd->abd", (None, 5)), (3, 4), {"kernel": (1,)}),
    (layers.EinsumDense("abc,dc->abd", (None, 5)), (3, 4), {"kernel": (0,)}),
    (layers.EinsumDense("abc,cde->abde", (3, 2, 5)), (3, 4), {"kernel": (1, 2)}),
    (layers.EinsumDense("abc,bcd->abd", (3, 5)), (3, 4), {"kernel": (0, 2)}),
    (layers.SimpleRNN(5), (3, 4), {"kernel": (1,), "recurrent_kernel": (1,)}),
    (layers.LSTM(5), (3, 4), {"kernel": (1,), "recurrent_kernel": (1,)}),
    (
        layers.Bidirectional(layers.GRU(5)),
        (3, 4),
        {"kernel": (1,), "recurrent_kernel": (1,)},
    ),
    (layers.ConvLSTM1D(3, 2), (3, 6, 2), {"kernel": (2,), "recurrent_kernel": (2,)}),
    (layers.TimeDistributed(layers.Conv1DTranspose(5, 3)), (2, 8, 4), {"kernel": (1,)}),
    (layers.Embedding(7, 4), (3,), {"embeddings": (1,)}),
    (layers.PReLU(), (3, 4), {}),
    (layers.LayerNormalization(axis=[1, 2]), (3, 4), {}),
]


@pytest.mark.parametrize(
    ("layer", "shape", "expected"), LAYERS, ids=[f"{a.name}-{len(b)}" for a, b, _ in LAYERS]
)
def test_every_unit_has_the_norm_of_its_weights(layer, shape, expected):
    model = keras.Sequential([keras.Input(shape), layer])
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:  # units of different size, as training makes them
        variable.assign(rng.standard_normal(variable.shape) * rng.uniform(0.1, 10, variable.shape))
    seen = set()
    for variable, d in zip(
        model.trainable_variables, filter_normalized_direction(model), strict=True
    ):
        if variable.name not in expected:
            assert not d.any(), variable.name
            continue
        seen.add(variable.name)
        axes = expected[variable.name]
        weights = np.asarray(variable)
        for unit in np.ndindex(*(weights.shape[a] for a in axes)):
            index = [slice(None)] * weights.ndim
            for axis, i in zip(axes, unit, strict=True):
                index[axis] = i
            norms = [np.linalg.norm(array[tuple(index)]) for array in (d, weights)]
            assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert seen == set(expected)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(a, b) for a, b, c in LAYERS if "kernel" in c and not hasattr(a, "cell") and len(c) == 1],
    ids=lambda a: getattr(a, "name", str(a)),
)
def test_units_are_what_a_weight_reaches(layer, shape):
    """Found by trying: weights of one unit move the same outputs, those of others do not."""
    if isinstance(layer, (layers.Bidirectional, layers.TimeDistributed)):
        pytest.skip("of what is inside")
    model = keras.Sequential([keras.Input(shape), layer])
    kernel = next(v for v in model.trainable_variables if v.name == "kernel")
    before, x = np.asarray(kernel).copy(), np.random.default_rng(0).uniform(1, 2, (1, *shape))
    output = np.asarray(model(x))
    axes = unit_axes(model)[id(kernel)]
    reached = {}
    for index in np.ndindex(*before.shape):
        moved = before.copy()
        moved[index] += 1
        kernel.assign(moved)
        changed = np.abs(np.asarray(model(x)) - output) > 1e-4
        # Positions differ for weights of one filter, channels and heads do not.
        channels = tuple(np.unique(np.nonzero(changed)[-1]).tolist())
        reached.setdefault(tuple(index[a] for a in axes), set()).add(channels)
    kernel.assign(before)
    assert all(len(channels) == 1 for channels in reached.values())
    assert len(reached) >= output.shape[-1]


def test_heads_of_attention_are_units():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 4))
    attention = layers.MultiHeadAttention(num_heads=2, key_dim=5)
    model = keras.Model(inputs, attention(inputs, inputs))
    axes = {v.path.split("/")[-2]: unit_axes(model)[id(v)] for v in model.trainable_variables
            if v.name == "kernel"}  # fmt: skip
    assert axes["query"] == axes["key"] == axes["value"] == (1, 2)  # (inputs, heads, dimensions)
    assert axes["attention_output"] == (2,)  # (heads, dimensions, outputs)
    biases = [v for v in model.trainable_variables if v.name == "bias"]
    assert biases
    assert not any(unit_axes(model)[id(v)] for v in biases)

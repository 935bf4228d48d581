"""A multilayer perceptron."""

from collections.abc import Callable, Sequence

import keras

from models.arguments import check_sizes
from models.normalization import normalization as normalize
from models.normalization import takes_bias
from models.seeds import seeds

# Activations that saturate keep their variance under Glorot & Bengio 2010; the ReLU family
# under He et al. 2015.
SATURATING = ("sigmoid", "softsign", "tanh")


def mlp(
    shape: tuple[int, ...],
    classes: int,
    *,
    widths: Sequence[int] = (128, 128),
    normalization: str | Callable = "none",
    dropout: float = 0.0,
    activation: str = "relu",
    seed: int = 0,
) -> keras.Model:
    """Builds a multilayer perceptron: dense, normalization, activation, dropout for each width.

    Args:
        shape: Shape of one example, of any number of axes; it is flattened.
        classes: Number of logits.
        widths: Units of each hidden layer; empty for a linear model.
        normalization: `"none"`, `"batch"`, `"layer"` or `"group"`, after each hidden dense layer.
        dropout: Rate after each hidden activation (Srivastava et al. 2014).
        activation: Name of the hidden activation.
        seed: Non-negative integer; it alone determines the initial weights and the dropout masks.

    Returns:
        An uncompiled functional model, `(batch, *shape)` to logits `(batch, classes)`.

    Raises:
        ValueError: If an argument is out of range.

    Example:
    >>> model = mlp((8, 8, 1), 10, widths=(32,))
    >>> model.output_shape
    (None, 10)
    >>> model.count_params()  # 64 * 32 + 32, and 32 * 10 + 10
    2410
    """
    check_sizes(classes=classes, widths=widths)
    seed_of = seeds(seed)
    kernel = (
        keras.initializers.GlorotNormal if activation in SATURATING else keras.initializers.HeNormal
    )
    inputs = keras.Input(tuple(shape))
    x = keras.layers.Flatten()(inputs)
    for width in widths:
        x = keras.layers.Dense(
            width,
            use_bias=takes_bias(normalization),
            kernel_initializer=kernel(seed=next(seed_of)),
        )(x)
        x = normalize(normalization, width)(x)
        x = keras.layers.Activation(activation)(x)
        if dropout:
            x = keras.layers.Dropout(dropout, seed=next(seed_of))(x)
    head = keras.initializers.GlorotUniform(seed=next(seed_of))
    return keras.Model(inputs, keras.layers.Dense(classes, kernel_initializer=head)(x), name="mlp")

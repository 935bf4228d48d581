"""What a classifier's outputs are, and probabilities made of them."""

import keras
import numpy as np
from scipy.special import expit, softmax

BINARY = {keras.losses.binary_crossentropy, keras.losses.binary_focal_crossentropy}
CROSS_ENTROPIES = BINARY | {
    keras.losses.categorical_crossentropy,
    keras.losses.categorical_focal_crossentropy,
    keras.losses.sparse_categorical_crossentropy,
}
# Sums of 1000 probabilities in float16 are off by less.
TOLERANCE = 0.01


def probabilities(model, outputs, from_logits=None):
    """Probabilities from what `model.predict` gave, float32 at least.

    Outputs are one probability each, to be had from a logit by a sigmoid, if the model ends in a
    sigmoid, is trained on a binary cross-entropy, or has one unit. All others are classes along
    the last axis, and the function is softmax.

    Args:
        model: A compiled `keras.Model`.
        outputs: An array, or a structure of one.
        from_logits: Whether the outputs are logits. None: they are not if the model ends in a
            softmax or sigmoid, else as the compiled cross-entropy has it.

    Returns:
        An array of its shape.

    Raises:
        ValueError: If there are several outputs, it cannot be told what they are, or they are not
            the probabilities that they should be. (NaN is let through.)
    """
    arrays = keras.tree.flatten(outputs)
    if len(arrays) != 1:
        raise ValueError(
            "Only the probabilities of a model with one output can be averaged; go through "
            f"`members()` for others. Received: {len(arrays)} outputs"
        )
    outputs = arrays[0]
    loss = getattr(model, "loss", None)
    activation, (loss_says, binary) = _last_activation(model), _told_by(loss)
    sigmoid = activation == "sigmoid" or (
        activation != "softmax" and (binary or outputs.shape[-1] == 1)
    )
    if from_logits is None:
        from_logits = False if activation in ("sigmoid", "softmax") else loss_says
    if from_logits is None:
        raise ValueError(
            "`from_logits` must be given if neither the last layer (softmax, sigmoid) nor the loss "
            "(a cross-entropy of Keras) tells whether outputs are logits. "
            f"Received: activation={activation!r}, loss={loss!r}"
        )
    outputs = outputs.astype(np.promote_types(outputs.dtype, "float32"))
    if from_logits:
        return expit(outputs) if sigmoid else softmax(outputs, axis=-1)
    total = outputs if sigmoid else outputs.sum(axis=-1)
    low, high = (0, 1) if sigmoid else (1, 1)
    wrong = (total < low - TOLERANCE) | (total > high + TOLERANCE)
    if np.any(wrong) or np.any(outputs < -TOLERANCE):
        raise ValueError(
            "The model's outputs must be probabilities, as its last layer or its loss says: "
            f"between 0 and 1{'' if sigmoid else ', with sum 1'}. "
            f"Received: activation={activation!r}, loss={loss!r}, "
            f"outputs from {outputs.min():.3g} to {outputs.max():.3g}"
        )
    return outputs


def _told_by(loss):
    """Whether a loss takes logits (None: it does not say), and whether it is a binary one."""
    losses = keras.tree.flatten(loss)  # a list or dictionary of one, for a model of one output
    if len(losses) != 1 or losses[0] is None:
        return None, False
    loss = losses[0]
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):  # known to `compile` only
        return False, False
    loss = keras.losses.get(loss)
    function = getattr(loss, "fn", loss)
    default = False if function in CROSS_ENTROPIES else None
    return getattr(loss, "from_logits", default), function in BINARY


def _last_activation(layer):
    """Name of the activation that a model ends in, if it is known."""
    outputs = getattr(layer, "outputs", None)
    if isinstance(layer, keras.Model) and outputs and hasattr(outputs[0], "_keras_history"):
        return _last_activation(outputs[0]._keras_history.operation)
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", None)

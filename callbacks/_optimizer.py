"""The optimizer that makes the steps of a model, and how many it has made."""

import keras


def inner_optimizer(optimizer):
    """The optimizer that makes the steps: of a `LossScaleOptimizer` the one inside it."""
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
    return optimizer


def steps_of(optimizer):
    """How many steps an optimizer has made, or the one inside it; 0 if it does not count them."""
    # Not `iterations`, which counts updates where gradients of several steps are accumulated.
    count = getattr(inner_optimizer(optimizer), "_iterations", 0)
    return int(keras.ops.convert_to_numpy(count))

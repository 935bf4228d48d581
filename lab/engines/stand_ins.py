"""Models kept for what others compile for them, where they are shown to be alike.

Measurements such as the curvature compile something for the model that they are given. In many
trials of one worker that is the same network with other weights in it; so these are lent to a copy.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from lab.engines.alike import describe
from lab.engines.arrays import as_arrays, taken
from lab.engines.building import build
from lab.machine.isolation import Surroundings

MOST_KEPT = 24
MOST_PARAMETERS = 2_000_000  # of larger models, memory is worth more than the time to compile
log = logging.getLogger(__name__)
_kept: dict[tuple, Any] = {}


def stand_in(model, data: Sequence):
    """A kept model like `model`, with its values now: what was compiled for others serves it.

    For measurements that compile something (`callbacks.SharpnessProbe`, `gradient_noise`) in many
    trials of one worker. It holds until the next call for a model that is alike; what is done to
    its weights is not done to `model`.

    It is a copy made from the model's configuration, which does not say all: it is used only if
    everything that can be reached from it is as it is in the model (`lab.engines.alike`).

    Args:
        model: A `keras.Model` that is built and compiled.
        data: `(x, y)`, such as it is trained on.

    Returns:
        The kept model, or `model` itself if no copy is shown to be alike.
    """
    batch = taken(as_arrays("data", data), slice(2))
    try:
        build(model, batch)
        if model.count_params() > MOST_PARAMETERS:
            return model
        key = describe(model).key
        if key not in _kept:
            while len(_kept) >= MOST_KEPT:
                _kept.pop(next(iter(_kept)))
            _kept[key] = _copy(model, batch, key)
    except Exception as error:  # nothing is known of a part of it, or it cannot be copied
        log.debug("No stand-in: %r", error)
        return model
    if _kept[key] is None:
        return model
    _lend(_kept[key], model)
    return _kept[key]


def _copy(model, batch: Sequence, key: tuple):
    """A copy with the same key, or None."""
    import keras

    try:
        with Surroundings():  # what the copy draws and names must not be missing elsewhere
            copy = keras.models.clone_model(model)
            copy.compile_from_config(model.get_compile_config())
            build(copy, batch)
    except Exception as error:  # a configuration that does not build what it describes
        log.debug("No stand-in: %r", error)
        return None
    return copy if describe(copy).key == key and len(_all(copy)) == len(_all(model)) else None


def _lend(copy, model) -> None:
    for own, other in zip(_all(copy), _all(model), strict=True):
        own.assign(np.array(other))  # its own: JAX's arrays are given away when Keras trains


def _all(model) -> list:
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]

"""A training by `model.fit` or by an engine, and whether two of them are the same."""

import keras
import numpy as np

from lab import Fit, train

ENGINES = ("plain", "fused", *(["stacked"] if keras.backend.backend() == "jax" else []))


def history_of(how, model, data, validation=None, **asked):
    """The history by name. The order is that of the data: to be used with the fixture `in_order`.

    Args:
        how: "fit", or the name of an engine.
        model: A compiled model; it is trained.
        data: `(x, y)` or `(x, y, sample_weight)`.
        validation: Likewise, or None.
        **asked: Batch size, epochs and callbacks, as of `fit`.
    """
    if how != "fit":
        return train(Fit(model, data, validation=validation, **asked), how).history
    given = dict(zip(("x", "y", "sample_weight"), data, strict=False))
    quietly = {"validation_data": validation, "shuffle": False, "verbose": 0}
    return model.fit(**given, **quietly, **asked).history


def assert_same_numbers(expected, seen, rtol, atol):
    """Of two dictionaries by name, whose order counts too."""
    assert list(expected) == list(seen)
    for name, values in expected.items():
        np.testing.assert_allclose(seen[name], values, rtol=rtol, atol=atol, err_msg=name)


def assert_same_weights(expected, seen, rtol, atol):
    """Of two lists of arrays or variables."""
    for one, two in zip(expected, seen, strict=True):
        np.testing.assert_allclose(np.asarray(two), np.asarray(one), rtol=rtol, atol=atol)

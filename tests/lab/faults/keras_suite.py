"""A pytest plugin: `Model.fit` of Keras's own tests goes through the engine, and is counted.

Loaded with `-p tests.lab.faults.keras_suite`. Every call with arrays is routed; what a `Fit` has no
word for (a `validation_split`, say) goes to `fit` itself and counts as not routed.
"""

import json
import logging
import os

import keras
import numpy as np

COUNTS = {"routed": 0, "fused": 0, "fell back": 0, "raised": 0, "by step": 0}
REASONS: dict = {}
# Many of the tests' models are layers that inherit from the trainer alone.
TRAINER = next(kind for kind in keras.Model.__mro__ if "fit" in vars(kind))
_fit = TRAINER.fit
_inside = [False]


def _are_arrays(*parts):
    return all(
        part is None or hasattr(part, "__array__") or type(part).__name__ == "RaggedTensor"
        for part in keras.tree.flatten(parts)
    )


def fit(self, x=None, y=None, batch_size=None, epochs=1, verbose="auto", callbacks=None, **more):
    """`Model.fit` by the fused engine, where that has the words for it."""
    if _inside[0]:  # the engine's own
        return _fit(self, x, y, batch_size, epochs, verbose, callbacks, **more)
    from lab import Fit, train
    from lab.engines import saying, steps, training

    given = dict(more)
    weight, validation = more.pop("sample_weight", None), more.pop("validation_data", None)
    shuffled = more.pop("shuffle", True)
    validation_batch_size = more.pop("validation_batch_size", None)
    flat = keras.tree.flatten((x, y))
    arrays = x is not None and _are_arrays(x, y, weight, validation) and len(flat) > 0
    asked = {k: v for k, v in more.items() if v not in (None, 0, 0.0, 1)}
    if not arrays or asked or validation_batch_size not in (None, batch_size):
        return _fit(self, x, y, batch_size, epochs, verbose, callbacks, **given)
    COUNTS["routed"] += 1
    said: list = []
    say, saying.say_once = saying.say_once, lambda how, reason: said.append((how, reason))
    _inside[0] = True
    drawn, asked_for = training.batch_order, lambda seed, epoch, n: np.arange(n)
    try:
        if not shuffled:
            training.batch_order = asked_for
        data = (x, y) if weight is None else (x, y, weight)
        size = min(batch_size or 32, int(next(p for p in flat if p is not None).shape[0]))
        made = Fit(self, data, size, epochs, validation, callbacks or (), seed=0)
        return train(made)
    except BaseException:
        COUNTS["raised"] += 1
        said.append(("raised", ""))
        raise
    finally:
        _inside[0] = False
        training.batch_order = drawn
        saying.say_once = say
        if not said:
            COUNTS["fused"] += 1
        elif said[-1][0] != "raised":
            COUNTS["by step" if said[0][0] == steps.INSTEAD else "fell back"] += 1
            REASONS[said[0][1]] = REASONS.get(said[0][1], 0) + 1


def pytest_configure(config):
    """Route, and count what no log says twice."""
    logging.getLogger("lab").setLevel(logging.ERROR)  # the tests look at others
    if os.environ.get("LAB_ROUTED") != "0":
        TRAINER.fit = fit


def pytest_sessionfinish(session):
    """Leave the counts."""
    if path := os.environ.get("LAB_COUNTS"):
        with open(path, "w") as file:
            json.dump({"counts": COUNTS, "reasons": REASONS}, file)

"""What was compiled for a model, kept for as long as `fit` keeps what it has compiled.

That is until `compile`, or until somebody has the training function made anew. What is set on
layers in between counts for neither.
"""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np

# An engine's passes: a generator that is sent ("train", epoch) and an order, and yields the logs.
Passes = Generator[Any, tuple[tuple[str, int], np.ndarray], None]


def functions_made(model, kind: str):
    """The function of Keras's that a step was, or would be, compiled into."""
    getattr(model, f"make_{kind}_function")()
    return getattr(model, f"{kind}_function")


def kept(model, kind: str, key, make: Callable):
    """What `make` compiles for a model's "train" or "test", made once for every key."""
    function = functions_made(model, kind)
    traces = model.__dict__.get("_lab_traces")
    if traces is None:
        traces = {}
        object.__setattr__(model, "_lab_traces", traces)  # Keras would track it as a layer's state
    if kind not in traces or traces[kind][0] is not function:
        traces[kind] = (function, {})
    if key not in traces[kind][1]:
        traces[kind][1][key] = make()
    return traces[kind][1][key]

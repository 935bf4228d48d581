"""What the fused engine's two backends share: what a pass is, and what is compiled for a model."""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np

# An engine's passes: a generator that is sent ("train", epoch) and an order, and yields the logs.
Passes = Generator[Any, tuple[tuple[str, int], np.ndarray], None]


def once_per_compile(model, key, make: Callable):
    """What `make` compiles for a model, kept until something that it computes with is replaced."""
    optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    with_these = [
        optimizer,
        model._compile_loss,
        model._compile_metrics,
        inner._learning_rate,
        vars(inner).get("apply"),  # a callback may have put itself around it
        *model.trainable_variables,
        *optimizer.variables,
    ]
    kept = model.__dict__.get("_fused_epochs")
    same = kept is not None and len(kept[0]) == len(with_these)
    if not same or any(a is not b for a, b in zip(kept[0], with_these, strict=True)):
        kept = (with_these, {})
        object.__setattr__(model, "_fused_epochs", kept)  # Keras would track it as a layer's state
    if key not in kept[1]:
        kept[1][key] = make()
    return kept[1][key]

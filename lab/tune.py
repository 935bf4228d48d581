"""Choosing a setting on validation data, as a step that trials share."""

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

from lab.epochs import evaluate
from lab.fit import Fit

DIVERGED = (-math.inf, -math.inf)


class Tuned(NamedTuple):
    """What `tune` chose.

    Attributes:
        choice: The best candidate.
        fit: Its `Fit`, trained; `fit.model` is the tuned model.
        history: Its history.
        at_edge: Whether it was the first or last candidate: the range may have been too narrow.
    """

    choice: Any
    fit: Fit
    history: Any
    at_edge: bool


def tune(
    make_fit: Callable[[Any], Fit], candidates: Sequence, validation: tuple
) -> Generator[list[Fit], list, Tuned]:
    """Train every candidate and keep the one with the best validation accuracy, ties by loss.

    Each costs a full training of its own; all arms that are compared must be tuned with the same
    number of candidates. Used with `yield from`. Test data is not touched. Accuracy comes first
    because an overfitted network can classify best and still have the worst loss: by loss,
    CIFAR-10 preferred a network that had never left its initial guess. Models that were compiled
    without accuracy are chosen by loss.

    Args:
        make_fit: Makes a `Fit` with a fresh model for a candidate.
        candidates: In order (of size, say), so that the ends are the edges.
        validation: `(x, y)` to choose by.

    Raises:
        ArithmeticError: If every candidate diverged.

    Example:
    ```python
    best = yield from tune(lambda rate: Fit(fresh(rate), data.train, epochs=10),
                           [0.01, 0.1, 1.0], data.validation)
    ```
    """
    fits = [make_fit(candidate) for candidate in candidates]
    for fit in fits:
        fit.may_diverge = True
    histories = yield fits
    scores = [
        _score(fit.model, history, validation) for fit, history in zip(fits, histories, strict=True)
    ]
    best = max(range(len(fits)), key=scores.__getitem__)
    if scores[best] == DIVERGED:
        raise ArithmeticError(f"every candidate diverged: {list(candidates)}")
    edge = best in (0, len(fits) - 1) and len(fits) > 1
    return Tuned(candidates[best], fits[best], histories[best], edge)


def _score(model, history, validation) -> tuple[float, float]:
    if not all(map(math.isfinite, history.history["loss"])):
        return DIVERGED
    seen = evaluate(model, validation)
    if not math.isfinite(seen["loss"]):
        return DIVERGED
    return seen.get("accuracy", 0.0), -seen["loss"]

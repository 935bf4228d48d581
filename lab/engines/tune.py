"""Choosing a setting on validation data, as a step that trials share."""

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

from lab.engines.evaluation import evaluate
from lab.engines.fit import Fit

DIVERGED = (-math.inf, -math.inf)


class Tuned(NamedTuple):
    """What `tune` chose.

    Attributes:
        choice: The best candidate.
        fit: Its `Fit`, or list of them, trained; `fit.model` is the tuned model.
        history: Its history, or list of them.
        at_edge: Whether it was the first or last candidate: the range may have been too narrow.
        scores: What every candidate scored, in order, as tuples; higher is better.
        fits: The trained `Fit`s of every candidate, in order.
        candidates: As they were given.
        histories: The lists of histories of every candidate.
    """

    choice: Any
    fit: Any
    history: Any
    at_edge: bool
    scores: Sequence[tuple]
    fits: Sequence[Any]
    candidates: Sequence[Any] = ()
    histories: Sequence[list] = ()

    def by(self, score: Callable[[Any], tuple]) -> "Tuned":
        """The choice among the same trainings by another score; what diverged stays out.

        For several ways to read one training, such as averages of its weights: each has its rate.

        Args:
            score: As for `tune`.
        """
        scores = [
            DIVERGED if before == DIVERGED else _finite(score(one))
            for before, one in zip(self.scores, self.fits, strict=True)
        ]
        return _chosen(self.candidates, self.fits, self.histories, scores)


def tune(
    make_fit: Callable[[Any], Fit | list[Fit]],
    candidates: Sequence,
    validation: tuple,
    score: Callable[[Any], tuple] | None = None,
) -> Generator[list[Fit], list, Tuned]:
    """Train every candidate and keep the one with the best validation accuracy, ties by loss.

    Each costs a full training of its own; all arms that are compared must be tuned with the same
    number of candidates. Used with `yield from`. Test data is not touched. Accuracy comes first
    because an overfitted network can classify best and still have the worst loss: by loss,
    CIFAR-10 preferred a network that had never left its initial guess. Models that were compiled
    without accuracy are chosen by loss.

    Args:
        make_fit: Makes a `Fit` with a fresh model for a candidate, or a list of them (the members
            of an ensemble).
        candidates: In order (of size, say), so that the ends are the edges.
        validation: `(x, y)` to choose by.
        score: What to choose by instead: a function from what `make_fit` made, trained, to a
            tuple of numbers, the higher the better. Needed where `make_fit` makes lists, where
            batch-norm statistics must be recomputed first, or where a callback holds the result.

    Raises:
        ArithmeticError: If every candidate diverged.

    Example:
    ```python
    best = yield from tune(lambda rate: Fit(fresh(rate), data.train, epochs=10),
                           [0.01, 0.1, 1.0], data.validation)
    ```
    """
    made = [make_fit(candidate) for candidate in candidates]
    groups = [one if isinstance(one, list) else [one] for one in made]
    fits = [fit for group in groups for fit in group]
    for fit in fits:
        fit.may_diverge = True
    answers = iter((yield fits))
    histories = [[next(answers) for _ in group] for group in groups]
    score = score or (lambda fit: _by_accuracy(fit.model, validation))
    scores = [
        _finite(score(one)) if all(map(_is_finite, own)) else DIVERGED
        for one, own in zip(made, histories, strict=True)
    ]
    if all(one == DIVERGED for one in scores):
        raise ArithmeticError(f"every candidate diverged: {list(candidates)}")
    return _chosen(candidates, made, histories, scores)


def _chosen(candidates, made, histories, scores) -> Tuned:
    best = max(range(len(made)), key=scores.__getitem__)
    edge = best in (0, len(made) - 1) and len(made) > 1
    history = histories[best] if isinstance(made[best], list) else histories[best][0]
    return Tuned(candidates[best], made[best], history, edge, scores, made, candidates, histories)


def _is_finite(history) -> bool:
    return all(map(math.isfinite, history.history["loss"]))


def _finite(score: tuple) -> tuple:
    return tuple(score) if all(map(math.isfinite, score)) else DIVERGED


def _by_accuracy(model, validation) -> tuple[float, float]:
    seen = evaluate(model, validation)
    return seen.get("accuracy", 0.0), -seen["loss"]

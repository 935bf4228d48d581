"""Members of an ensemble: how they are chosen and trained, and what each predicts."""

import functools
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from lab.engines import predictions
from lab.engines.fit import Fit
from lab.engines.tune import Tuned, tune

Prepare = Callable[[Any], object]


class TunedMembers(NamedTuple):
    """What `tune_members` chose and trained; `Trial.record_tuned` takes it.

    Attributes:
        tuned: For each setting among the members, what `tune` chose.
        fits: The members, trained.
    """

    tuned: Sequence[Tuned]
    fits: Sequence[Fit]

    @property
    def choice(self) -> float:
        """The rate; of several settings the geometric mean."""
        return math.prod(one.choice for one in self.tuned) ** (1 / len(self.tuned))

    @property
    def at_edge(self) -> float:
        """The share of settings whose rate was the first or the last one tried."""
        return sum(one.at_edge for one in self.tuned) / len(self.tuned)


def tune_members(
    make: Callable[[Any, int, float], list[Fit]],
    settings: Sequence,
    rates: Sequence[float],
    validation,
    *,
    most: int | None = None,
    prepare: Prepare = lambda model: None,
) -> Generator[list[Fit], list, TunedMembers]:
    """Choose each setting's rate by what it predicts with; then train more of the best setting.

    What it predicts with is the mean of all that `make` made for it: validation accuracy decides,
    then likelihood. So an ensemble of one setting and one of several are searched alike. Used with
    `yield from`. Test data is not touched.

    Args:
        make: A function of a setting, the number of a member, and a rate, to `Fit`s with fresh
            models. Setting `k` is tried as member `k`.
        settings: What members can be.
        rates: In order, as for `tune`.
        validation: What to choose by, as `data.validation`.
        most: How many members, numbered from 0, the best setting is to have. None: what was best
            of each setting are the members.
        prepare: As of `predicted`.

    Example: five alike and five that differ, after the same search.
    ```python
    alike = yield from tune_members(make, settings, rates, data.validation, most=5)
    mixed = yield from tune_members(make, settings, rates, data.validation)
    ```
    """

    def score(fits):
        whole = averaged(predicted(fits, validation.x, prepare=prepare))
        got = predictions.scores(whole, validation.y)
        return got["accuracy"], -got["nll"]

    found = []
    for k, setting in enumerate(settings):
        own = functools.partial(make, setting, k)
        found.append((yield from tune(own, rates, validation, score)))
    if most is None:
        return TunedMembers(found, [fit for one in found for fit in one.fit])
    k = max(range(len(found)), key=lambda k: max(found[k].scores))
    more = [fit for i in range(most) if i != k for fit in make(settings[k], i, found[k].choice)]
    yield more
    return TunedMembers([found[k]], [*found[k].fit, *more])


def predicted(
    fits: Iterable[Fit], x: np.ndarray, *, prepare: Prepare = lambda model: None
) -> list[np.ndarray]:
    """Each member's probabilities.

    Members are the snapshots that a training has kept, oldest first, where one of its callbacks has
    a method `members()` that goes through them (`callbacks.SnapshotEnsemble`), else how it ended.

    Args:
        fits: Trained `Fit`s.
        x: Inputs, `(n, ...)`.
        prepare: Called with each member before it predicts, to recompute batch-norm statistics.

    Returns:
        For each a float64 array of shape `(n, classes)`.
    """
    found = []
    for member in _members(fits):
        prepare(member)
        found.append(predictions.probabilities(member, x))
    return found


def _members(fits: Iterable[Fit]) -> Iterator:
    """Gives each member as a model, which may be the same one with other weights."""
    for fit in fits:
        kept = [callback for callback in fit.callbacks if hasattr(callback, "members")]
        for callback in kept:
            yield from callback.members()
        if not kept:
            yield fit.model


def averaged(members: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of members' probabilities, `(n, classes)`."""
    return sum(members[1:], start=members[0]) / len(members)

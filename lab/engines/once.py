"""Trainings that several arms of a seed need, such as a pretraining, made once per process."""

from collections.abc import Callable, Generator

from lab.engines.fit import Fit

MOST_KEPT = 32
_kept: dict[tuple, list] = {}


def once(trial, name: str, make_fit: Callable[[], Fit]) -> Generator[Fit, object, Fit]:
    """Train what other arms of this seed train too, or take over what they have trained.

    Used with `yield from`. The trial's rows do not depend on which it was: the training is a
    function of experiment, setting, seed and `name` alone, and counts as asked for either way.

    Args:
        trial: The `lab.sweeps.trial.Trial`.
        name: Distinguishes several such trainings within one experiment.
        make_fit: Makes the `Fit`, with a fresh model. It must not depend on the arm.

    Returns:
        The `Fit`, its model trained. If the weights were taken over, its callbacks have seen
        nothing and its optimizer is fresh.

    Example:
    ```python
    pretrained = yield from once(trial, "source", lambda: Fit(network(trial), source.train))
    ```
    """
    fit = make_fit()
    # Not shared between arms in whose way it may come: the first training of each has number 0.
    key = (trial.name, trial.setting, trial.seed, name, trial.asked)
    if key in _kept:
        trial.asked += 1
        fit.model.set_weights(_kept[key])
        return fit
    yield fit
    while len(_kept) >= MOST_KEPT:
        _kept.pop(next(iter(_kept)))
    _kept[key] = fit.model.get_weights()
    return fit

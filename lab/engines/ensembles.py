"""What several models predict together, and what each of them adds.

Their probabilities are averaged. `of_fits` measures trained models, `of_predictions` what they have
predicted.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lab.engines.members import Prepare, averaged, predicted
from lab.engines.predictions import scores, temperature, tempered


class Ensembles(NamedTuple):
    """The ensembles of the first 1, 2, ... of some members, on test data.

    Attributes:
        scores: For each ensemble `test_accuracy`, and `nll` and `calibration_error` at its own
            temperature, without which they cannot be compared (Ashukha et al. 2020); `raw_nll` and
            `raw_calibration_error` are without one.
        members: Each member's probabilities, `(n, classes)`.
        y: Labels, `(n,)`.
    """

    scores: Sequence[dict[str, float]]
    members: Sequence[np.ndarray]
    y: np.ndarray

    def curve(self, metric: str) -> tuple[range, list[float]]:
        """A score over the number of members, as `Trial.record_curve` takes it."""
        return range(1, len(self.scores) + 1), [each[metric] for each in self.scores]

    def gains(self, m: int) -> dict[str, float]:
        """What the ensemble of the first `m` members, at least 2, gains over them.

        Returns:
            `member_accuracy`, the mean over the `m`, and `ensemble_gain` over it. Over the first
            member alone (of snapshots the last one taken), which has `last_member_accuracy`:
            `last_member_gain`, and `gain_of_2` and `gain_of_all` for other numbers of members.
            How much the `m` differ: `disagreement`, and `disagreement_per_error` of a member.
            Those that err more also disagree more, and are not the better for it (Fort et al.
            2019, Deep Ensembles: A Loss Landscape Perspective).
        """
        each = [scores(member, self.y)["accuracy"] for member in self.members[:m]]
        mean, differ = float(np.mean(each)), disagreement(self.members[:m])
        of = [score["test_accuracy"] for score in self.scores]
        return {
            "member_accuracy": mean,
            "ensemble_gain": of[m - 1] - mean,
            "last_member_accuracy": each[0],
            "last_member_gain": of[m - 1] - each[0],
            "gain_of_2": of[1] - each[0],
            "gain_of_all": of[-1] - each[0],
            "disagreement": differ,
            "disagreement_per_error": differ / max(1 - mean, 1 / len(self.y)),
        }


def of_fits(fits: Sequence, data, *, prepare: Prepare = lambda model: None) -> Ensembles:
    """Measure the models of some trainings as ensembles. Reads the test data.

    Of snapshots of one training the last ones come first (Huang et al. 2017), of separate
    trainings the first.

    Args:
        fits: Trained `Fit`s; members are as of `predicted`.
        data: A `lab.data.Data`; validation data decides temperatures.
        prepare: As of `predicted`.

    Example:
    ```python
    measured = of_fits(fits, data, prepare=recalibrate)
    trial.record(measured.scores[-1])
    trial.record(measured.gains(len(measured.members)))
    ```
    """
    validation, test = (
        predicted(fits, part.x, prepare=prepare) for part in (data.validation, data.test)
    )
    if len(fits) < len(test):
        validation, test = validation[::-1], test[::-1]
    return of_predictions(validation, test, data.validation.y, data.test.y)


def of_predictions(
    validation: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    y_validation: np.ndarray,
    y_test: np.ndarray,
) -> Ensembles:
    """The same of what members have predicted.

    Args:
        validation: Each member's probabilities on validation data, `(n, classes)`.
        test: The same on test data.
        y_validation: Labels of the validation data, `(n,)`.
        y_test: Labels of the test data.

    Example: each is wrong about one of three, and their mean about none.
    >>> sure, torn = [0.9, 0.1], [0.4, 0.6]
    >>> two = [np.array(each) for each in ([torn, sure, sure], [sure, torn, sure])]
    >>> both = of_predictions(two, two, np.array([0, 0, 0]), np.array([0, 0, 0]))
    >>> [round(score["test_accuracy"], 2) for score in both.scores]
    [0.67, 1.0]
    >>> round(both.gains(2)["disagreement_per_error"], 2)
    2.0
    """
    found = []
    for m in range(1, len(test) + 1):
        mean, t = averaged(test[:m]), temperature(averaged(validation[:m]), y_validation)
        raw, right = scores(mean, y_test), scores(tempered(mean, t), y_test)
        found.append(
            {
                "test_accuracy": raw["accuracy"],
                "nll": right["nll"],
                "raw_nll": raw["nll"],
                "calibration_error": right["calibration_error"],
                "raw_calibration_error": raw["calibration_error"],
            }
        )
    return Ensembles(found, test, y_test)


def disagreement(members: Sequence[np.ndarray]) -> float:
    """The share of examples on which two members' predicted classes differ, mean over pairs.

    Args:
        members: Probabilities of at least two members, each `(n, classes)`.

    Example:
    >>> disagreement([np.eye(2), np.eye(2), np.eye(2)[::-1]])
    0.6666666666666666
    """
    votes = [member.argmax(-1) for member in members]
    pairs = [(a, b) for i, a in enumerate(votes) for b in votes[i + 1 :]]
    return float(np.mean([np.mean(a != b) for a, b in pairs]))


def equivalent(nll: float, independent: Sequence[float]) -> float:
    """How many independent members are as likely: the deep-ensemble equivalent.

    Args:
        nll: Of the ensemble in question, at its best temperature.
        independent: Of ensembles of 1, 2, ... independent members, likewise. What is not
            decreasing in them is noise and is replaced by the best of as many or fewer.

    Returns:
        A number from 1 to `len(independent)`, linear between neighbours; both ends stand for
        "or beyond".

    Reference:
        Ashukha et al. 2020, Pitfalls of In-Domain Uncertainty Estimation, section 5.

    Example:
    >>> equivalent(0.35, [0.5, 0.4, 0.3])
    2.5
    """
    best = np.minimum.accumulate(independent)
    sizes = np.arange(1, len(best) + 1)
    return float(np.interp(-nll, -best, sizes))

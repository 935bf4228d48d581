"""Scores of ensembles against their definitions, example by example and pair by pair."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from lab.engines import ensembles, predictions
from lab.engines.members import averaged
from tests.lab.engines.test_members import Model, Snapshots, fit_of

MEMBERS, CLASSES = 4, 3


@pytest.fixture(scope="module")
def made():
    """Members' probabilities on validation and on test data, and the labels of both."""
    rng = np.random.default_rng(0)

    def predicted(n):
        y = rng.integers(0, CLASSES, n)
        signal = 2 * np.eye(CLASSES)[y]
        each = [softmax(signal + rng.normal(size=(n, CLASSES)) * 2, -1) for _ in range(MEMBERS)]
        return each, y

    (validation, y_validation), (test, y_test) = predicted(300), predicted(200)
    return validation, test, y_validation, y_test


def mean_of(members, m):
    """The average of the first m, added up by hand."""
    total = np.zeros_like(members[0])
    for member in members[:m]:
        total = total + member
    return total / m


def likelihood(predicted, y):
    return -np.mean([np.log(predicted[i, label]) for i, label in enumerate(y)])


def test_each_ensemble_has_a_temperature_of_its_own_validation_predictions(made):
    validation, test, y_validation, y_test = made
    found = ensembles.of_predictions(*made)
    assert len(found.scores) == MEMBERS and found.members is test

    def at(predicted, t):
        powers = predicted ** (1 / t)
        return powers / powers.sum(-1, keepdims=True)

    temperatures = []
    for m, seen in enumerate(found.scores, start=1):
        own, right = mean_of(validation, m), mean_of(test, m)
        best = minimize_scalar(
            lambda t, own=own: likelihood(at(own, t), y_validation), bounds=(0.1, 9)
        )
        temperatures.append(best.x)
        assert seen["test_accuracy"] == np.mean([p.argmax() for p in right] == y_test)
        assert seen["raw_nll"] == pytest.approx(likelihood(right, y_test))
        assert seen["nll"] == pytest.approx(likelihood(at(right, best.x), y_test), rel=1e-4)
        for name, predicted in (("", at(right, best.x)), ("raw_", right)):
            error = predictions.calibration_error(predicted, y_test)
            assert seen[f"{name}calibration_error"] == pytest.approx(error, abs=1e-3)
    assert max(temperatures) > 1.2 * min(temperatures)  # the test would see another's


def test_labels_of_test_data_decide_no_temperature(made):
    validation, test, y_validation, y_test = made
    wrong = (y_test + 1) % CLASSES
    honest, other = (ensembles.of_predictions(*made[:3], y).scores for y in (y_test, wrong))
    assert honest != other
    # Probabilities are the same: what one set of labels loses, the three together do not.
    third = ensembles.of_predictions(*made[:3], (y_test + 2) % CLASSES).scores
    t = predictions.temperature(mean_of(validation, 2), y_validation)
    tempered = predictions.tempered(mean_of(test, 2), t)
    total = honest[1]["nll"] + other[1]["nll"] + third[1]["nll"]
    assert total == pytest.approx(-np.log(tempered).sum(-1).mean())


def test_gains_by_hand(made):
    _, test, _, y = made
    for m in (2, 3, MEMBERS):
        told = ensembles.of_predictions(*made).gains(m)
        right = [[p.argmax() == label for p, label in zip(t, y, strict=True)] for t in test]
        each = [np.mean(r) for r in right]
        of = {k: np.mean(mean_of(test, k).argmax(-1) == y) for k in (2, m, MEMBERS)}
        pairs = [
            np.mean([a.argmax() != b.argmax() for a, b in zip(test[i], test[j], strict=True)])
            for i in range(m)
            for j in range(i)
        ]
        error = 1 - np.mean(each[:m])
        assert told == pytest.approx(
            {
                "member_accuracy": np.mean(each[:m]),
                "ensemble_gain": of[m] - np.mean(each[:m]),
                "last_member_accuracy": each[0],
                "last_member_gain": of[m] - each[0],
                "gain_of_2": of[2] - each[0],
                "gain_of_all": of[MEMBERS] - each[0],
                "disagreement": np.mean(pairs),
                "disagreement_per_error": np.mean(pairs) / error,
            }
        )
        assert told["disagreement"] == pytest.approx(ensembles.disagreement(test[:m]))


def test_members_without_an_error_disagree_by_nothing_and_not_by_infinity():
    sure = [np.eye(2)] * 3
    told = ensembles.of_predictions(sure, sure, np.arange(2), np.arange(2)).gains(3)
    assert told["disagreement_per_error"] == 0.0 and told["member_accuracy"] == 1.0


def test_a_curve_is_over_the_number_of_members(made):
    found = ensembles.of_predictions(*made)
    sizes, values = found.curve("nll")
    assert list(sizes) == [1, 2, 3, 4] and values == [seen["nll"] for seen in found.scores]


def test_of_snapshots_the_last_come_first_and_of_trainings_the_first():
    model = Model()
    kept = fit_of(model, Snapshots(model, [1.0, 2.0, 3.0]))
    part = SimpleNamespace(x=np.linspace(-1, 1, 6), y=np.array([0, 1, 0, 1, 1, 1]))
    data = SimpleNamespace(validation=part, test=part)
    one, several = (
        ensembles.of_fits(fits, data)
        for fits in ([kept], [fit_of(Model(weight)) for weight in (3.0, 2.0, 1.0)])
    )
    assert one.scores == several.scores
    for a, b, weight in zip(one.members, several.members, (3.0, 2.0, 1.0), strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, predictions.probabilities(Model(weight), part.x))


def test_the_average_is_the_mean_over_members(made):
    np.testing.assert_allclose(averaged(made[1]), np.mean(made[1], axis=0), rtol=1e-12)
    assert np.array_equal(averaged(made[1][:1]), made[1][0])


def test_the_ensemble_equivalent_stops_at_its_ends_and_ignores_noise():
    sizes = [0.5, 0.4, 0.45, 0.3]
    assert ensembles.equivalent(0.6, sizes) == 1
    assert ensembles.equivalent(0.1, sizes) == 4
    assert 3 < ensembles.equivalent(0.35, sizes) < 4

"""Scores of probabilities against values worked out by hand, and their limits."""

import numpy as np
import pytest
from scipy.special import softmax

from lab.engines import predictions as p


def test_scores_by_hand():
    predicted = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    seen = p.scores(predicted, np.array([0, 1, 1]))
    assert seen["accuracy"] == pytest.approx(2 / 3)
    assert seen["nll"] == pytest.approx(-np.log([0.8, 0.4, 0.7]).mean())
    # three bins of one example each: |1 - .8|, |0 - .6|, |1 - .7|
    assert seen["calibration_error"] == pytest.approx((0.2 + 0.6 + 0.3) / 3)


def test_a_probability_of_zero_is_bad_but_finite():
    assert 20 < p.scores(np.array([[1.0, 0.0]]), np.array([1]))["nll"] < 30


def test_temperature_is_recovered_and_keeps_the_order():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 5)) * 2
    y = np.array([rng.choice(5, p=row) for row in softmax(logits, axis=-1)])
    for t in (0.5, 1.0, 3.0):
        too_sure = softmax(logits * t, axis=-1)
        assert p.temperature(too_sure, y) == pytest.approx(t, rel=0.05)
        assert (p.tempered(too_sure, t).argmax(-1) == too_sure.argmax(-1)).all()


def test_calibrated_predictions_have_almost_no_calibration_error():
    rng = np.random.default_rng(0)
    predicted = softmax(rng.normal(size=(20_000, 3)) * 2, axis=-1)
    y = np.array([rng.choice(3, p=row) for row in predicted])
    assert p.calibration_error(predicted, y) < 0.01
    sure = p.tempered(predicted, 0.3)
    assert p.calibration_error(sure, y) > 0.1


def test_probabilities_of_a_model_come_in_batches_of_any_size():
    class Model:
        def __call__(self, x, training):
            assert training is False
            return np.stack([x, -x], -1)

    x = np.linspace(-2, 2, 2500)
    np.testing.assert_allclose(p.probabilities(Model(), x), softmax(np.stack([x, -x], -1), axis=-1))

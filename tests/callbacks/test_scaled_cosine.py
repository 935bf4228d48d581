import numpy as np
import pytest

from callbacks import scaled_cosine

pytestmark = pytest.mark.both_backends

RATE, STEPS, GROWTH = 0.1, 200, 16


def rates(schedule, steps=STEPS):
    return np.array([float(schedule(step)) for step in range(steps + 1)])


@pytest.mark.parametrize(("rule", "factor"), [("same", 1), ("sqrt", 4)])
def test_a_cosine_from_the_scaled_rate(rule, factor):
    expected = RATE * factor * (1 + np.cos(np.pi * np.arange(STEPS + 1) / STEPS)) / 2
    got = rates(scaled_cosine(RATE, STEPS, GROWTH, rule))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_linear_rule_rises_from_the_rate_of_the_small_batch():
    warmup = STEPS // 20
    rising = np.linspace(RATE, RATE * GROWTH, warmup, endpoint=False)
    falling = np.arange(STEPS - warmup + 1) / (STEPS - warmup)
    falling = RATE * GROWTH * (1 + np.cos(np.pi * falling)) / 2
    got = rates(scaled_cosine(RATE, STEPS, GROWTH, "linear"))
    np.testing.assert_allclose(got, [*rising, *falling], atol=1e-5)


def test_trainings_too_short_to_warm_up_start_at_the_scaled_rate():
    got = rates(scaled_cosine(RATE, 19, GROWTH, "linear"), 19)
    assert got.argmax() == 0 and got[0] == pytest.approx(RATE * GROWTH)


def test_unknown_rule():
    with pytest.raises(ValueError, match="Received: rule='tuned'"):
        scaled_cosine(RATE, STEPS, rule="tuned")

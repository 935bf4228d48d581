"""Schedules by name, step by step against their formulas."""

import keras
import numpy as np
import pytest

from callbacks import scheduled_rate

pytestmark = pytest.mark.both_backends


def rates(schedule, rate, steps):
    """The rate of every step, as an optimizer has it."""
    optimizer = keras.optimizers.SGD(scheduled_rate(schedule, rate, steps))
    seen = []
    for step in range(steps):
        optimizer.iterations.assign(step)
        seen.append(float(optimizer.learning_rate))
    return seen


def test_constant():
    assert scheduled_rate("constant", 0.1, 100) == 0.1
    assert rates("constant", 0.1, 4) == pytest.approx([0.1] * 4)


@pytest.mark.parametrize("steps", [100, 40, 10])
def test_step_is_a_tenth_from_the_middle_on_and_a_hundredth_in_the_last_quarter(steps):
    half, three_quarters = steps // 2, 3 * steps // 4
    lengths = [half, three_quarters - half, steps - three_quarters]
    expected = np.repeat([0.1, 0.01, 0.001], lengths)
    np.testing.assert_allclose(rates("step", 0.1, steps), expected, rtol=1e-6)


def test_cosine_comes_down_to_zero_after_the_last_step():
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(100) / 100))
    np.testing.assert_allclose(rates("cosine", 0.1, 100), expected, rtol=1e-4, atol=1e-7)


def test_unknown_schedule():
    with pytest.raises(ValueError, match=r"`schedule` must be .*Received: schedule='linear'"):
        scheduled_rate("linear", 0.1, 100)

"""The usual ways in which a learning rate decays over a training, by name."""

from keras.optimizers import schedules

SCHEDULES = ("constant", "step", "cosine")


def scheduled_rate(schedule, rate, steps):
    """A learning rate over `steps` steps, as an optimizer takes it.

    - "constant": `rate` itself.
    - "step": `rate` in the first half, a tenth of it up to three quarters, then a hundredth.
    - "cosine": `rate * (1 + cos(pi * t / steps)) / 2` in step t, counted from 0.

    Example:
    >>> rate = scheduled_rate("step", 0.5, steps=8)
    >>> [round(float(rate(t)), 3) for t in range(8)]
    [0.5, 0.5, 0.5, 0.5, 0.05, 0.05, 0.005, 0.005]

    Args:
        schedule: One of "constant", "step" and "cosine".
        rate: The rate of the first step.
        steps: The number of steps of the whole training.

    Returns:
        A number or a `keras.optimizers.schedules.LearningRateSchedule`.

    Raises:
        ValueError: If there is no such schedule.

    Reference:
        [Loshchilov and Hutter, 2017](https://arxiv.org/abs/1608.03983), equation 5, for "cosine".
    """
    if schedule == "constant":
        return rate
    if schedule == "cosine":
        return schedules.CosineDecay(rate, steps)
    if schedule == "step":
        last_steps = [steps // 2 - 1, 3 * steps // 4 - 1]
        return schedules.PiecewiseConstantDecay(last_steps, [rate, rate / 10, rate / 100])
    raise ValueError(f"`schedule` must be one of {SCHEDULES}. Received: schedule={schedule!r}")

"""Learning-rate schedules of batches that have grown."""

import keras

POWERS = {"same": 0.0, "sqrt": 0.5, "linear": 1.0}
WARMUP = 20  # one step in so many: Goyal et al. warm up in 5 of 90 epochs


def scaled_cosine(rate, steps, growth=1.0, rule="same"):
    """A cosine schedule whose rate follows the growth of the batch size by a rule.

    - `"same"`: the rate of the small batch.
    - `"sqrt"`: times the square root of the growth, which keeps the covariance of an update
      (Krizhevsky, 2014; Hoffer et al., 2017).
    - `"linear"`: times the growth, which keeps the sum of the updates of an epoch, after rising
      from the rate of the small batch over the first twentieth of the steps (Goyal et al., 2017).

    Example:
    >>> schedule = scaled_cosine(0.1, steps=100, growth=4, rule="linear")
    >>> [round(float(schedule(step)), 2) for step in (0, 5, 100)]
    [0.1, 0.4, 0.0]

    Args:
        rate: The learning rate of the small batch.
        steps: Updates over the whole training; the rate then has come down to zero.
        growth: Size of the batch, relative to the small one.
        rule: One of the three.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`.

    Raises:
        ValueError: If `rule` is none of the three.

    Reference:
        [Krizhevsky, 2014](https://arxiv.org/abs/1404.5997);
        [Hoffer et al., 2017](https://arxiv.org/abs/1705.08741), section 4;
        [Goyal et al., 2017](https://arxiv.org/abs/1706.02677), section 2.
    """
    if rule not in POWERS:
        raise ValueError(f"`rule` must be one of {sorted(POWERS)}. Received: rule={rule!r}")
    peak = rate * growth ** POWERS[rule]
    warmup = steps // WARMUP if rule == "linear" else 0
    if not warmup:
        return keras.optimizers.schedules.CosineDecay(peak, steps)
    return keras.optimizers.schedules.CosineDecay(
        peak / growth, steps - warmup, warmup_target=peak, warmup_steps=warmup
    )

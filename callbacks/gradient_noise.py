"""How much the gradients of mini-batches scatter about the full gradient."""

from typing import NamedTuple

import numpy as np

from callbacks._probe import EpochProbe
from callbacks._surface import LossSurface

# A variance from independent draws has a relative standard error of at most sqrt(2 / draws) if
# the scatter has one direction (14 %), and less the more directions it has.
DRAWS = 100


class GradientStatistics(NamedTuple):
    """Full-gradient norm, mini-batch gradient variance, and the simple noise scale (examples)."""

    norm: float
    variance: float
    noise_scale: float


def gradient_noise(model, x, y, batch_size, draws=DRAWS, seed=0, replace=False):
    """The variance of mini-batch gradients, and the noise scale that follows from it.

    With G the gradient of the compiled loss over all n examples and g_B that over B of them,
    drawn at random, both in inference mode at the present weights:

    - `norm = |G|`
    - `variance = mean of |g_B - G|^2` over the draws
    - `noise_scale = tr(S) / |G|^2`, the simple noise scale of McCandlish et al., in examples: the
      batch size at which noise and signal are equal. S is the covariance of the gradients of
      single examples (divided by n). As `E|g_B - G|^2 = tr(S) / B` when drawing with replacement,
      and `tr(S) / B * (n - B) / (n - 1)` without, its trace is estimated by `variance * B`, or
      `variance * B * (n - 1) / (n - B)`.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> model.set_weights([np.zeros((1, 1))])
    >>> x, y = np.ones((2, 1)), np.array([[-1.0], [-2.0]])  # gradients of the examples: 2 and 4
    >>> norm, variance, noise_scale = gradient_noise(model, x, y, batch_size=1)
    >>> print(norm, variance, round(noise_scale, 4))
    3.0 1.0 0.1111

    Args:
        model: A built `keras.Model` that is compiled with a loss. It is not changed.
        x: Inputs, an array or a structure of arrays of equal length n.
        y: Targets, likewise.
        batch_size: B, at least 1; less than n without replacement.
        draws: Number of mini-batches.
        seed: Of the mini-batches.
        replace: Whether an example can be drawn twice into a batch. `fit` does not.

    Returns:
        A named tuple `(norm, variance, noise_scale)` of floats: in units of the loss per unit of
        weight, the square of that, and examples (infinite where the full gradient vanishes).

    Raises:
        ValueError: If the model has no loss, `x` is empty or differs from `y` in length,
            `batch_size` or `draws` is out of range, or a weight or gradient is not finite.

    Reference:
        [McCandlish et al., 2018](https://arxiv.org/abs/1812.06162), section 2.2.
    """
    return _gradient_noise(LossSurface(model, x, y), batch_size, draws, seed, replace)


def gradient_variances(model, x, y, seed=0, replace=False):
    """The variance of mini-batch gradients over batch sizes, which falls as 1 / batch size.

    The batch sizes are the powers of four up to the n examples. Without replacement, as an epoch
    draws, they end below n: the full batch has no variance, and zero no logarithm.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile(loss="mse")
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> batch_sizes, variances = gradient_variances(model, x, x**2, replace=True)
    >>> batch_sizes
    [1, 4, 16, 64]
    >>> slope = np.polyfit(np.log(batch_sizes), np.log(variances), 1)[0]
    >>> print(round(slope))
    -1

    Args:
        model: As for `gradient_noise`, as `x`, `y` and `replace`.
        x: Inputs.
        y: Targets.
        seed: Of the mini-batches of each size.
        replace: Whether an example can be drawn twice into a batch.

    Returns:
        Batch sizes and variances, two lists.

    Raises:
        ValueError: As `gradient_noise`.

    Reference:
        [McCandlish et al., 2018](https://arxiv.org/abs/1812.06162), section 2.2.
    """
    surface = LossSurface(model, x, y)
    n = surface.examples
    powers = [4**i for i in range(n.bit_length())]
    batch_sizes = [size for size in powers if size < n or (replace and size == n)]
    # Gradients of single examples have heavy tails: with few draws their variance comes out too
    # small more often than not, and the slope too flat (-0.94 with 100 draws).
    draws = {size: max(DRAWS, 4 * n // size) for size in batch_sizes}
    return batch_sizes, [
        _gradient_noise(surface, size, draws[size], seed, replace).variance for size in batch_sizes
    ]


class GradientNoise(EpochProbe):
    """Logs the norm of the full gradient, the mini-batch variance, and the noise scale.

    As `gradient/norm`, `gradient/variance` and `gradient/noise_scale`; see `gradient_noise`. The
    values are in the `History` of `fit`, one for each epoch in `epochs`.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.linspace(-1, 1, 8)[:, None]
    >>> noise = GradientNoise(x, x**2, batch_size=2)
    >>> history = model.fit(x, x**2, epochs=3, verbose=0, callbacks=[noise])
    >>> len(history.history["gradient/noise_scale"])
    1

    Args:
        x: Inputs, an array or a structure of arrays of equal length.
        y: Targets, likewise.
        batch_size: Size of the mini-batches.
        every: Measure at the end of every so many epochs, and at the last one. None, the default:
            only at the last one.
        draws: Number of mini-batches. They are the same in every measurement.
        seed: Of the mini-batches.

    Attributes:
        epochs: The epochs (from 0) of the last training that were measured.
        seconds: The time that all measurements have taken, tracing included.

    Raises:
        ValueError: As `gradient_noise`, when it measures; if `every` is below 1. Non-finite
            weights are logged as NaN.
    """

    names = ("gradient/norm", "gradient/variance", "gradient/noise_scale")

    def __init__(self, x, y, batch_size, every=None, draws=DRAWS, seed=0):
        super().__init__(x, y, every)
        self.batch_size, self.draws, self.seed = batch_size, draws, seed

    def _measure(self, surface):
        return list(_gradient_noise(surface, self.batch_size, self.draws, self.seed, False))


def _gradient_noise(surface, batch_size, draws, seed, replace):
    n = surface.examples
    if batch_size < 1 or (batch_size >= n and not replace):
        raise ValueError(
            "`batch_size` must be at least 1 and, without replacement, less than the number of "
            f"examples, {n}. Received: batch_size={batch_size}, replace={replace}"
        )
    if draws < 1:
        raise ValueError(f"`draws` must be at least 1. Received: draws={draws}")
    w, rng = surface.start, np.random.default_rng(seed)
    _, full = surface.value_and_gradient(w)
    square = float(full @ full)
    batches = (rng.choice(n, batch_size, replace=replace) for _ in range(draws))
    variance = float(np.mean([np.sum((surface.batch_gradient(w, b) - full) ** 2) for b in batches]))
    covariance = variance * batch_size * (1 if replace else (n - 1) / (n - batch_size))
    return GradientStatistics(
        square**0.5, variance, covariance / square if square else float("inf")
    )

"""Sharpness as the worst loss in a box around the weights."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import Bounds, minimize

from callbacks._surface import LossSurface

# As in Keskar et al. 2017.
KESKAR_ITERATIONS = 10
# Andriushchenko et al. 2023 take 20 steps of projected gradient ascent. On a digits MLP, early and
# late in training, these 20 agree with the best of many longer searches to 0.1 %.
ADAPTIVE_ITERATIONS = 20
# The share of an increase of the loss that rounding in float32 may be.
ROUNDING = 1e-2


class Sharpness(NamedTuple):
    """A measure and what rounding makes of it, at most; both in the same unit."""

    value: float
    error: float


def epsilon_sharpness(model, x, y, epsilon=1e-3, errors=False):
    """Keskar's sharpness: the largest relative increase of the loss in a box.

    `100 * (max f(w + d) - f(w)) / (1 + f(w))` over all `|d_i| <= epsilon * (|w_i| + 1)`, where f
    is the compiled loss, maximized by 10 iterations of L-BFGS-B (metric 2.1, in the full space).
    It depends on the scale of the weights.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> model.set_weights([np.array([[3.0]])])
    >>> f = epsilon_sharpness(model, np.ones((1, 1)), np.ones((1, 1)), epsilon=0.25)
    >>> print(f)  # f(3) = (3 - 1)^2 = 4, its maximum f(3 + 0.25 (3 + 1)) = 9
    100.0

    Args:
        model: A built `keras.Model` that is compiled with a loss. It is not changed.
        x: Inputs, an array or a structure of arrays of equal length.
        y: Targets, likewise.
        epsilon: Half-width of the box relative to `|w_i| + 1`. The paper uses 1e-3 and 5e-4.
        errors: Whether to return the error too.

    Returns:
        A float, percent, never negative; with `errors`, a named tuple `(value, error)`. The error
        is that of rounding. That a longer search would find more is not in it.

    Raises:
        ValueError: If the model has no loss, `x` is empty or differs from `y` in length, `epsilon`
            is not positive, or a weight or the loss in the box is not finite.

    Reference:
        [Keskar et al., 2017](https://arxiv.org/abs/1609.04836), metric 2.1.
    """
    return _epsilon_sharpness(LossSurface(model, x, y), epsilon, errors)


def adaptive_sharpness(model, x, y, rho=2e-3, errors=False):
    """Adaptive (scale-invariant) sharpness: the largest loss increase under relative changes.

    `max f(w + w * e) - f(w)` over all `|e_i| <= rho`, elementwise, where f is the compiled loss.
    Rescaling weights without changing the function, as a ReLU network allows, does not change it.
    Weights that are zero stay zero.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> model.set_weights([np.array([[2.0]])])
    >>> print(adaptive_sharpness(model, np.ones((1, 1)), np.ones((1, 1)), rho=0.5))
    3.0

    (f(2) = (2 - 1)^2 = 1, and its maximum is f(2 + 0.5 * 2) = 4.)

    Args:
        model: A built `keras.Model` that is compiled with a loss. It is not changed.
        x: Inputs, an array or a structure of arrays of equal length.
        y: Targets, likewise.
        rho: Largest relative change of a weight. The default is the middle of the radii of
            Andriushchenko et al. for networks on CIFAR-10 (0.0005 to 0.008).
        errors: Whether to return the error too.

    Returns:
        A float in units of the loss, never negative; with `errors`, a named tuple
        `(value, error)`. The error is that of rounding. That a longer search would find more is not
        in it.

    Raises:
        ValueError: If the model has no loss, `x` is empty or differs from `y` in length, `rho`
            is not positive, or a weight or the loss in the box is not finite.

    Reference:
        [Kwon et al., 2021 (ASAM)](https://arxiv.org/abs/2102.11600), with p = infinity;
        [Andriushchenko et al., 2023](https://arxiv.org/abs/2302.07011).
    """
    return _adaptive_sharpness(LossSurface(model, x, y), rho, errors)


def _epsilon_sharpness(surface, epsilon, errors=False):
    if not epsilon > 0:
        raise ValueError(f"`epsilon` must be positive. Received: epsilon={epsilon}")
    radius = epsilon * (np.abs(surface.start) + 1)
    loss, increase, error = _largest_in_box(surface, radius, KESKAR_ITERATIONS)
    found = Sharpness(100 * increase / (1 + loss), 100 * error / (1 + loss))
    return found if errors else found.value


def _adaptive_sharpness(surface, rho, errors=False):
    if not rho > 0:
        raise ValueError(f"`rho` must be positive. Received: rho={rho}")
    radius = rho * np.abs(surface.start)
    found = Sharpness(*_largest_in_box(surface, radius, ADAPTIVE_ITERATIONS)[1:])
    return found if errors else found.value


def _largest_in_box(surface, radius, iterations):
    """The loss at w, how far the largest loss in the box exceeds it, and the error of that.

    In the precision of the weights, or in float64 where rounding is too much of the increase.
    """
    loss, increase, where = _maximize_in_box(surface, radius, iterations)
    if surface.dtype == "float64" or not surface.can_be_wide():
        return loss, increase, 10 * np.finfo(surface.dtype).eps * (abs(loss) + increase)
    at_start, at_largest = (
        surface.value_and_gradient(w, wide=True)[0] for w in (surface.start, where)
    )
    error = abs(increase - max(0.0, at_largest - at_start))
    if error <= ROUNDING * increase and increase > 0:
        return loss, increase, float(error)
    loss, increase, _ = _maximize_in_box(surface.in_float64(), radius, iterations)
    return loss, increase, 10 * np.finfo("float64").eps * (abs(loss) + increase)


def _maximize_in_box(surface, radius, iterations):
    """Maximizes the loss over `w + radius * u` with `|u_i| <= 1`, by L-BFGS-B from u = 0.

    Returns:
        The loss at w, how far the largest loss met exceeds it, and where that was met.
    """
    w = where = surface.start
    u = np.zeros(surface.size)
    loss, gradient = surface.value_and_gradient(w)
    largest = loss
    if not np.any(radius * gradient):
        # Leave a critical point sideways; curvature, if there is any, does the rest.
        u = np.random.default_rng(0).uniform(-1, 1, surface.size)
        largest, gradient = surface.value_and_gradient(w + radius * u)
        where = w + radius * u
    slope = np.abs(radius * gradient)
    slope = slope[slope > 0]
    if not slope.size:
        return float(loss), max(0.0, float(largest - loss)), where

    # The first step of L-BFGS-B is the gradient, clipped to the box. Scaled such that all but the
    # smallest tenth of the slopes reach a face, it lands near the best corner however flat the
    # loss is. With the largest slope as the scale, 10 iterations miss a quarter of the maximum.
    scale = 1 / np.quantile(slope, 0.1)

    def descent(u):
        nonlocal largest, where
        f, df = surface.value_and_gradient(w + radius * u)
        if f > largest:
            largest, where = f, w + radius * u
        return -scale * (f - loss), -scale * radius * df

    minimize(
        descent,
        u,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(np.full(surface.size, -1.0), np.full(surface.size, 1.0)),
        # The objective is 0 at first, so `ftol` asks for a share of the increase so far. A flat
        # loss must not end it (gtol = 0), nor float32 noise prolong a line search (maxls).
        options={"maxiter": iterations, "ftol": 1e-6, "gtol": 0.0, "maxls": 8},
    )
    return float(loss), max(0.0, float(largest - loss)), where

"""Eigenvalues and trace of the Hessian of a model's loss.

Products with the Hessian are put to the test wherever it is measured, against symmetry and against
differences of the gradient in float64. What the backend differentiates wrongly, and what float32
does not resolve, is computed another way or refused (`callbacks._trusted`).
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from callbacks._differences import Differences
from callbacks._surface import LossSurface
from callbacks._trusted import trusted_product

# ARPACK stops when the residual |Hv - lambda v| is below this share of lambda. It bounds the
# relative error of a symmetric eigenvalue, which is usually close to its square.
TOLERANCE = 1e-4
# Restarts of at most max(2k + 1, 20) products each. One is typical, three are many.
RESTARTS = 30
# Products for a trace. Measured on a digits MLP: a standard error of 5 to 10 %, in 0.2 s.
DRAWS = 50


class Eigenvalues(NamedTuple):
    """Values and, for each, how far an eigenvalue of the Hessian is from it at most."""

    values: np.ndarray
    errors: np.ndarray


class Trace(NamedTuple("Trace", [("trace", float), ("standard_error", float)])):
    """An estimate and the standard error of it, in units of the loss per squared weight.

    Attributes:
        error: The standard error, and what may be wrong with the products besides.
    """

    error = float("nan")

    def __new__(cls, trace, standard_error, error):
        """A pair with an attribute."""
        self = super().__new__(cls, trace, standard_error)
        self.error = error
        return self


def hessian_vector_product(model, x, y):
    """The Hessian of the compiled loss as a function `v -> Hv`.

    The loss is the mean over all of `(x, y)` in inference mode, regularization losses included.
    Vectors are flat: all of `model.trainable_variables` in order, each in C order.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")  # mean of (w x - y)^2: the Hessian is 2 mean(x^2)
    >>> product = hessian_vector_product(model, np.array([[1.0], [2.0]]), np.zeros((2, 1)))
    >>> product([10.0])
    array([50.])

    Args:
        model: A built `keras.Model` that is compiled with a loss. It is not changed.
        x: Inputs, an array or a structure of arrays of equal length.
        y: Targets, likewise.

    Returns:
        A function from a vector to a float64 vector, both of shape `(number of weights,)`, at the
        weights the model has now (later changes of the model's weights do not move it). Its
        attributes: `error`, how far products are off as a share of their length, measured at a
        random vector; `size`, about the Frobenius norm of the Hessian; and `how` they are
        computed, "float32", "float64", or "differences" of the gradient in float64.

    Raises:
        ValueError: If the model has no loss, `x` is empty or differs from `y` in length, a weight
            or result is not finite, or the loss has no second derivatives that can be trusted, as
            the gradient is not its slope: the layer at fault is named.
    """
    surface = LossSurface(model, x, y)
    return trusted_product(surface, surface.start)


def top_eigenvalues(model, x, y, k=1, errors=False):
    """The `k` largest eigenvalues of the Hessian of the compiled loss, by Lanczos iteration.

    Largest means algebraically largest, not largest in magnitude. They depend on the scale of the
    weights: see `adaptive_sharpness` for a measure that does not. Estimates on few examples are
    mostly noise; use one probe set of a thousand or more throughout.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> x = np.diag([1.0, 3.0])  # the Hessian is 2 mean(x x^T) = diag(1, 9)
    >>> top_eigenvalues(model, x, np.zeros((2, 1)), k=2).round(4)
    array([9., 1.])

    Args:
        model: A built `keras.Model` that is compiled with a loss. It is not changed.
        x: Inputs, an array or a structure of arrays of equal length.
        y: Targets, likewise.
        k: How many, from 1 to the number of weights.
        errors: Whether to return errors too.

    Returns:
        A float64 array of shape `(k,)`, in decreasing order, to a relative accuracy of 1e-4 (or
        1e-3 of the most negative eigenvalue, where the largest are tiny beside that). With
        `errors`, a named tuple `(values, errors)` of two such arrays: that far from the value at
        most is an eigenvalue. It is the residual `|Hq - value * q|` of the vector q that was
        found, with Hq from differences of the gradient in float64.

    Raises:
        ValueError: As for `hessian_vector_product`, and if `k` is out of range.
        scipy.sparse.linalg.ArpackNoConvergence: If Lanczos iteration does not converge.
    """
    return _top_eigenvalues(LossSurface(model, x, y), k, errors=errors)


def hessian_trace(model, x, y, draws=DRAWS, seed=0):
    """The trace of the Hessian of the compiled loss, by Hutchinson's estimator.

    The mean of `v^T H v` over vectors v of random signs (Rademacher). Measurements with the same
    seed use the same signs, so differences between similar models are less noisy than either.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.compile(loss="mse")
    >>> trace, standard_error = hessian_trace(model, np.diag([1.0, 3.0]), np.zeros((2, 1)))
    >>> print(round(trace, 4), round(standard_error, 4))  # of a diagonal Hessian it is exact
    10.0 0.0

    Args:
        model: A built `keras.Model` that is compiled with a loss. It is not changed.
        x: Inputs, an array or a structure of arrays of equal length.
        y: Targets, likewise.
        draws: Number of random vectors, at least 2. The default, 50, gives a standard error of
            5 to 10 % for a small network.
        seed: Of the random vectors.

    Returns:
        A named tuple `(trace, standard_error)` of floats. Its attribute `error` also counts what
        products are off by.

    Raises:
        ValueError: As for `hessian_vector_product`, and if there are fewer than 2 draws.

    Reference:
        [Hutchinson, 1989](https://doi.org/10.1080/03610918908812806);
        [Yao et al., 2020 (PyHessian)](https://arxiv.org/abs/1912.07145).
    """
    return _hessian_trace(LossSurface(model, x, y), draws, seed)


def _top_eigenvalues(surface, k, product=None, errors=False):
    n = surface.size
    if not 1 <= k <= n:
        raise ValueError(f"`k` must be from 1 to the number of weights, {n}. Received: k={k}")
    w = surface.start
    product = trusted_product(surface, w) if product is None else product

    def answered(values, vectors):
        if not errors:
            return values
        return Eigenvalues(values, _residuals(surface, w, product, values, vectors.T))

    krylov = max(2 * k + 1, 20)  # the size of the subspace that eigsh would build
    if n <= krylov:
        hessian = np.stack([product(column) for column in np.eye(n)])
        hessian = (hessian + hessian.T) / 2
        if not errors:
            return np.linalg.eigvalsh(hessian)[::-1][:k]
        values, vectors = np.linalg.eigh(hessian)
        return answered(values[::-1][:k], vectors[:, ::-1][:, :k])

    v0 = np.random.default_rng(0).standard_normal(n)
    if not np.any(product(v0)):
        return answered(np.zeros(k), np.eye(n, k))  # ARPACK rejects a zero matrix

    def lanczos(tol, shift=0.0):
        operator = LinearOperator((n, n), matvec=lambda v: product(v) + shift * v, dtype="float64")
        options = {"v0": v0, "ncv": krylov, "maxiter": RESTARTS, "tol": tol}
        found = eigsh(operator, k, which="LA", return_eigenvectors=errors, **options)
        values, vectors = found if errors else (found, np.empty((n, k)))
        order = np.argsort(values)[::-1]
        return answered(values[order] - shift, vectors[:, order])

    try:
        return lanczos(TOLERANCE)
    except ArpackNoConvergence:
        # The largest are tiny beside the most negative ones, as at a maximum. With the scale of
        # the Hessian (by power iteration) as shift, the tolerance is relative to that.
        v = v0
        for _ in range(10):
            v = product(v / np.linalg.norm(v))
        return lanczos(10 * TOLERANCE, shift=np.linalg.norm(v))


def _residuals(surface, w, product, values, vectors):
    if not surface.can_be_wide():
        gaps = [np.linalg.norm(product(q) - a * q) for a, q in zip(values, vectors, strict=True)]
        return np.array(gaps) + product.error * product.size
    true = Differences(lambda w: surface.value_and_gradient(w, wide=True), w)
    pairs = zip(values, vectors, strict=True)
    return np.array([true.gap(a * q, q, TOLERANCE)[0] for a, q in pairs])


def _hessian_trace(surface, draws, seed, product=None):
    if draws < 2:
        raise ValueError(f"`draws` must be at least 2, for an error. Received: draws={draws}")
    product = trusted_product(surface, surface.start) if product is None else product
    rng = np.random.default_rng(seed)
    signs = (rng.choice([-1.0, 1.0], surface.size) for _ in range(draws))
    estimates = [v @ product(v) for v in signs]
    error = float(np.std(estimates, ddof=1) / np.sqrt(draws))
    # The trace of what is wrong, E: v'Ev has that mean, and for signs a variance of 2 |E|^2.
    return Trace(
        float(np.mean(estimates)), error, math.hypot(error, 2 * product.error * product.size)
    )

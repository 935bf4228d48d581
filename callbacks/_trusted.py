"""Products with the Hessian that were put to the test, and another way where they fail.

A backend's second derivative may be missing for an operation (TensorFlow: bilinear resizing), or
stopped in one (TensorFlow: the moments of layer normalization), and it returns a vector all the
same. Where a network has fitted everything, float32 leaves only rounding of it. So products are
compared with what follows from gradients alone, in float64, once for every point they are asked at.
"""

import numpy as np

from callbacks._culprit import suspects
from callbacks._differences import COARSE_STEPS, ROOT_MEAN_SQUARE, Differences, asymmetry
from callbacks._surface import NonFiniteError

# What is wrong in the structure of a product, as a share of its length. Right ones in float32 are
# off by 1e-6 to 1e-4 in networks that are not saturated, those in float64 by less.
TOLERANCE = 1e-3
# What may be rounding in float32: it goes up and down as the weights change by `JITTER`, which is
# nothing for the Hessian; what is wrong in the structure stays.
ROUNDING, JITTER = 1e-2, 1e-5
COARSE_TOLERANCE, FEW_EXAMPLES = 1e-2, 4  # for quotients in float32
# Curvature times squared weights, beside probabilities that are 1 but for as much: float64 has then
# less than three digits for a difference of them. (Only of what has no loss, so no other scale.)
NO_LOSS, NO_CURVATURE = 1e-8, 1e-9


class CurvatureError(ValueError):
    """The Hessian of a loss cannot be had right."""


class Product:
    """The Hessian at one point as a function `v -> Hv`, with what is known of its error.

    Attributes:
        error: How far products are off, as a share of their length: measured at a random vector.
        size: About the Frobenius norm of the Hessian; `error * size` is about that of what is
            wrong with it, which bounds the error that it makes in an eigenvalue.
        how: "float32" or "float64", the precision of differentiating twice, or "differences" of
            the gradient in float64.
    """

    def __init__(self, function, how, error, found, v):
        self._function, self.how, self.error = function, how, float(error)
        self.size = float(np.linalg.norm(found) / np.linalg.norm(v) * np.sqrt(len(v)))

    def __call__(self, v):
        """The Hessian times `v`, a float64 vector."""
        return self._function(v)

    def __repr__(self):
        return f"Product(how={self.how!r}, error={self.error:.2g}, size={self.size:.3g})"


def trusted_product(surface, w):
    """The `Product` of a `LossSurface` at `w`: as the backend makes it, if that is right.

    Else by differentiating twice in float64, else by differences of the gradient in float64, which
    need no second derivative. The test takes three products and five to nine gradients.

    Raises:
        CurvatureError: If the gradient is no gradient (random, or stopped on its way), or the model
            cannot be computed in float64 and products in float32 are wrong.
        NonFiniteError: If something is not finite.
    """
    u, v = np.random.default_rng(0).standard_normal((2, surface.size))

    def twice(v):
        return surface.hessian_vector_product(w, v)

    def twice_in_float64(v):
        return surface.hessian_vector_product(w, v, wide=True)

    if not surface.can_be_wide():
        return _tested_in_float32(surface, w, twice, u, v)
    differences = Differences(lambda w: surface.value_and_gradient(w, wide=True), w)

    def tested(function, how):
        """The product, and whether it is one."""
        found = _attempt(function, v)
        if found is None:
            return None, False
        error = max(differences.distance(found, v, TOLERANCE), asymmetry(function, u, v))
        return Product(function, how, error, found, v), error < TOLERANCE

    if not differences.are_of_a_gradient(v):
        _refuse(surface, "the loss does not rise as its gradient says")
    product, right = tested(twice, surface.dtype)
    loss = surface.value_and_gradient(w, wide=True)[0]
    energy = (np.mean(w**2) + ROOT_MEAN_SQUARE**2) * (product.size if product else 1)
    if abs(loss) < NO_LOSS and 0 < energy < NO_CURVATURE:
        _refuse(surface, f"the loss, {loss:.2g}, is too near to zero for float64")
    if right or (product and product.error < ROUNDING and _is_rounding(surface, w, v, product)):
        return product
    if surface.dtype != "float64":
        product, right = tested(twice_in_float64, "float64")
        if right:
            return product
    product, right = tested(differences.product, "differences")
    product.error = max(product.error, differences.spread(v))
    if not right or product.error > TOLERANCE:
        _refuse(surface, "differences of the gradient make no symmetric matrix")
    return product


def _is_rounding(surface, w, v, product):
    """Whether the error of a product is about as large as what tiny changes of weights make."""
    jitter = np.random.default_rng(1).standard_normal(len(w))
    other = surface.hessian_vector_product(w * (1 + JITTER * jitter), v)
    found = product(v)
    return product.error < 2 * np.linalg.norm(other - found) / np.linalg.norm(found)


def _tested_in_float32(surface, w, twice, u, v):
    """The product as it is, of a model that cannot be computed in float64.

    The quotients' steps are then so long that units of many examples have a kink in them: a few
    examples tell as well whether second derivatives are missing. All have to be symmetric.
    """
    few = surface.of_first(FEW_EXAMPLES)
    differences = Differences(few.value_and_gradient, w, COARSE_STEPS)
    error = np.inf
    for direction in (v, u, u + v):
        found = _attempt(lambda v: few.hessian_vector_product(w, v), direction)
        if found is not None:
            error = min(error, differences.distance(found, direction, COARSE_TOLERANCE))
    found = _attempt(twice, v)
    if found is not None:
        error = max(error, asymmetry(twice, u, v))
    if found is None or error > COARSE_TOLERANCE:
        _refuse(surface, "the model does not compute in float64, to have them another way")
    return Product(twice, surface.dtype, error, found, v)


def _attempt(function, v):
    try:
        return function(v)
    except NonFiniteError:
        raise
    except Exception:  # whatever a backend raises that lacks a second derivative
        return None


def _refuse(surface, why):
    found = suspects(surface)
    said = f"in {', '.join(found)}" if found else "in no single layer; it may be in the loss"
    raise CurvatureError(
        f"The loss has no second derivatives that can be trusted: {why}. What is wrong is {said}. "
        f"Received: model={surface.model!r}"
    )

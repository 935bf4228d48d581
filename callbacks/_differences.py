"""Second derivatives from first ones: what other products with a Hessian are held against."""

import numpy as np

# Steps of difference quotients, as a share of the size of a weight. Small ones are for the kinks of
# ReLU networks (each unit has one for each example), large ones for gradients in which much
# cancels: of a cross-entropy of 1e-8, 1 - p has lost half of the digits of float64.
STEPS = (1e-4, 1e-6, 1e-8, 1e-9, 1e-10, 1e-11)
PRODUCT_STEP = 1e-8
# Steps below the first number count where rounding is at most the second, as a share.
FINE, FINE_ROUNDING = 1e-10, 1e-2
# In float32, where a model cannot be computed in float64.
COARSE_STEPS = (1e-1, 1e-2, 1e-3)
ROOT_MEAN_SQUARE = 1e-3  # taken for that of weights that are all zero


class Differences:
    """Products with the Hessian at one point, from differences of the gradient.

    Args:
        value_and_gradient: A function from a vector to a float and a vector, in float64.
        w: The point.
        steps: Sizes of steps along a vector, as a share of that of a weight, falling.
    """

    def __init__(self, value_and_gradient, w, steps=STEPS):
        self._function, self._w, self._steps = value_and_gradient, w, steps
        self._kept = {}

    def product(self, v):
        """The Hessian times `v`."""
        return self._evaluated(np.asarray(v, float), PRODUCT_STEP)[0]

    def distance(self, product, v, tolerance):
        """How far `product` is from the Hessian times `v`, as a share of its length."""
        gap, size = self.gap(product, v, tolerance)
        return gap / (size or gap) if gap else 0.0

    def gap(self, product, v, tolerance):
        """How far `product` is from the Hessian times `v`, and the length of that.

        The Hessian is what the quotients of two steps in a row agree about to `tolerance`, the
        largest such: with smaller ones, rounding could be wrong in the same way as the product.
        If there are none (kinks at all steps but the smallest), the second nearest tells.
        """
        gaps, last = [], None
        for step in self._steps:
            quotient, rounding, *_ = self._evaluate(v, step)
            size = float(np.linalg.norm(quotient))
            if step < FINE and rounding > FINE_ROUNDING * size:
                break
            gap = float(np.linalg.norm(product - quotient))
            gaps.append((0.0 if gap <= rounding and size <= rounding else gap, size))
            if last is not None and np.linalg.norm(quotient - last) <= tolerance * size + rounding:
                return min(gaps[-2:])
            last = quotient
        return sorted(gaps)[1]

    def spread(self, v):
        """How far quotients of two small steps are from each other, as a share."""
        (a, rounding, *_), (b, *_) = (self._evaluate(v, step) for step in STEPS[2:4])
        gap = np.linalg.norm(a - b)
        return 0.0 if gap <= rounding else float(gap / np.linalg.norm(a))

    def are_of_a_gradient(self, v):
        """Whether the value rises along `v` as the gradient says.

        By one of three steps: within a step there may be kinks of the loss, where a gradient jumps
        and no mean of two is the slope between them. (A ReLU network of 26,000 weights that 1,000
        examples had trained had some within 1e-8 of its weights.)
        """
        for step in self._steps[1:4]:
            *_, slope, gradient, slack = self._evaluate(v, step)
            if abs(slope - gradient) <= slack:
                return True
        return False

    def _evaluate(self, v, step):
        key = (step, v.tobytes())
        if key not in self._kept:
            self._kept[key] = self._evaluated(v, step)
        return self._kept[key]

    def _evaluated(self, v, step):
        """Product and its rounding, the value's slope, the gradient's word for it, and slack."""
        w, length = self._w, np.linalg.norm(v)
        if not length:
            return np.zeros(len(w)), 0.0, 0.0, 0.0, 0.0
        size = np.sqrt(np.mean(np.square(w))) + ROOT_MEAN_SQUARE
        h = step * size * np.sqrt(len(w)) / length
        (above, plus), (below, minus) = self._function(w + h * v), self._function(w - h * v)
        lengths, epsilon = np.linalg.norm(plus) + np.linalg.norm(minus), np.finfo(float).eps
        return (
            (plus - minus) / (2 * h),
            100 * epsilon * lengths / (2 * h),
            (above - below) / (2 * h),
            (plus + minus) @ v / 2,
            1e-3 * lengths * length / np.sqrt(len(w)) + 100 * epsilon * (abs(above) + 1) / (2 * h),
        )


def asymmetry(product, u, v):
    """How far `u' H v` is from `v' H u` beside what they are for random vectors."""
    of_u, of_v = product(u), product(v)
    size = np.linalg.norm(u) * np.linalg.norm(of_v) + np.linalg.norm(v) * np.linalg.norm(of_u)
    return float(abs(u @ of_v - v @ of_u) * np.sqrt(len(u)) / size) if size else 0.0

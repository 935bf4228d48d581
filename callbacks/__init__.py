"""Keras callbacks and curvature tools, for TensorFlow and JAX. They need nothing else of ours."""

from callbacks.batchnorm import recalibrate_batchnorm
from callbacks.box_sharpness import adaptive_sharpness, epsilon_sharpness
from callbacks.curvature import hessian_trace, hessian_vector_product, top_eigenvalues
from callbacks.gradient_noise import GradientNoise, gradient_noise
from callbacks.landscape import filter_normalized_direction, interpolate, weights_at
from callbacks.sharpness import SharpnessProbe

__all__ = [
    "GradientNoise",
    "SharpnessProbe",
    "adaptive_sharpness",
    "epsilon_sharpness",
    "filter_normalized_direction",
    "gradient_noise",
    "hessian_trace",
    "hessian_vector_product",
    "interpolate",
    "recalibrate_batchnorm",
    "top_eigenvalues",
    "weights_at",
]

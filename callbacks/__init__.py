"""Keras callbacks and curvature tools, for TensorFlow and JAX. They need nothing else of ours."""

from callbacks.averages import WeightAverages
from callbacks.batchnorm import recalibrate_batchnorm
from callbacks.box_sharpness import adaptive_sharpness, epsilon_sharpness
from callbacks.curvature import hessian_trace, hessian_vector_product, top_eigenvalues
from callbacks.cyclic import CyclicLR
from callbacks.ghost_batchnorm import GhostBatchNormalization
from callbacks.gradient_noise import GradientNoise, gradient_noise, gradient_variances
from callbacks.landscape import (
    along_line,
    along_random_directions,
    filter_normalized_direction,
    interpolate,
    weights_at,
    weights_of,
)
from callbacks.polyak import PolyakAveraging
from callbacks.scaled_cosine import scaled_cosine
from callbacks.schedules import scheduled_rate
from callbacks.sharpness import SharpnessProbe
from callbacks.snapshots import PeriodicSnapshots, SnapshotEnsemble

__all__ = [
    "CyclicLR",
    "GhostBatchNormalization",
    "GradientNoise",
    "PeriodicSnapshots",
    "PolyakAveraging",
    "SharpnessProbe",
    "SnapshotEnsemble",
    "WeightAverages",
    "adaptive_sharpness",
    "along_line",
    "along_random_directions",
    "epsilon_sharpness",
    "filter_normalized_direction",
    "gradient_noise",
    "gradient_variances",
    "hessian_trace",
    "hessian_vector_product",
    "interpolate",
    "recalibrate_batchnorm",
    "scaled_cosine",
    "scheduled_rate",
    "top_eigenvalues",
    "weights_at",
    "weights_of",
]

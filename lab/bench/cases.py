"""What `lab.bench.timing` trains: four networks and their data, the same for every way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lab.claims import discovery

RATE, MOMENTUM = 0.01, 0.9
CLASSES = 10


@dataclass(frozen=True)
class Benchmark:
    """A network, its data, and how much of it one timing takes.

    Attributes:
        model: A function of `models/`.
        shape: Shape of one example. 64 values of it are digits, others are random images.
        batch_size: Examples per step.
        steps: Steps per epoch, all of whole batches: the same work for every way.
        epochs: Epochs per timing, enough for the fastest way to take milliseconds.
        repeats: Timings per way.
        options: Further arguments of the model.
        threads: Numbers of threads to measure with.
        dense: Whether XLA pays on a CPU, where it ruins convolutions (`speed.md`: 4 to 200 x).
    """

    model: str
    shape: tuple[int, ...]
    batch_size: int
    steps: int
    epochs: int
    repeats: int
    options: Mapping[str, Any] = field(default_factory=dict)
    threads: tuple[int, ...] = (1, 2)
    dense: bool = False


_BATCH_NORM = {"normalization": "batch"}
BENCHMARKS = {
    "mlp_digits": Benchmark("mlp", (64,), 32, 56, 4, 15, dense=True),
    "convnet_digits": Benchmark("convnet", (8, 8, 1), 32, 56, 1, 9, _BATCH_NORM),
    "convnet_32": Benchmark("convnet", (32, 32, 3), 128, 8, 1, 5, _BATCH_NORM, threads=(1,)),
    "resnet20_32": Benchmark("resnet", (32, 32, 3), 128, 4, 1, 5, threads=(1,)),
    # Says nothing about speed; small enough for a test.
    "tiny": Benchmark("mlp", (64,), 32, 4, 1, 2, {"widths": (16,)}, threads=(1,), dense=True),
}


def data(benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray]:
    """Whole batches of digits or of random images, as `(x, y)`.

    >>> x, y = data(BENCHMARKS["mlp_digits"])
    >>> x.shape, y.shape
    ((1792, 64), (1792,))
    """
    n = benchmark.batch_size * benchmark.steps
    if np.prod(benchmark.shape) == 64:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return (x[:n] / 16).astype("float32").reshape(-1, *benchmark.shape), y[:n].astype("int32")
    rng = np.random.default_rng(0)
    # A pattern per class under the noise, so that the loss has something to fall for.
    y = rng.integers(CLASSES, size=n).astype("int32")
    patterns = rng.normal(size=(CLASSES, *benchmark.shape))
    x = patterns[y] + rng.normal(size=(n, *benchmark.shape))
    return x.astype("float32"), y


def compiled(benchmark: Benchmark, seed: int = 0, **more):
    """The network of a benchmark, compiled with SGD, momentum and accuracy."""
    import keras

    build = discovery.load_model(benchmark.model)
    model = build(benchmark.shape, CLASSES, seed=seed, **benchmark.options)
    model.compile(
        keras.optimizers.SGD(RATE, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **more,
    )
    return model

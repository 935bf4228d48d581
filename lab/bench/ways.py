"""The ways to train that `make bench` compares. Each runs in a process of its own, on command.

`python -m lab.bench.ways BENCHMARK WAY EPOCHS` imports its backend, says so, and then trains on:
every line on its standard input lets it go on for one share of epochs, and it answers with the
seconds they took and the loss. So the parent can interleave ways that are all warm, and every way
is timed alike: from the beginning of an epoch to the end of one, as an epoch callback sees it.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lab.bench.cases import BENCHMARKS, MOMENTUM, RATE, Benchmark, compiled, data
from lab.engines.fit import Fit, batch_order
from lab.engines.training import ENGINES, train

STACK = 8  # seeds in the stacked way on a CPU
GPU_STACKS = (1, 4, 10, 32, 100)


class Gate:
    """Lets epochs begin when the parent says so, and tells it how long they took.

    Args:
        share: Epochs per timing.
        wait: Called before every timing but the first; returns when it may begin.
        tell: Called with the answer.
    """

    def __init__(self, share: int, wait: Callable[[], Any], tell: Callable[[dict], Any]):
        self.share, self.wait, self.tell = share, wait, tell
        # The first timing is one epoch and begins now: it holds all tracing and compilation.
        self.left, self.started, self.turn = 1, time.perf_counter(), False

    def begin(self) -> None:
        """An epoch is about to begin."""
        if not self.left:
            self.wait()
            # One epoch more, untimed: while a process waits, others take its place in the caches
            # and its pages may be reclaimed, which hits most who touches most.
            self.left, self.turn = self.share + 1, True
        if self.turn and self.left == self.share:
            self.started = time.perf_counter()

    def end(self, loss: float, accuracy: float) -> None:
        """An epoch has ended and its results are on the host."""
        self.left -= 1
        if not self.left:
            seconds = time.perf_counter() - self.started
            self.tell({"seconds": seconds, "loss": float(loss), "accuracy": float(accuracy)})

    def callback(self):
        """The same as a Keras callback."""
        import keras

        return keras.callbacks.LambdaCallback(
            on_epoch_begin=lambda epoch, logs: self.begin(),
            on_epoch_end=lambda epoch, logs: self.end(logs["loss"], logs["accuracy"]),
        )


def fit(benchmark: Benchmark, epochs: int, gate: Gate, steps_per_execution: int = 1) -> None:
    """`model.fit` on arrays."""
    x, y = data(benchmark)
    model = compiled(benchmark, steps_per_execution=steps_per_execution)
    batch_size, callbacks = benchmark.batch_size, [gate.callback()]
    model.fit(x, y, batch_size=batch_size, epochs=epochs, callbacks=callbacks, verbose=0)


def engine(benchmark: Benchmark, epochs: int, gate: Gate, name: str, stack: int = 1) -> None:
    """An engine of `lab.train`, on one fit or on `stack` of them with a seed each."""
    arrays = data(benchmark)
    fits = [
        # The last one's callback is told of the beginning last, and one is enough.
        Fit(
            compiled(benchmark, seed), arrays, benchmark.batch_size, epochs, seed=seed,
            callbacks=[gate.callback()] if seed == stack - 1 else [],
        )
        for seed in range(stack)
    ]  # fmt: skip
    train(fits, engine=name)


def hand_written(benchmark: Benchmark, epochs: int, gate: Gate, xla: bool = False) -> None:
    """The limit: an epoch as one TensorFlow function, with nothing of Keras but the forward pass.

    Loss, accuracy, gradient and momentum are written out; nothing is general.
    """
    import tensorflow as tf

    arrays = data(benchmark)
    model = compiled(benchmark)
    x, y = map(tf.constant, arrays)
    weights = [v.value for v in model.trainable_variables]
    velocities = [tf.Variable(tf.zeros_like(w)) for w in weights]

    @tf.function(jit_compile=xla)
    def epoch(order):
        losses, right = tf.constant(0.0), tf.constant(0.0)
        for step in tf.range(benchmark.steps):
            batch = tf.gather(x, order[step])
            labels = tf.gather(y, order[step])
            with tf.GradientTape() as tape:
                logits = model(batch, training=True)
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                )
            gradients = tape.gradient(loss, weights)
            for w, v, g in zip(weights, velocities, gradients, strict=True):
                v.assign(MOMENTUM * v - RATE * g)
                w.assign_add(v)
            losses += loss
            guessed = tf.argmax(logits, axis=1, output_type=tf.int32)
            right += tf.reduce_mean(tf.cast(guessed == labels, tf.float32))
        return losses / benchmark.steps, right / benchmark.steps

    for number in range(epochs):
        gate.begin()
        order = batch_order(0, number, len(arrays[0])).reshape(benchmark.steps, -1)
        loss, accuracy = epoch(tf.constant(order.astype("int32")))
        gate.end(loss.numpy(), accuracy.numpy())


def pytorch(benchmark: Benchmark, epochs: int, gate: Gate) -> None:
    """PyTorch, eager, the same network."""
    from lab.bench import pytorch

    x, y = data(benchmark)
    pytorch.train(benchmark, x, y, epochs, gate, RATE, MOMENTUM)


@dataclass(frozen=True)
class Way:
    """One way: the Keras backend its process needs ("" for none) and what it runs."""

    backend: str
    run: Callable[[Benchmark, int, Gate], None]
    says: str


def _stacked(n: int) -> Way:
    run = functools.partial(engine, name="stacked", stack=n)
    return Way("jax", run, f"`lab.train`, stacked, JAX: {n} seeds at once, per seed")


WAYS: dict[str, Way] = {
    "plain_fit": Way("tensorflow", fit, "plain `model.fit` on arrays"),
    "steps_per_execution": Way(
        "tensorflow",
        lambda b, epochs, gate: fit(b, epochs, gate, b.steps),
        "`model.fit`, one epoch per execution",
    ),
    "engine_plain": Way(
        "tensorflow", functools.partial(engine, name="plain"), "`lab.train`, plain"
    ),
    "fused_tensorflow": Way(
        "tensorflow", functools.partial(engine, name="fused"), "`lab.train`, fused, TensorFlow"
    ),
    "fused_jax": Way("jax", functools.partial(engine, name="fused"), "`lab.train`, fused, JAX"),
    "hand_written": Way("tensorflow", hand_written, "hand-written compiled loop, TensorFlow"),
    "hand_written_xla": Way(
        "tensorflow", functools.partial(hand_written, xla=True), "the same, with XLA"
    ),
    "pytorch": Way("", pytorch, "PyTorch, eager"),
    **{f"stacked_jax_{n}": _stacked(n) for n in sorted({STACK, *GPU_STACKS})},
}


def ways(benchmark: Benchmark, torch: bool, gpu: bool, threads: int = 1) -> list[str]:
    """The ways that this machine can measure a benchmark with."""
    stacks = {STACK, *(GPU_STACKS if gpu else ())} if "stacked" in ENGINES else set()
    left_out = {f"stacked_jax_{n}" for n in (*GPU_STACKS, STACK) if n not in stacks}
    if not torch:
        left_out.add("pytorch")
    if not (benchmark.dense or gpu):
        # Convolutions are not stacked on a CPU: it would be the fused engine, eight times over.
        left_out |= {"hand_written_xla", f"stacked_jax_{STACK}"}
        if threads > 1:  # XLA takes seconds for a step; once is enough to show it
            left_out |= {way for way in WAYS if WAYS[way].backend == "jax"}
    return [way for way in WAYS if way not in left_out]


def seeds_of(way: str) -> int:
    """How many trainings a way does at once.

    >>> seeds_of("stacked_jax_8"), seeds_of("plain_fit")
    (8, 1)
    """
    return int(way.rsplit("_", 1)[1]) if way.startswith("stacked") else 1


def main(name: str, way: str, epochs: int) -> None:
    """Be the process of one way."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def tell(answer: dict) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    def wait() -> None:
        if not sys.stdin.readline():  # the parent is gone
            os._exit(0)

    benchmark = BENCHMARKS[name]
    data(benchmark)
    if WAYS[way].backend:
        import keras  # noqa: F401
    else:
        import torch  # noqa: F401
    tell({"loaded": way})
    wait()
    WAYS[way].run(benchmark, epochs, Gate(benchmark.epochs, wait, tell))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

"""Several models from one training: snapshots of its weights, each at the end of a cycle or not."""

import math

from keras import ops

from callbacks._members import Members
from callbacks._schedule import StepRate, StepRateCallback, rates, whole_number


class SnapshotEnsemble(Members, StepRateCallback):
    """Restarts a cosine learning rate several times in a training and keeps where each cycle ends.

    In step t = 1, ..., T of a training in M cycles, the rate is

        min_lr + (max_lr - min_lr) / 2 * (cos(pi * mod(t - 1, ceil(T / M)) / ceil(T / M)) + 1)

    T is the number of epochs times that of steps in an epoch. A cycle must end with an epoch: that
    is where callbacks see the weights. A last cycle that is not finished, after early stopping for
    instance, leaves no snapshot.

    The rate is computed inside the compiled training step, in float32, from the optimizer's count
    of steps. So it changes every step under any `steps_per_execution`, and no step waits for
    Python. `learning_rate` in the logs is the rate of the last step of the epoch.

    The optimizer has its own rate back after the training, and is saved with it at any time. It
    must be compiled with a number as its rate, which is not used while this callback is.
    Each `fit` is a run of its own: as with `History`, snapshots of an earlier one are forgotten.
    With `initial_epoch`, the rate starts at that place of the whole run, and snapshots are those
    of cycles that end after it. Where `BackupAndRestore` goes on with a training, before or after
    this callback in the list, those taken until then come back too. (A training that was broken
    off leaves the rate in its place. The next that has such a callback clears that up, and so does
    `on_train_end()`.)

    Example:
    >>> import keras, numpy as np
    >>> keras.utils.set_random_seed(0)
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("sgd", loss)
    >>> x, y = np.eye(2)[[0, 1, 0, 1]], np.array([0, 1, 0, 2])
    >>> ensemble = SnapshotEnsemble(cycles=3, max_lr=0.5)
    >>> history = model.fit(x, y, batch_size=2, epochs=6, verbose=0, callbacks=[ensemble])
    >>> [round(rate, 3) for rate in history.history["learning_rate"]]  # at t = 2, 4, ..., 12
    [0.427, 0.073, 0.427, 0.073, 0.427, 0.073]
    >>> len(ensemble.snapshots)
    3
    >>> ensemble.predict(x).shape
    (4, 3)
    >>> losses = [model.evaluate(x, y, verbose=0) for model in ensemble.members(last=2)]

    Args:
        cycles: M, of which the number of epochs must be a multiple.
        max_lr: The rate that each cycle starts with.
        min_lr: The rate that a cycle comes down to.

    Attributes:
        snapshots: For each cycle that has ended, a list of arrays as of `model.get_weights()`:
            batch-norm statistics are in it.

    Raises:
        ValueError: If an argument is out of range. When training begins, if `epochs` is no
            multiple of `cycles`, the number of steps in an epoch is unknown, or the optimizer has
            a schedule of its own or several optimizers inside; when an epoch begins, if something
            else has set the rate.

    Reference:
        [Huang et al., 2017](https://arxiv.org/abs/1704.00109), equation 2.
    """

    def __init__(self, cycles, max_lr, min_lr=0.0):
        super().__init__()
        self.cycles = whole_number("cycles", cycles)
        self.min_lr, self.max_lr = rates(min_lr=min_lr, max_lr=max_lr)

    def on_train_begin(self, logs=None):
        """Forgets the snapshots of an earlier training."""
        epochs, steps = self.params["epochs"], self.params["steps"]
        if epochs % self.cycles:
            fewer = epochs - epochs % self.cycles
            divisors = [n for n in range(1, epochs + 1) if epochs % n == 0]
            below = [n for n in divisors if n < self.cycles][-1]
            above = min((n for n in divisors if n > self.cycles), default=0)
            raise ValueError(
                "`epochs` must be a multiple of `cycles`, so that each cycle ends with an epoch. "
                f"The nearest are epochs={_either(fewer, fewer + self.cycles)} or "
                f"cycles={_either(below, above)}. "
                f"Received: epochs={epochs}, cycles={self.cycles}"
            )
        if not steps:
            raise ValueError(
                "The number of steps in an epoch must be known: pass `steps_per_epoch` to `fit`. "
                f"Received: steps={steps}"
            )
        super().on_train_begin(logs)

    def _is_due(self, epoch):
        return (epoch + 1) % (self.params["epochs"] // self.cycles) == 0

    def _step_rate(self, variable, step, epoch):
        epochs, steps = self.params["epochs"], self.params["steps"]
        return _Restarts(
            variable,
            offset=step - epoch * steps,
            min_lr=self.min_lr,
            max_lr=self.max_lr,
            length=epochs // self.cycles * steps,
        )


class PeriodicSnapshots(Members):
    """Keeps the weights every few epochs and leaves the learning rate alone.

    What cycles of the rate add to an ensemble is what `SnapshotEnsemble` gains over these plain
    snapshots of a training with any other schedule ("NoCycle" in the paper). Members, their
    predictions and what a new `fit` or `initial_epoch` does are as there.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.zeros((1, 1))])
    >>> model.compile(keras.optimizers.SGD(1.0), lambda y, p: -p)  # every step adds 1 to it
    >>> plain = PeriodicSnapshots(every=2)
    >>> history = model.fit(np.ones((1, 1)), np.ones(1), epochs=5, verbose=0, callbacks=[plain])
    >>> [float(member(np.ones((1, 1)))[0, 0]) for member in plain.members()]
    [2.0, 4.0]

    Args:
        every: Number of epochs between snapshots. Epochs after the last multiple of it leave none.

    Attributes:
        snapshots: For each of them, a list of arrays as of `model.get_weights()`.

    Raises:
        ValueError: If `every` is no whole number of at least 1.

    Reference:
        [Huang et al., 2017](https://arxiv.org/abs/1704.00109), section 4.
    """

    def __init__(self, every):
        super().__init__()
        self.every = whole_number("every", every)

    def _is_due(self, epoch):
        return (epoch + 1) % self.every == 0


class _Restarts(StepRate):
    def rate(self, t):
        # (cos(a) + 1) / 2 = sin(pi / 2 - a / 2)^2, which keeps its digits where it is almost 0.
        left = ops.subtract(self.length, ops.mod(t, self.length))
        angle = ops.cast(left, "float32") * (math.pi / 2 / self.length)
        return self.min_lr + ops.subtract(self.max_lr, self.min_lr) * ops.square(ops.sin(angle))


def _either(a, b):
    """The numbers as a choice, without what is not there (0)."""
    return " or ".join(str(n) for n in (a, b) if n)

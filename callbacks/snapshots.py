"""Several models from one training: snapshots at the ends of a cyclic learning rate."""

import math
from collections.abc import Iterator

import numpy as np
from keras import ops

from callbacks._probabilities import probabilities
from callbacks._schedule import StepRate, StepRateCallback, rates, whole_number


class SnapshotEnsemble(StepRateCallback):
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
        self.snapshots = []
        self._restored, self._taken_at = False, None

    def members(self, last=None):
        """Goes through the members: gives the model each one's weights in turn.

        Afterwards all variables of the model are as they were, also if the loop is left early or
        by an exception. (What holds it without a `for` loop should close it: `contextlib.closing`.)

        Args:
            last: How many of the latest snapshots. None: all.

        Returns:
            A generator of the model, oldest snapshot first.

        Raises:
            ValueError: At once, if there is no snapshot or `last` is out of range.
        """
        return self._visit(self._chosen(last))

    def predict(self, x, last=None, batch_size=None, from_logits=None):
        """The mean of the members' probabilities.

        Outputs count as probabilities if the model ends in a softmax or sigmoid; otherwise the
        compiled loss tells, a cross-entropy with `from_logits=True` or without. Logits become
        probabilities by softmax along the last axis, or by a sigmoid for a binary cross-entropy or
        a single unit. The model is left as it was.

        Args:
            x: Inputs as for `model.predict`, to be read once for every member in the same order.
            last: How many of the latest snapshots. None: all.
            batch_size: As for `model.predict`.
            from_logits: Whether outputs are logits, for models with a loss of another kind.

        Returns:
            An array of the shape that `model.predict` returns.

        Raises:
            ValueError: If there is no snapshot, `last` is out of range, `x` can be read only once,
                the model has several outputs, it cannot be told whether these are logits, or they
                are said to be probabilities and are not.
        """
        if isinstance(x, Iterator):
            raise ValueError(
                "`x` must be an array or a data set that can be read once for every member. "
                f"Received: x={x!r}"
            )
        chosen = self._chosen(last)
        total = 0.0
        for model in self._visit(chosen):
            outputs = model.predict(x, batch_size=batch_size, verbose=0)
            total = total + probabilities(model, outputs, from_logits)
        return total / len(chosen)

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
        if not self._restored:
            self.snapshots = []

    def on_epoch_end(self, epoch, logs=None):
        """Logs the rate of the last step made; takes the snapshot if a cycle ends."""
        super().on_epoch_end(epoch, logs)
        if (epoch + 1) % (self.params["epochs"] // self.cycles) == 0:
            self._take(self._steps_made(None))

    def set_model(self, model):
        """Gets the model before any callback's training begins, so before weights are restored."""
        self._restored, self._taken_at = False, None
        super().set_model(model)

    def _take(self, step):
        if step is None or step != self._taken_at:
            self.snapshots.append([np.array(weight) for weight in self.model.get_weights()])
            self._taken_at = step

    def _numbers(self):
        # The end of a cycle may be saved before this callback hears of it.
        step = self._steps_made(0)
        if step and step % (self.params["epochs"] // self.cycles * self.params["steps"]) == 0:
            self._take(step)
        return {
            f"{i}_{j}": weight
            for i, snapshot in enumerate(self.snapshots)
            for j, weight in enumerate(snapshot)
        }

    def _take_over(self, numbers):
        order = sorted(tuple(map(int, name.split("_"))) for name in numbers)
        self.snapshots = [[] for _ in range(order[-1][0] + 1)]
        for i, j in order:
            self.snapshots[i].append(numbers[f"{i}_{j}"])
        self._restored = True

    def _step_rate(self, variable, step, epoch):
        epochs, steps = self.params["epochs"], self.params["steps"]
        return _Restarts(
            variable,
            offset=step - epoch * steps,
            min_lr=self.min_lr,
            max_lr=self.max_lr,
            length=epochs // self.cycles * steps,
        )

    def _chosen(self, last):
        if not self.snapshots:
            raise ValueError(
                "There is no snapshot yet: train the model with this callback, for a whole cycle "
                "at least. Received: snapshots=[]"
            )
        last = len(self.snapshots) if last is None else whole_number("last", last)
        if last > len(self.snapshots):
            raise ValueError(
                f"`last` must be at most the number of snapshots, {len(self.snapshots)}. "
                f"Received: last={last}"
            )
        return self.snapshots[-last:]

    def _visit(self, snapshots):
        model = self.model
        before = [(variable, np.array(variable)) for variable in model.variables]
        try:
            for weights in snapshots:
                model.set_weights(weights)
                yield model
        finally:
            for variable, value in before:
                variable.assign(value)


class _Restarts(StepRate):
    def rate(self, t):
        # (cos(a) + 1) / 2 = sin(pi / 2 - a / 2)^2, which keeps its digits where it is almost 0.
        left = ops.subtract(self.length, ops.mod(t, self.length))
        angle = ops.cast(left, "float32") * (math.pi / 2 / self.length)
        return self.min_lr + (self.max_lr - self.min_lr) * ops.square(ops.sin(angle))


def _either(a, b):
    """The numbers as a choice, without what is not there (0)."""
    return " or ".join(str(n) for n in (a, b) if n)

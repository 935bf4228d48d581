"""Weights that a training kept as members of an ensemble, and how these predict."""

from collections.abc import Iterator

import numpy as np

from callbacks._carried import Resumable
from callbacks._optimizer import steps_of
from callbacks._probabilities import probabilities
from callbacks._schedule import whole_number


class Members(Resumable):
    """Keeps weights and gives them back, one by one or as an ensemble.

    Subclasses define `_is_due(epoch)`, whether its end leaves a snapshot. Each `fit` is a run of
    its own, except one that goes on with another.
    """

    def __init__(self):
        super().__init__()
        self.snapshots = []
        self._restored, self._begun, self._taken = False, None, None

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

    def set_model(self, model):
        """Gets the model before any callback's training begins, so before weights are restored."""
        self._restored, self._begun, self._taken = False, None, None
        super().set_model(model)

    def on_train_begin(self, logs=None):
        """Forgets the snapshots of an earlier training, unless this one goes on with it."""
        super().on_train_begin(logs)
        if not self._restored:
            self.snapshots = []

    def on_epoch_begin(self, epoch, logs=None):
        """Counts steps from here, to know the epoch's end."""
        super().on_epoch_begin(epoch, logs)
        self._begun = epoch, self._count()

    def on_epoch_end(self, epoch, logs=None):
        """Takes the snapshot if one is due."""
        super().on_epoch_end(epoch, logs)
        self._take(epoch)

    def _is_due(self, epoch):
        raise NotImplementedError

    def _take(self, epoch):
        if epoch != self._taken and self._is_due(epoch):
            self.snapshots.append([np.array(weight) for weight in self.model.get_weights()])
            self._taken = epoch

    def _count(self):
        return steps_of(self.model.optimizer)

    def _numbers(self):
        # The end of an epoch may be saved before this callback hears of it.
        if self._begun is not None:
            epoch, count = self._begun
            if self._count() - count == self.params.get("steps"):
                self._take(epoch)
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

    def _chosen(self, last):
        if not self.snapshots:
            raise ValueError(
                "There is no snapshot yet: train the model with this callback, until the first is "
                "taken at least. Received: snapshots=[]"
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

"""Several averages of the weights in one training, to be visited by name."""

import contextlib

import keras
import numpy as np

from callbacks._schedule import whole_number
from callbacks.batchnorm import recalibrate_batchnorm
from callbacks.landscape import weights_at

LAST = "last"


class WeightAverages(keras.callbacks.Callback):
    """Carries several averages of the weights through one training, beside its last weights.

    So what is compared comes from one run. At a constant learning rate the start of a training is
    a shorter training, and one run tells what an average gains in trainings of many lengths:
    `keep_after` names epochs to which `after` goes back.

    Each `fit` is a run of its own as to what is kept; averages go on as `PolyakAveraging` does.

    Example:
    >>> import keras, numpy as np
    >>> from callbacks import PolyakAveraging
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.zeros((1, 1))])
    >>> model.compile(keras.optimizers.SGD(1.0), lambda y, p: -p)  # every step adds 1 to it
    >>> late = PolyakAveraging(start_step=2)
    >>> averages = WeightAverages({"all": PolyakAveraging(), "late": late}, keep_after=[1])
    >>> own = {"epochs": 2, "verbose": 0, "callbacks": [averages]}
    >>> history = model.fit(np.ones((3, 1)), np.ones(3), 1, **own)
    >>> [float(averages.weights(name)[0][0, 0]) for name in ("last", "all", "late")]
    [6.0, 3.5, 4.5]
    >>> with averages.after(epoch=1), averages.swapped("all"):
    ...     print(float(model(np.ones((1, 1)))[0, 0]))
    2.0
    >>> print(float(model(np.ones((1, 1)))[0, 0]))
    6.0

    Args:
        averages: `PolyakAveraging`s by name. They are not given to `fit` themselves.
        keep_after: Epochs, counted from 1, after which the model and its averages are kept.

    Attributes:
        averages: As given, a dictionary.
        kept: The epochs that were kept, in order.

    Raises:
        ValueError: If an average is called "last", or an epoch is no whole number of at least 1.
    """

    def __init__(self, averages, keep_after=()):
        super().__init__()
        if LAST in averages:
            raise ValueError(
                f"{LAST!r} is what the model's own weights are called. Received: "
                f"averages={list(averages)}"
            )
        self.averages = dict(averages)
        self._keep_after = {whole_number("keep_after", epoch) for epoch in keep_after}
        self._kept = {}  # epoch: all variables of the model, and the averages that had begun
        self._visited = None  # the averages of the epoch that `after` is at

    @property
    def kept(self):
        """The epochs that were kept, in order."""
        return tuple(self._kept)

    def weights(self, name):
        """One of the averages, or the model's "last" weights.

        Args:
            name: Of the average, or "last".

        Returns:
            A list of arrays, aligned with `model.trainable_variables`; copies.

        Raises:
            ValueError: If there is no such average, or no step was averaged in it (yet).
        """
        if name == LAST:
            return [np.array(variable) for variable in self.model.trainable_variables]
        if name not in self.averages:
            raise ValueError(
                f"`name` must be {LAST!r} or one of {list(self.averages)}. Received: name={name!r}"
            )
        if self._visited is None:
            return self.averages[name].average
        if name not in self._visited:
            raise ValueError(f"No step had been averaged then. Received: name={name!r}")
        return [np.array(weight) for weight in self._visited[name]]

    @contextlib.contextmanager
    def swapped(self, name, recalibrate_on=None):
        """Gives the model one of the averages inside a `with` block, also during training.

        Afterwards, and after an exception, weights and batch-norm statistics are as they were.

        Args:
            name: Of the average, or "last".
            recalibrate_on: Inputs over which batch-norm statistics are computed for these weights
                (`recalibrate_batchnorm`). None: the statistics that are there, which lag behind
                the last weights and belong to no average.

        Yields:
            The model.

        Raises:
            ValueError: As `weights`.
        """
        with weights_at(self.model, self.weights(name)) as model:
            if recalibrate_on is not None:
                recalibrate_batchnorm(model, recalibrate_on)
            yield model

    @contextlib.contextmanager
    def after(self, epoch):
        """Goes back to the end of an epoch inside a `with` block.

        The model has all its variables of then, and `weights` and `swapped` give its averages of
        then. Afterwards, and after an exception, everything is as it was.

        Args:
            epoch: One of `kept`.

        Yields:
            The model.

        Raises:
            ValueError: If that epoch was not kept.
        """
        if epoch not in self._kept:
            raise ValueError(
                f"`epoch` must be one of those kept, {self.kept}. Received: epoch={epoch!r}"
            )
        variables, averages = self._kept[epoch]
        before = self._visited
        with weights_at(self.model, self.weights(LAST)) as model:
            for variable, value in zip(model.variables, variables, strict=True):
                variable.assign(value)
            self._visited = averages
            try:
                yield model
            finally:
                self._visited = before

    def set_model(self, model):
        """Passes the model on to the averages."""
        super().set_model(model)
        for average in self.averages.values():
            average.set_model(model)

    def set_params(self, params):
        """Passes the settings of `fit` on to the averages."""
        super().set_params(params)
        for average in self.averages.values():
            average.set_params(params)

    def on_train_begin(self, logs=None):
        """Puts the averages into the optimizer; forgets what an earlier training kept."""
        self._kept = {}
        for average in self.averages.values():
            average.on_train_begin(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Keeps what there is after this epoch, if it is one of those asked for."""
        if epoch + 1 in self._keep_after:
            variables = [np.array(variable) for variable in self.model.variables]
            begun = {name: one.average for name, one in self.averages.items() if one.steps}
            self._kept[epoch + 1] = variables, begun

    def on_train_end(self, logs=None):
        """Takes the averages out of the optimizer."""
        for average in self.averages.values():
            average.on_train_end(logs)

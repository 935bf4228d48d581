"""What a callback knows, in the files of weights that are saved while it is at work."""

import keras
import numpy as np

from callbacks._optimizer import inner_optimizer


class Carried(keras.layers.Layer):
    """Numbers of a callback, saved with an optimizer and loaded with it.

    `BackupAndRestore` saves the weights of model and optimizer and, when a training goes on, loads
    them, before or after other callbacks get to know that it begins. What these have counted or
    kept until the break is in the same file, in a group of its own, which a model without the
    callback passes over. (A layer, as those have documented methods for what a file holds.)

    Args:
        optimizer: With whose variables they are saved, until `release`.
        name: Of the group; the same callback must have the same name in the next process.
        get: A function without arguments that returns a dictionary of arrays.
        set: A function that takes such a dictionary.
    """

    # For `lab`: what is compiled with it serves models without it.
    read_in_no_step = True

    def __init__(self, optimizer, name, get, set):
        super().__init__()
        name = "carried_" + "".join(c if c.isalnum() else "_" for c in name)
        self._get, self._set = get, set
        # Past `__setattr__`, with which Keras tracks what an optimizer is made of.
        object.__setattr__(optimizer, name, self)

        def release():
            if vars(optimizer).get(name) is self:
                object.__delattr__(optimizer, name)

        self.release = release  # Keras would follow an attribute that is the optimizer, in circles

    def save_own_variables(self, store):
        """Called by Keras."""
        for name, value in self._get().items():
            store[name] = np.asarray(value)

    def load_own_variables(self, store):
        """Called by Keras; a file without the group leaves everything as it is."""
        numbers = {name: np.asarray(store[name]) for name in list(store.keys())}
        if numbers:
            self._set(numbers)


class Resumable(keras.callbacks.Callback):
    """A callback that goes on where `BackupAndRestore` goes on with a training.

    Subclasses give what they know as `_numbers()`, arrays by name, and get it back by `_take_over`:
    when the file is loaded, before or after `on_train_begin`.
    """

    _carried = None

    def set_model(self, model):
        """Gets the model before any callback's training begins, so before weights are restored."""
        super().set_model(model)
        optimizer = inner_optimizer(getattr(model, "optimizer", None))
        if optimizer is not None:
            self._carried = Carried(optimizer, self._group(), self._numbers, self._take_over)

    def on_train_end(self, logs=None):
        """Later files of the model have nothing of this callback in them."""
        super().on_train_end(logs)
        if self._carried is not None:
            self._carried.release()

    def _group(self):
        """The name of this callback's numbers in a file: the same in the next process."""
        return type(self).__name__

    def _numbers(self):
        return {}

    def _take_over(self, numbers):
        pass

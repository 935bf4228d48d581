"""What the callbacks that measure the model at some epochs have in common."""

import time

import keras

from callbacks._surface import LossSurface, NonFiniteError


class EpochProbe(keras.callbacks.Callback):
    """Adds what `_measure` returns to `logs`, every `every`-th epoch and after the last.

    Subclasses define `names`, the keys of `logs`, and `_measure(surface)`, a list of as many
    numbers.
    """

    names = ()

    def __init__(self, x, y, every):
        super().__init__()
        if every is not None and (every != int(every) or every < 1):
            raise ValueError(f"`every` must be a positive integer or None. Received: every={every}")
        self.every = every
        self.seconds = 0.0
        self.epochs = []
        self._x, self._y = x, y
        self._surface = None

    def measure(self, model=None):
        """Measures a model now, outside training or in it.

        Args:
            model: A built model, compiled with a loss; by default the one that was trained.

        Returns:
            A dictionary of floats with the same keys as in `logs`. All are NaN if the weights,
            the loss or a derivative of it are not finite, so a diverged training is not stopped.
        """
        started = time.perf_counter()
        model = self.model if model is None else model
        try:
            if self._surface is None or not self._surface.is_of(model):
                self._surface = LossSurface(model, self._x, self._y)
            values = self._measure(self._surface)
        except NonFiniteError:
            values = [float("nan")] * len(self.names)
        finally:
            self.seconds += time.perf_counter() - started
        return dict(zip(self.names, values, strict=True))

    def _measure(self, surface):
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        """Forgets the epochs of an earlier training."""
        self.epochs = []

    def on_epoch_end(self, epoch, logs=None):
        """Measures if it is time to."""
        due = self.every is not None and (epoch + 1) % self.every == 0
        last = epoch + 1 == (self.params or {}).get("epochs") or self.model.stop_training
        if due or last:
            values = self.measure()
            self.epochs.append(epoch)
            if logs is not None:
                logs.update(values)

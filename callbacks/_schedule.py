"""A learning rate that is computed at every step, lent to an optimizer for one training."""

import math

import keras

from callbacks._carried import Resumable
from callbacks._optimizer import inner_optimizer, steps_of
from callbacks._retrace import forget_trace


class StepRate(keras.optimizers.schedules.LearningRateSchedule):
    """A rate as a function of the steps made, computed inside the compiled training step.

    Subclasses define `rate(t)`, in operations of `keras.ops` only, also between two of its floats:
    these may be traced, and Python would round what it computes with them otherwise.

    Args:
        variable: The optimizer's own rate, a `keras.Variable`.
        offset: The optimizer's count of steps at t = 0.
        **numbers: What else `rate` needs; each becomes an attribute.
    """

    # For `lab`: a compiled program may take them as inputs instead of one program for each rate.
    floats_may_be_traced = True

    def __init__(self, variable, offset, **numbers):
        self.variable = variable
        self._names = ("offset", *numbers)
        vars(self).update(numbers, offset=int(offset))

    def __call__(self, step):
        return self.rate(keras.ops.subtract(step, self.offset))

    def get_config(self):
        """The numbers by the names of the attributes they are."""
        return {name: vars(self)[name] for name in self._names}

    def rate(self, t):
        """The rate of step `t`, an integer tensor that counts from 0."""
        raise NotImplementedError


class StepRateCallback(Resumable):
    """Lends the optimizer a `StepRate` for the length of a training, and logs `learning_rate`.

    Subclasses define `_step_rate(variable, step, epoch)`, which makes it; `step` is the optimizer's
    count of steps at the start of `epoch`, where the training starts.

    The optimizer's own variable is not written to, and its list of variables stays what it is.
    """

    def __init__(self):
        super().__init__()
        self._rate = None
        self._started = False

    def on_train_begin(self, logs=None):
        """Takes back a rate that a training which was broken off has left."""
        optimizer = _optimizer(self.model)
        if isinstance(optimizer._learning_rate, StepRate):
            _lend(self.model, optimizer._learning_rate.variable)
        if not isinstance(optimizer._learning_rate, keras.Variable):
            raise ValueError(
                f"The optimizer must be compiled with a number as its rate: {type(self).__name__} "
                f"sets the rate. Received: learning_rate={optimizer._learning_rate}"
            )
        self._started = False

    def on_epoch_begin(self, epoch, logs=None):
        """Lends the rate before the first step."""
        # Only now: in `on_train_begin`, the rate of another callback of this training looks like
        # one that was left by an earlier training.
        optimizer = _optimizer(self.model)
        present = optimizer._learning_rate
        if self._started and present is self._rate:
            return
        if self._started or not isinstance(present, keras.Variable):
            if isinstance(present, StepRate):
                _lend(self.model, present.variable)
            raise ValueError(
                f"{type(self).__name__} must be the only callback that sets the rate. "
                f"Received: learning_rate={present!r}"
            )
        rate = self._step_rate(present, steps_of(optimizer), epoch)
        # An equal one is kept: what was compiled with it need not be compiled again.
        if not _same(rate, self._rate):
            self._rate = rate
        _lend(self.model, self._rate)
        self._started = True

    def on_epoch_end(self, epoch, logs=None):
        """Logs the rate of the last step made."""
        if self._started and logs is not None:
            last = self._rate(steps_of(_optimizer(self.model)) - 1)
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(last))

    def on_train_end(self, logs=None):
        """Gives the optimizer its own rate back."""
        if self._rate is not None and _optimizer(self.model)._learning_rate is self._rate:
            _lend(self.model, self._rate.variable)
        self._started = False
        super().on_train_end(logs)

    def _step_rate(self, variable, step, epoch):
        raise NotImplementedError

    def _steps_made(self, otherwise):
        """The present t, if the optimizer has this callback's rate."""
        optimizer = _optimizer(self.model)
        lent = self._rate is not None and optimizer._learning_rate is self._rate
        return steps_of(optimizer) - self._rate.offset if lent else otherwise


def whole_number(name, value):
    """`value` as an `int`, or a `ValueError` if it is not a whole number from 1 up."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number < 1 or number != value:
        raise ValueError(f"`{name}` must be a positive whole number. Received: {name}={value!r}")
    return number


def rates(**pair):
    """The two rates as floats, or a `ValueError` if they do not rise from 0 or above."""
    (low_name, low), (high_name, high) = pair.items()
    if not (0 <= low <= high and math.isfinite(high)):
        raise ValueError(
            f"`{high_name}` must be finite and at least `{low_name}`, which must not be negative. "
            f"Received: {low_name}={low!r}, {high_name}={high!r}"
        )
    return float(low), float(high)


def _optimizer(model):
    """The optimizer whose rate counts."""
    optimizer = inner_optimizer(model.optimizer)
    if optimizer is None or hasattr(optimizer, "optimizers"):
        raise ValueError(
            "The model must be compiled with one optimizer, which has one rate. "
            f"Received: optimizer={optimizer}"
        )
    return optimizer


def _same(rate, other):
    return (
        type(rate) is type(other)
        and rate.variable is other.variable
        and rate.get_config() == other.get_config()
    )


class _WithNumber:
    """The configuration of an optimizer that has a `StepRate`, with a number in its place.

    A model saved now is saved with the number. With the schedule, its file would need this module
    to be loaded, and Keras would drop the state of the optimizer, because one that has a schedule
    has one variable less.
    """

    read_in_no_step = True  # as of `Carried`

    def __init__(self, optimizer, rate):
        self.optimizer, self.rate = optimizer, rate

    def __call__(self):
        number = float(keras.ops.convert_to_numpy(self.rate))
        return type(self.optimizer).get_config(self.optimizer) | {"learning_rate": number}


def _lend(model, rate):
    """Sets an optimizer's rate past its property, which would forget the variable of the rate."""
    optimizer = _optimizer(model)
    optimizer._learning_rate = rate
    vars(optimizer).pop("get_config", None)
    if isinstance(rate, StepRate):
        vars(optimizer)["get_config"] = _WithNumber(optimizer, rate.variable)
    forget_trace(model)

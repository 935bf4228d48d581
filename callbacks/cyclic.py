"""Cyclical learning rates."""

import math

from keras import ops

from callbacks._schedule import StepRate, StepRateCallback, rates, whole_number

MODES = ("triangular", "triangular2", "exp_range")


class CyclicLR(StepRateCallback):
    """Lets the learning rate rise and fall between two values, a little at every step.

    In step t, counted from 0, the rate is

        cycle = floor(1 + t / (2 * step_size))
        x = |t / step_size - 2 * cycle + 1|
        rate = base_lr + (max_lr - base_lr) * max(0, 1 - x) * scale

    so it starts at `base_lr`, is at its top after `step_size` steps, and back after as many again.

    - "triangular": `scale = 1`, all cycles are alike.
    - "triangular2": `scale = 1 / 2**(cycle - 1)`, the difference is halved after each cycle.
    - "exp_range": `scale = gamma**t`.

    The rate is computed inside the compiled training step, in float32, from the optimizer's count
    of steps. So it changes every step under any `steps_per_execution`, and no step waits for
    Python. `learning_rate` in the logs is the rate of the last step of the epoch.

    The optimizer has its own rate back after the training, and is saved with it at any time. It
    must be compiled with a number as its rate, which is not used while this callback is.
    Another `fit` with the same callback goes on in the cycle where the last one ended, also with
    another model or one that was saved and loaded; a new callback starts at t = 0. (A training
    that was broken off leaves the rate in its place. The next that has such a callback clears that
    up, and so does `on_train_end()`.)

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.linspace(-1, 1, 8)[:, None]
    >>> cyclic = CyclicLR(base_lr=0.1, max_lr=0.5, step_size=4)
    >>> history = model.fit(x, x, batch_size=2, epochs=3, verbose=0, callbacks=[cyclic])
    >>> [round(rate, 3) for rate in history.history["learning_rate"]]  # at t = 3, 7 and 11
    [0.4, 0.2, 0.4]

    Args:
        base_lr: The lower rate.
        max_lr: The upper rate.
        step_size: Half the length of a cycle, in steps. Smith: 2 to 10 epochs.
        mode: One of "triangular", "triangular2" and "exp_range".
        gamma: Of "exp_range" only: factor of a step, in (0, 1].

    Attributes:
        steps: The steps made so far, as of the last epoch's end. It is t of the next `fit`'s first
            step and may be set.

    Raises:
        ValueError: If an argument is out of range. When training begins, if the optimizer has a
            schedule of its own or several optimizers inside; when an epoch begins, if something
            else has set the rate.

    Reference:
        [Smith, 2017](https://arxiv.org/abs/1506.01186), section 3.
    """

    def __init__(self, base_lr, max_lr, step_size, mode="triangular", gamma=1.0):
        super().__init__()
        self.base_lr, self.max_lr = rates(base_lr=base_lr, max_lr=max_lr)
        self.step_size = whole_number("step_size", step_size)
        if mode not in MODES:
            raise ValueError(f"`mode` must be one of {MODES}. Received: mode={mode!r}")
        if not 0 < gamma <= 1:
            raise ValueError(f"`gamma` must be above 0 and not above 1. Received: gamma={gamma!r}")
        self.mode, self.gamma = mode, float(gamma)
        self.steps = 0

    def on_train_begin(self, logs=None):
        """Counts the steps of a training that was broken off."""
        self.steps = self._steps_made(self.steps)
        super().on_train_begin(logs)

    def on_epoch_end(self, epoch, logs=None):
        """Logs the rate of the last step made, and counts."""
        super().on_epoch_end(epoch, logs)
        self.steps = self._steps_made(self.steps)

    def _numbers(self):
        return {"steps": self._steps_made(self.steps)}

    def _take_over(self, numbers):
        self.steps = int(numbers["steps"])

    def _step_rate(self, variable, step, epoch):
        return _Cycles(
            variable,
            offset=step - self.steps,
            base_lr=self.base_lr,
            max_lr=self.max_lr,
            step_size=self.step_size,
            mode=self.mode,
            log_gamma=math.log(self.gamma),
        )


class _Cycles(StepRate):
    def rate(self, t):
        # In whole numbers as far as they go: quotients in float32 miss the ends of cycles.
        length = 2 * self.step_size
        down = ops.abs(ops.subtract(ops.mod(t, length), self.step_size))
        height = ops.cast(ops.subtract(self.step_size, down), "float32") / self.step_size
        if self.mode == "triangular2":
            height = height * ops.power(0.5, ops.cast(ops.floor_divide(t, length), "float32"))
        if self.mode == "exp_range":
            # gamma itself is so near to 1 that float32 would spoil the logarithm.
            height = height * ops.exp(self.log_gamma * ops.cast(t, "float32"))
        return self.base_lr + ops.subtract(self.max_lr, self.base_lr) * height

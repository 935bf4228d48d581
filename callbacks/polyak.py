"""Averages of the weights over the steps of a training."""

import contextlib
import math
import numbers

import numpy as np
from keras import ops

from callbacks._carried import Resumable
from callbacks._optimizer import inner_optimizer
from callbacks._retrace import Hook, forget_trace
from callbacks.batchnorm import recalibrate_batchnorm
from callbacks.landscape import weights_at

PARTS = ("steps", "average", "remainder")


class PolyakAveraging(Resumable):
    """Averages the trainable weights over every step, inside the compiled training step.

    With w_1, w_2, ... the weights after each step later than `start_step`, the average after t of
    them is

    - `decay=None`: `(w_1 + ... + w_t) / t`, Polyak-Ruppert averaging;
    - `decay=d`: `(1 - d) * sum of d^(t - i) * w_i / (1 - d^t)`, an exponential average that is
      debiased as in Adam: the first average is w_1 and the initial weights have no part in it.

    The model trains on unaffected; give it the averaged weights with `swapped`. They come without
    batch-norm statistics of their own: those of the raw weights do not fit them, so recalibrate.

    The averages live in the optimizer during training (and so in its memory: two numbers a
    weight, which carry the rounding errors along), and what `Optimizer.apply` does is extended by
    their update: any `steps_per_execution` will do, and several of these callbacks in one `fit`.
    After it the optimizer is as it was, so a model can be saved and loaded between two trainings.
    In a file that is saved during one, the averages have a group of their own, which is passed
    over where it is loaded without this callback; with it, as by `BackupAndRestore` before or after
    it in the list, the average goes on where it was when the file was saved. Under `tf.distribute`
    each step counts once. A further training with the same callback goes on with the same average,
    also on another model with weights of the same shapes. A training that raises leaves the average
    where it came to; call `on_train_end()` if the optimizer is to be used without this callback
    then.

    A step is an update of the weights: gradient accumulation makes one of several batches, and
    one that `LossScaleOptimizer` skips is none. With `use_ema`, the weights that Keras overwrites
    are averaged as they are after that.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    >>> model.set_weights([np.zeros((1, 1))])
    >>> model.compile(keras.optimizers.SGD(1.0), lambda y, p: -p)  # every step adds 1 to it
    >>> polyak = PolyakAveraging(start_step=1)
    >>> history = model.fit(np.ones((3, 1)), np.ones(3), 1, verbose=0, callbacks=[polyak])
    >>> polyak.steps, polyak.average
    (2, [array([[2.5]], dtype=float32)])
    >>> with polyak.swapped():
    ...     print(float(model(np.ones((1, 1)))[0, 0]))
    2.5
    >>> print(float(model(np.ones((1, 1)))[0, 0]))
    3.0

    Args:
        decay: None, or a number in [0, 1): about `1 / (1 - decay)` steps count.
        start_step: How many steps to leave out, counted from the first training on.

    Attributes:
        steps: How many steps are in the average.
        average: A list of arrays, aligned with `model.trainable_variables`, in float32 (float64 if
            some weight is); a copy. Within `1e-6` of the exact average of the weights' values.

    Raises:
        ValueError: If `decay` or `start_step` is out of range; when training begins, if the model
            is not built and compiled, or an earlier one had weights of other shapes; from
            `average` and `swapped`, if no step was averaged.

    Reference:
        [Polyak and Juditsky, 1992](https://doi.org/10.1137/0330046);
        [Kingma and Ba, 2015](https://arxiv.org/abs/1412.6980), sections 3 and 7.2.
    """

    def __init__(self, decay=None, start_step=0):
        super().__init__()
        if decay is not None and not (_is(numbers.Real, decay) and 0 <= decay < 1):
            raise ValueError(
                f"`decay` must be None or a number in [0, 1). Received: decay={decay!r}"
            )
        if not (_is(numbers.Integral, start_step) and start_step >= 0):
            raise ValueError(
                "`start_step` must be a whole number, at least 0. "
                f"Received: start_step={start_step!r}"
            )
        self.decay = None if decay is None else float(decay)
        self.start_step = int(start_step)
        self._shapes = None
        self._kept = None  # all steps, average, and what rounding cut off it
        self._live = None  # the same as variables of the optimizer, while training
        self._hooks = []
        self._averaged = None  # the model; `self.model` may be the next one already

    @property
    def steps(self):
        """How many steps are in the average."""
        return 0 if self._kept is None else max(0, int(self._state()[0]) - self.start_step)

    @property
    def average(self):
        """A list of arrays, aligned with the model's trainable variables."""
        if not self.steps:
            raise ValueError(
                "A step must have been averaged before the average is used. "
                f"Received: steps=0, start_step={self.start_step}"
            )
        edges = np.cumsum([math.prod(shape) for shape in self._shapes])[:-1]
        pieces = np.split(self._state()[1].copy(), edges)
        return [piece.reshape(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]

    @contextlib.contextmanager
    def swapped(self, recalibrate_on=None):
        """Gives the model the averaged weights inside a `with` block, also during training.

        Afterwards, and after an exception, weights and batch-norm statistics are as they were.

        Args:
            recalibrate_on: Inputs over which batch-norm statistics are computed for the averaged
                weights (`recalibrate_batchnorm`); without batch norm they are not used.

        Yields:
            The model.
        """
        with weights_at(self.model, self.average) as model:
            if recalibrate_on is not None:
                recalibrate_batchnorm(model, recalibrate_on)
            yield model

    def on_train_begin(self, logs=None):
        """Puts the averages into the optimizer."""
        self._take_out()  # of a training that raised
        model = self.model
        optimizer = _built_optimizer(model)
        weights = list(model.trainable_variables)
        shapes = [tuple(v.shape) for v in weights]
        if self._shapes not in (None, shapes):
            raise ValueError(
                "`model` must have weights of the shapes that were averaged before, "
                f"{self._shapes}; use a new callback. Received: shapes={shapes}"
            )
        size = sum(map(math.prod, shapes))
        if self._kept is None:
            wide = any(v.dtype == "float64" for v in weights)
            zeros = np.zeros(size, "float64" if wide else "float32")
            self._kept = [np.array(0), zeros, zeros]
        self._shapes = shapes
        # An optimizer that scales the loss leaves the steps to another one inside it.
        inner = inner_optimizer(optimizer)
        # Each replica of `tf.distribute` makes the same update; one is kept, in the place of all.
        strategy = getattr(model, "distribute_strategy", None)
        with strategy.scope() if strategy is not None else contextlib.nullcontext():
            self._live = [
                inner.add_variable(
                    value.shape, value, dtype, "only_first_replica", name=f"polyak_{name}"
                )
                for name, value, dtype in zip(
                    PARTS, self._kept, ("int", *[self._kept[1].dtype.name] * 2), strict=True
                )
            ]
        self._hooks = [Hook(inner, "apply", self._apply_and_average(inner, weights))]
        for saved in {id(o): o for o in (optimizer, inner)}.values():
            for name in ("save_own_variables", "load_own_variables"):
                self._hooks.append(Hook(saved, name, self._without(inner)))
        self._averaged = model
        forget_trace(model)

    def on_train_end(self, logs=None):
        """Takes the averages out of the optimizer."""
        self._take_out()
        super().on_train_end(logs)

    def _take_out(self):
        if self._live is None:
            return
        self._kept = self._state()
        inner = self._hooks[0].owner
        for hook in self._hooks:
            hook.release()
        for variable in self._live:
            inner._untrack_variable(variable)
        forget_trace(self._averaged)
        self._live, self._hooks, self._averaged = None, [], None

    def _state(self):
        if self._live is None:
            return self._kept
        # Asked for the model in the middle of an epoch, Keras on JAX fills all variables.
        self.model  # noqa: B018
        return [np.array(ops.convert_to_numpy(v)) for v in self._live]

    def _apply_and_average(self, optimizer, weights):
        steps, average, remainder = self._live

        def apply_and_average(apply, *args, **kwargs):
            before = optimizer.iterations + 0  # its value, where TensorFlow would keep looking
            result = apply(*args, **kwargs)
            moved = optimizer.iterations - before
            steps.assign_add(ops.cast(moved, steps.dtype))
            n = steps - self.start_step
            counts = ops.logical_and(moved > 0, n > 0)
            flat = [ops.reshape(ops.cast(v, average.dtype), (-1,)) for v in weights]
            gain = self._gain(ops.maximum(ops.cast(n, average.dtype), 1))
            # What is added is soon far smaller than the average: each sum's rounding error is
            # kept for the next (Kahan, 1965). Before `start_step` weights may well be infinite.
            change = (ops.concatenate(flat) - average - remainder) * gain
            change = ops.where(counts, change, 0) + remainder
            total = average + change
            remainder.assign(change - (total - average))
            average.assign(total)
            return result

        return apply_and_average

    def _gain(self, n):
        """The share of the newest of `n` iterates in their average."""
        if self.decay is None:
            return 1 / n
        if self.decay == 0:
            return ops.ones_like(n)
        # 1 - d^n would lose most of its digits where d^n is close to one.
        gain = (self.decay - 1) / ops.expm1(n * math.log(self.decay))
        return ops.where(n > 1, gain, 1)

    def _without(self, optimizer):
        variables = self._live

        def without(method, *args, **kwargs):
            for variable in variables:
                optimizer._untrack_variable(variable)
            try:
                return method(*args, **kwargs)
            finally:
                for variable in variables:
                    optimizer._track_variable(variable)

        return without

    def _group(self):
        return f"polyak_{self.decay}_{self.start_step}"

    def _numbers(self):
        """What a file keeps."""
        return {} if self._kept is None else dict(zip(PARTS, self._state(), strict=True))

    def _take_over(self, numbers):
        """What a file kept, in the place of what there is."""
        kept = [numbers[name] for name in PARTS]
        size = sum(math.prod(v.shape) for v in self.model.trainable_variables)
        if kept[1].shape != (size,):
            return  # weights that do not fit have been said to
        self._kept = kept
        for variable, value in zip(self._live or (), kept, strict=self._live is not None):
            variable.assign(value)


def _is(kind, value):
    return isinstance(value, kind) and not isinstance(value, bool)


def _built_optimizer(model):
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError(f"`model` must be compiled. Received: model={model}")
    if not model.built or not model.trainable_variables:
        raise ValueError(
            "`model` must be built and have trainable weights before training begins: give it a "
            f"`keras.Input` or call it once. Received: model={model}, built={model.built}"
        )
    if not optimizer.built:
        # Its own variables come before ours.
        optimizer.build(model.trainable_variables)
    return optimizer

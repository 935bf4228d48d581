"""Batch normalization over parts of a batch."""

import numbers

import keras
from keras import ops


@keras.saving.register_keras_serializable("lecture_lab")
class GhostBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization whose noise is that of smaller batches.

    In training, consecutive examples form virtual ("ghost") batches, each of which is normalized
    with the mean and the variance of its own. In inference, with `trainable=False`, and for a
    batch that makes only one ghost batch, it is `keras.layers.BatchNormalization`.

    A batch of n examples is cut into `n / virtual_batch_size` ghost batches, rounded to the
    nearest whole number (a half down) and at least one, whose sizes differ by at most one. So a
    remainder does not become a ghost batch of very few examples, whose variance would mean
    nothing: of 70 examples with a virtual batch size of 32 there are two ghost batches of 35.

    The moving statistics take one step per batch, whatever the virtual size, towards the mean and
    the variance of the whole batch: the mean of the ghost means, and the mean of the ghost
    variances **plus the variance of the ghost means**, weighted by size (law of total variance).
    They are thus those of ordinary batch normalization, and estimate the population; the mean of
    the ghost variances alone falls short of it, by 1 / m for ghost batches of m values. (Hoffer et
    al. take a step for every ghost batch, towards its own statistics.)

    Example:
    >>> import numpy as np
    >>> layer = GhostBatchNormalization(2, epsilon=1e-9)
    >>> x = np.array([[0.0], [2.0], [10.0], [30.0]], "float32")
    >>> np.asarray(layer(x, training=True)).ravel().round(3).tolist()
    [-1.0, 1.0, -1.0, 1.0]

    Args:
        virtual_batch_size: Examples of a ghost batch, at least 1. (Of one alone, a layer without
            positions makes zeros.)
        **kwargs: Those of `keras.layers.BatchNormalization`, such as `axis`, `momentum` and
            `epsilon`; not `renorm` and `synchronized`.

    Raises:
        ValueError: If `virtual_batch_size` is not a whole number of at least 1, `renorm` or
            `synchronized` is asked for, `axis` is that of the examples, or, in training, the
            inputs come with a mask.

    Reference:
        [Hoffer et al., 2017](https://arxiv.org/abs/1705.08741), algorithm 1;
        [Summers and Dinneen, 2020](https://arxiv.org/abs/1906.03548).
    """

    def __init__(self, virtual_batch_size, **kwargs):
        whole = isinstance(virtual_batch_size, numbers.Integral)
        if not whole or isinstance(virtual_batch_size, bool) or virtual_batch_size < 1:
            raise ValueError(
                "`virtual_batch_size` must be a whole number, at least 1. "
                f"Received: virtual_batch_size={virtual_batch_size!r}"
            )
        for name in ("renorm", "synchronized"):
            if kwargs.get(name):
                raise ValueError(
                    f"`{name}` must be False: ghost batches have statistics of their own. "
                    f"Received: {name}={kwargs[name]}"
                )
        super().__init__(**kwargs)
        self.virtual_batch_size = int(virtual_batch_size)

    def build(self, input_shape):
        """Creates the weights of batch normalization."""
        if self.axis % len(input_shape) == 0:
            raise ValueError(
                "`axis` must be that of the channels, not of the examples. "
                f"Received: axis={self.axis}, input_shape={input_shape}"
            )
        super().build(input_shape)

    def call(self, inputs, training=None, mask=None):
        """Normalizes; see the class."""
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        if mask is not None:
            raise ValueError(
                "`mask` must be None in training: ghost batches are counted in whole examples. "
                f"Received: mask={mask}"
            )
        n = ops.shape(inputs)[0]
        parts = self._parts(n)
        if isinstance(n, int) and parts == [(1, n)]:
            return super().call(inputs, training=training)
        # As Keras does: half precision has neither the range nor the digits for statistics.
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        outputs, moments, start = [], [], 0
        for number, size in parts:
            end = start + number * size
            output, *of_ghosts = self._normalized(x[start:end], number, size)
            outputs.append(output)
            moments.append((ops.cast(size, x.dtype) / ops.cast(n, x.dtype), *of_ghosts))
            start = end
        self._update_moving_statistics(moments)
        outputs = outputs[0] if len(outputs) == 1 else ops.concatenate(outputs)
        return ops.cast(ops.reshape(outputs, ops.shape(inputs)), self.compute_dtype)

    def _parts(self, n):
        """Numbers and sizes of the ghost batches: `[(larger ones, size + 1), (others, size)]`.

        If `n` is a tensor, so are they, and there may be none of the larger ones.
        """
        # A half rounded up would make ghost batches of a single example, of 3 and a size of 2.
        number = (2 * n + self.virtual_batch_size - 1) // (2 * self.virtual_batch_size)
        number = max(1, number) if isinstance(n, int) else ops.maximum(number, 1)
        size, larger = n // number, n % number
        parts = [(larger, size + 1), (number - larger, size)]
        return parts[1:] if isinstance(n, int) and not larger else parts

    def _normalized(self, x, number, size):
        """Normalizes `number` ghost batches of `size` examples; returns their moments too."""
        ghosts = ops.reshape(x, (number, size, *ops.shape(x)[1:]))
        rank = len(ghosts.shape)
        axis = self.axis % len(x.shape) + 1
        others = [i for i in range(1, rank) if i != axis]
        mean, variance = ops.moments(ghosts, others, keepdims=True)
        channels = x.shape[self.axis]
        along = [channels if i == axis else 1 for i in range(rank)]
        factor = ops.rsqrt(variance + self.epsilon)
        if self.scale:
            factor = factor * ops.reshape(ops.cast(self.gamma, x.dtype), along)
        output = (ghosts - mean) * factor
        if self.center:
            output = output + ops.reshape(ops.cast(self.beta, x.dtype), along)
        moments = (ops.reshape(m, (number, channels)) for m in (mean, variance))
        return ops.reshape(output, ops.shape(x)), *moments

    def _update_moving_statistics(self, moments):
        mean = sum(share * ops.sum(means, axis=0) for share, means, _ in moments)
        variance = sum(
            share * ops.sum(variances + ops.square(means - mean), axis=0)
            for share, means, variances in moments
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            before = ops.cast(moving, now.dtype)
            moving.assign(before * self.momentum + now * (1 - self.momentum))

    def get_config(self):
        """The configuration, for saving."""
        return {"virtual_batch_size": self.virtual_batch_size, **super().get_config()}

"""Batch normalization whose statistics stay what they were set to."""

import keras


@keras.saving.register_keras_serializable("lecture_lab")
class FrozenBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization that normalizes with its moving statistics in training too.

    Scale and shift are trained (`trainable = False` of Keras's layer would freeze them as well);
    the statistics change only when they are assigned. So there is no noise from the mini-batch
    and no gradient through its statistics, while parameters and function at test are those of
    batch normalization.

    Example:
    >>> import numpy as np
    >>> layer = FrozenBatchNormalization(epsilon=0.0)
    >>> np.asarray(layer(np.array([[1.0], [3.0]]), training=True)).tolist()
    [[1.0], [3.0]]
    """

    def call(self, inputs, training=None, mask=None):
        """Normalize with the moving statistics, whatever `training` says."""
        return super().call(inputs, training=False, mask=mask)

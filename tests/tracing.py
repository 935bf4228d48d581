"""A layer that tells when a model is traced."""

import keras


def counting():
    """The layer, which changes nothing, and a list that grows by one entry each time."""
    traces = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            traces.append(1)
            return x

    return Counting(), traces

"""The one module that knows the backend: compiled derivatives of a scalar function."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras


class Compiled(NamedTuple):
    """A function of `(w, state, x, y)`, its gradient, and its Hessian (last argument: v).

    Each is traced when it is first called, so what is never used costs nothing.
    """

    value: Callable
    value_and_gradient: Callable
    hessian_vector_product: Callable


def compile_derivatives(function, w, state, x, y):
    """Compiles `function(w, state, x, y) -> scalar` and its derivatives in the vector `w`.

    Args:
        function: Written in Keras operations, without side effects.
        w: A vector such as will be passed, for its shape and dtype.
        state: A list of tensors, likewise.
        x: A tensor or a structure of them, likewise but for the number of rows.
        y: As `x`.

    Returns:
        A `Compiled`.

    Raises:
        ValueError: If the backend is neither TensorFlow nor JAX.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _compile_tensorflow(function, w, state, x, y)
    if backend == "jax":
        return _compile_jax(function)
    raise ValueError(
        "Derivatives of the loss need the TensorFlow or the JAX backend of Keras. "
        f"Received: keras.backend.backend()={backend!r}"
    )


def _compile_tensorflow(function, w, state, x, y):
    import tensorflow as tf

    def gradient(w, state, x, y):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = function(w, state, x, y)
        return value, tape.gradient(value, w, unconnected_gradients="zero")

    def product(w, state, x, y, v):
        # Twice backward: tf.autodiff.ForwardAccumulator lacks rules for some operations.
        with tf.GradientTape() as tape:
            tape.watch(w)
            _, first = gradient(w, state, x, y)
        return tape.gradient(first, w, output_gradients=v, unconnected_gradients="zero")

    vector = tf.TensorSpec(w.shape, w.dtype)
    state = [tf.TensorSpec(a.shape, a.dtype) for a in state]
    # Any number of rows, so that a smaller chunk or batch is not another trace.
    x, y = keras.tree.map_structure(lambda a: tf.TensorSpec([None, *a.shape[1:]], a.dtype), (x, y))

    def compiled(f, *last):
        # Keras layers need no AutoGraph. TensorFlow takes functions with the same code for one, and
        # warns of retracing when another model is measured; a `partial` has no code.
        signature = (vector, state, x, y, *last)
        return tf.function(functools.partial(f), input_signature=signature, autograph=False)

    return Compiled(compiled(function), compiled(gradient), compiled(product, vector))


def _compile_jax(function):
    import jax

    def product(w, state, x, y, v):
        return jax.jvp(lambda w: jax.grad(function)(w, state, x, y), (w,), (v,))[1]

    return Compiled(jax.jit(function), jax.jit(jax.value_and_grad(function)), jax.jit(product))

"""The one module that knows the backend: compiled derivatives of a scalar function."""

import contextlib
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


@contextlib.contextmanager
def float64_enabled():
    """A context in which operations of Keras compute in float64 what is given in float64.

    On TensorFlow it also has operations that differentiate twice in the place of two that do not,
    and casts to float32 that are written out in a layer give float64.
    """
    own = _float64_on_jax if keras.backend.backend() == "jax" else _float64_on_tensorflow
    with own():
        yield


@contextlib.contextmanager
def _replaced(*changes):
    """Sets items or attributes `(owner, name, value)` inside a `with` block."""
    with contextlib.ExitStack() as stack:
        for owner, name, value in changes:
            if isinstance(owner, dict):
                stack.callback(owner.__setitem__, name, owner[name])
                owner[name] = value
            else:
                stack.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, value)
        yield


@contextlib.contextmanager
def _float64_on_jax():
    import jax
    import jax.experimental
    from keras.src.backend.common import dtypes

    # Keras gives 32 bits where its rules of promotion say 64: see `result_type` there.
    narrowed = getattr(dtypes, "BIT64_TO_BIT32_DTYPE", {"float64": None})
    here = hasattr(jax, "enable_x64")  # since JAX 0.8
    enable = jax.enable_x64 if here else jax.experimental.enable_x64
    with enable(True), _replaced((narrowed, "float64", "float64")):
        yield


@contextlib.contextmanager
def _float64_on_tensorflow():
    import tensorflow as tf

    resize, cast = tf.image.resize, tf.cast

    def matrix(size, new, **options):
        """What resizing does to an axis, as a matrix; it is linear."""
        with tf.init_scope():
            basis = tf.eye(size)[None, :, None, :]
            return tf.constant(resize(basis, (new, 1), **options).numpy()[0, :, 0], "float64")

    def exact_resize(images, size, method="bilinear", antialias=False, **options):
        # TensorFlow's answers in float32, and all but "nearest" have no second derivative.
        known = isinstance(size, (tuple, list)) and None not in images.shape[1:]
        if images.dtype != tf.float64 or method == "nearest" or options or not known:
            return resize(images, size, method, antialias=antialias, **options)
        many = images if len(images.shape) == 4 else images[None]
        rows, columns = (
            matrix(old, new, method=method, antialias=antialias)
            for old, new in zip(many.shape[1:3], size, strict=True)
        )
        resized = tf.einsum("ai,nijc,bj->nabc", rows, many, columns)
        return resized if len(images.shape) == 4 else resized[0]

    def exact_moments(x, axes, shift=None, keepdims=False, name=None):
        # TensorFlow's stop the gradient of the mean in the variance. It is zero; not its own.
        mean = tf.reduce_mean(x, axes, keepdims=True)
        variance = tf.reduce_mean(tf.square(x - mean), axes, keepdims=keepdims)
        return mean if keepdims else tf.reshape(mean, tf.shape(variance)), variance

    def wide_cast(x, dtype, name=None):
        short = tf.as_dtype(dtype) in (tf.float16, tf.bfloat16, tf.float32)
        return cast(x, tf.float64 if short else dtype, name)

    with _replaced(
        (tf.image, "resize", exact_resize),
        (tf.nn, "moments", exact_moments),
        (tf, "cast", wide_cast),
    ):
        yield


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

"""A model's loss as a function of one flat vector of weights."""

import itertools
import math

import keras
import numpy as np

from callbacks._backend import compile_derivatives

# Bounds the memory of one evaluation; a probe set of a few thousand examples stays one call.
CHUNK_SIZE = 2048


class NonFiniteError(ValueError):
    """Weights, loss or a derivative of it are infinite or not a number."""


class LossSurface:
    """The compiled loss of `model`, a mean over all of `(x, y)`, as a function of its weights.

    In inference mode and with regularization losses. Vectors are float64 NumPy arrays of all
    trainable weights, in the order of `model.trainable_variables` and C order within each; the
    computation runs in the precision of the weights. Everything is functional: variables are
    replaced while the loss is traced (`keras.StatelessScope`) and never assigned, so no call, and
    no exception in one, changes the model.

    The weights where a measurement starts and all other state (batch-norm statistics) are read
    from the model anew each time: one surface serves a whole training, compiled once.

    Args:
        model: A built `keras.Model` that is compiled with a loss.
        x: Inputs, an array or a structure of arrays with the same number of rows.
        y: Targets, likewise.
        chunk_size: The most examples that are evaluated at a time.

    Raises:
        ValueError: If the model has no weights or no loss, or a loss that is not a mean over
            examples; if `x` is empty or `y` differs in length; if the backend is not supported.
    """

    def __init__(self, model, x, y, chunk_size=CHUNK_SIZE):
        self.x, self.y = keras.tree.map_structure(np.asarray, (x, y))
        self.examples = _number_of_rows(self.x, self.y)
        _check_model(model)
        self.model = model
        self._compiled_loss = model._compile_loss
        self._trainable = list(model.trainable_variables)
        self._shapes = [tuple(v.shape) for v in self._trainable]
        self._splits = [int(i) for i in np.cumsum([math.prod(s) for s in self._shapes])]
        self.size = self._splits[-1]
        wide = any(v.dtype == "float64" for v in self._trainable)
        self._dtype = "float64" if wide else "float32"
        # A TensorFlow graph reads other variables when it runs; JAX has to be handed their values.
        in_jax = keras.backend.backend() == "jax"
        self._other = [*model.non_trainable_variables, *model.metrics_variables] if in_jax else []

        pieces = math.ceil(self.examples / chunk_size)
        edges = [self.examples * i // pieces for i in range(pieces + 1)]
        slices = [slice(*edge) for edge in itertools.pairwise(edges)]
        self._chunks = [(self._rows(s), (s.stop - s.start) / self.examples) for s in slices]
        xy = self._chunks[0][0]
        if len(keras.tree.flatten(y)) > 1:
            # The first call of a loss with several outputs creates its metrics: not inside a trace.
            self._loss(self._vector(self.start), self._state(), *self._rows(slice(0, 2)))
        self._compiled = compile_derivatives(
            self._loss, self._vector(self.start), self._state(), *xy
        )

    @property
    def start(self):
        """A copy of the weights the model has now."""
        weights = [np.asarray(v).ravel() for v in self._trainable]
        return _finite(np.concatenate(weights).astype("float64"), "the weights of the model")

    def is_of(self, model):
        """Whether this is the surface of `model`, as it is compiled and trainable now."""
        return (
            model is self.model
            and model._compile_loss is self._compiled_loss  # compile() makes a new one
            and [id(v) for v in model.trainable_variables] == [id(v) for v in self._trainable]
        )

    def value(self, w):
        """The loss at `w`, a float."""
        return self._mean(self._compiled.value, "the loss", w)[0]

    def value_and_gradient(self, w):
        """The loss at `w` and its gradient."""
        return self._mean(self._compiled.value_and_gradient, "the loss or its gradient", w)

    def hessian_vector_product(self, w, v):
        """The Hessian at `w` times `v`."""
        return self._mean(self._compiled.hessian_vector_product, "a Hessian product", w, v)[0]

    def batch_gradient(self, w, rows):
        """The gradient at `w` of the loss over `rows` (indices) alone."""
        xy = self._rows(rows)
        _, gradient = self._compiled.value_and_gradient(self._vector(w), self._state(), *xy)
        return _finite(_float64(gradient), "a batch gradient")

    def _mean(self, function, what, w, *v):
        w, *v = map(self._vector, (w, *v))
        totals = itertools.repeat(0.0)
        for xy, share in self._chunks:
            results = keras.tree.flatten(function(w, self._state(), *xy, *v))
            totals = [t + share * _float64(r) for t, r in zip(totals, results, strict=False)]
        return [_finite(t, what) for t in totals]

    def _loss(self, w, state, x, y):
        one = len(self._splits) == 1  # for which Keras on TensorFlow cannot split
        values = [w] if one else keras.ops.split(w, self._splits[:-1])
        mapping = [
            (variable, keras.ops.cast(keras.ops.reshape(value, shape), variable.dtype))
            for variable, value, shape in zip(self._trainable, values, self._shapes, strict=True)
        ]
        mapping += zip(self._other, state, strict=True)
        with keras.StatelessScope(mapping, collect_losses=True):
            predictions = self.model(x, training=False)
            loss = self.model.compute_loss(
                x=x, y=y, y_pred=predictions, sample_weight=None, training=False
            )
        return keras.ops.cast(loss, self._dtype)

    def _state(self):
        return [v.value for v in self._other]

    def _vector(self, w):
        return keras.ops.convert_to_tensor(np.asarray(w, self._dtype))

    def _rows(self, index):
        def tensor(a):
            floating = np.issubdtype(a.dtype, np.floating)
            return keras.ops.convert_to_tensor(
                a[index], dtype=keras.backend.floatx() if floating else None
            )

        return keras.tree.map_structure(tensor, (self.x, self.y))


def _float64(tensor):
    return np.asarray(keras.ops.convert_to_numpy(tensor), "float64")


def _finite(array, what):
    if not np.all(np.isfinite(array)):
        raise NonFiniteError(
            f"Curvature needs finite numbers; {what} must not overflow. "
            f"Received: {np.sum(~np.isfinite(array))} of {np.size(array)} not finite"
        )
    return array


def _number_of_rows(x, y):
    lengths = {len(a) if a.ndim else 0 for a in keras.tree.flatten((x, y))}
    if len(lengths) != 1 or 0 in lengths:
        shapes = keras.tree.map_structure(np.shape, (x, y))
        raise ValueError(
            "`x` and `y` must have the same number of rows, at least one. "
            f"Received: x.shape={shapes[0]}, y.shape={shapes[1]}"
        )
    return lengths.pop()


def _check_model(model):
    if not getattr(model, "compiled", False) or model.loss is None:
        raise ValueError(
            "The model must be compiled with a loss, as in `model.compile(loss=...)`. "
            f"Received: model={model!r}"
        )
    if not model.trainable_variables:
        raise ValueError(
            "The model must be built and have trainable weights. "
            f"Received: model={model!r} with built={model.built}"
        )
    reductions = {getattr(loss, "reduction", "mean") for loss in keras.tree.flatten(model.loss)}
    if reductions & {"sum", "none", None}:
        raise ValueError(
            "The loss must be a mean over examples (reduction='sum_over_batch_size'). "
            f"Received: reduction={sorted(map(str, reductions))}"
        )

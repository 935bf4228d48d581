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
        pieces = math.ceil(self.examples / chunk_size)
        edges = [self.examples * i // pieces for i in range(pieces + 1)]
        slices = [slice(*edge) for edge in itertools.pairwise(edges)]
        self._chunks = [(self._rows(s), (s.stop - s.start) / self.examples) for s in slices]
        self._loss = _loss_of(model, *self._chunks[0][0])
        self._compiled = self._loss.compiled
        self.size = self._loss.size
        self.start  # noqa: B018  weights that are not finite are an error now, not later

    @property
    def start(self):
        """A copy of the weights the model has now."""
        return _finite(self._loss.weights.astype("float64"), "the weights of the model")

    def is_of(self, model):
        """Whether this is the surface of `model`, as it is compiled and trainable now."""
        return self._loss.is_of(model)

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
        _, gradient = self._compiled.value_and_gradient(self._vector(w), self._loss.state, *xy)
        return _finite(_float64(gradient), "a batch gradient")

    def _mean(self, function, what, w, *v):
        w, *v = map(self._vector, (w, *v))
        totals = itertools.repeat(0.0)
        for xy, share in self._chunks:
            results = keras.tree.flatten(function(w, self._loss.state, *xy, *v))
            totals = [t + share * _float64(r) for t, r in zip(totals, results, strict=False)]
        return [_finite(t, what) for t in totals]

    def _vector(self, w):
        return keras.ops.convert_to_tensor(np.asarray(w, self._loss.dtype))

    def _rows(self, index):
        def tensor(a):
            floating = np.issubdtype(a.dtype, np.floating)
            return keras.ops.convert_to_tensor(
                a[index], dtype=keras.backend.floatx() if floating else None
            )

        return keras.tree.map_structure(tensor, (self.x, self.y))


class _Loss:
    """The compiled loss of a model as a function of `(w, state, x, y)`, with its derivatives.

    It knows the model and no data: all surfaces of a model share it, so each derivative is traced
    once for a model, whatever it is measured on and by whom.
    """

    def __init__(self, model, x, y):
        self.model, self.specs = model, _specs(x, y)
        self._compiled_loss = model._compile_loss
        self._trainable = list(model.trainable_variables)
        self._shapes = [tuple(v.shape) for v in self._trainable]
        self._splits = [int(i) for i in np.cumsum([math.prod(s) for s in self._shapes])]
        self.size = self._splits[-1]
        wide = any(v.dtype == "float64" for v in self._trainable)
        self.dtype = "float64" if wide else "float32"
        # A TensorFlow graph reads other variables when it runs; JAX has to be handed their values.
        in_jax = keras.backend.backend() == "jax"
        self._other = [*model.non_trainable_variables, *model.metrics_variables] if in_jax else []
        w = keras.ops.convert_to_tensor(self.weights)
        if len(keras.tree.flatten(y)) > 1:
            # The first call of a loss with several outputs creates its metrics: not inside a trace.
            self(w, self.state, *keras.tree.map_structure(lambda a: a[:2], (x, y)))
        self.compiled = compile_derivatives(self, w, self.state, x, y)

    @property
    def weights(self):
        """The weights the model has now, as one vector."""
        return np.concatenate([np.asarray(v).ravel() for v in self._trainable]).astype(self.dtype)

    @property
    def state(self):
        """The values of all other variables that have to be handed over."""
        return [v.value for v in self._other]

    def is_of(self, model):
        """Whether this is the loss of `model`, as it is compiled and trainable now."""
        return (
            model is self.model
            and model._compile_loss is self._compiled_loss  # compile() makes a new one
            and [id(v) for v in model.trainable_variables] == [id(v) for v in self._trainable]
        )

    def __call__(self, w, state, x, y):
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
        return keras.ops.cast(loss, self.dtype)


def _loss_of(model, x, y):
    """The loss of a model, kept with it as long as model and kind of data are what they were."""
    kept = vars(model).get("_loss_as_function")
    if kept is None or not kept.is_of(model) or kept.specs != _specs(x, y):
        kept = _Loss(model, x, y)
        object.__setattr__(model, "_loss_as_function", kept)  # Keras would track it as a layer's
    return kept


def _specs(x, y):
    """Structure, shapes but for the number of rows, and types."""
    return keras.tree.map_structure(lambda a: (str(a.dtype), *a.shape[1:]), (x, y))


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

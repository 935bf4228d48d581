"""A model's loss as a function of one flat vector of weights."""

import copy
import itertools
import math

import keras
import numpy as np

from callbacks._chunks import NotOfChunks, chunk_weights, is_mean_over_examples
from callbacks._loss import loss_of

# Bounds the memory of one evaluation; a probe set of a few thousand examples stays one call.
CHUNK_SIZE = 2048
# The most that are evaluated at a time of a loss that is not made of the losses of chunks.
WHOLE_SIZE = 8 * CHUNK_SIZE


class NonFiniteError(ValueError):
    """Weights, loss or a derivative of it are infinite or not a number."""


class LossSurface:
    """The compiled loss of `model` over all of `(x, y)`, as a function of its weights.

    It is what `model.evaluate` gives with all of `(x, y)` in one batch: inference mode, with
    regularization losses. Larger sets are evaluated in chunks, whose losses have the weights that
    make their sum that of the whole (`callbacks._chunks`). Vectors are float64 NumPy arrays of all
    trainable weights, in the order of `model.trainable_variables` and C order within each; the
    computation runs in the precision of the weights, or, `wide`, in float64. Everything is
    functional: variables are replaced while the loss is traced (`keras.StatelessScope`) and never
    assigned, so no call, and no exception in one, changes the model.

    Second derivatives are those that the backend makes, right or wrong: `callbacks._trusted` is
    for curvature to believe in.

    The weights where a measurement starts and all other state (batch-norm statistics) are read
    from the model anew each time: one surface serves a whole training, compiled once.

    Args:
        model: A built `keras.Model` that is compiled with a loss.
        x: Inputs, an array or a structure of arrays with the same number of rows.
        y: Targets, likewise.
        chunk_size: The most examples that are evaluated at a time.

    Raises:
        ValueError: If the model has no weights or no loss, or a loss that is reduced to a sum; if
            `x` is empty or masked or `y` differs in length; if the backend is not supported. From
            all methods, if there are several chunks and the loss of the whole is not made of
            theirs; from `batch_gradient`, if the loss is not a mean over examples.
    """

    def __init__(self, model, x, y, chunk_size=CHUNK_SIZE):
        _check_not_masked(x, y)
        self.x, self.y = keras.tree.map_structure(np.asarray, (x, y))
        self.examples = _number_of_rows(self.x, self.y)
        _check_model(model)
        self.model = model
        pieces = math.ceil(self.examples / chunk_size)
        edges = [self.examples * i // pieces for i in range(pieces + 1)]
        self._slices = [slice(*edge) for edge in itertools.pairwise(edges)]
        self._chunks = [self._rows(s) for s in self._slices]
        self._loss = loss_of(model, *self._chunks[0])
        self.size = self._loss.size
        self._weights = [1.0] if pieces == 1 else None  # of chunks; computed when asked for
        self._is_mean = None  # likewise
        self._always_wide = False
        self.start  # noqa: B018  weights that are not finite are an error now, not later

    @property
    def start(self):
        """A copy of the weights the model has now."""
        return _finite(self._loss.weights.astype("float64"), "the weights of the model")

    def is_of(self, model):
        """Whether this is the surface of `model`, as it is compiled and trainable now."""
        return self._loss.is_of(model)

    @property
    def dtype(self):
        """The precision of the weights, "float32" or "float64"."""
        return self._loss.dtype

    def can_be_wide(self):
        """Whether the loss can be computed in float64."""
        return self._loss.can_be_wide(*self._chunks[0])

    def of_first(self, count):
        """The surface of the first examples alone."""
        x, y = keras.tree.map_structure(lambda a: a[:count], (self.x, self.y))
        return LossSurface(self.model, x, y)

    def in_float64(self):
        """This surface, computed in float64 whatever the precision of the weights."""
        wide = copy.copy(self)
        wide._always_wide = True
        return wide

    def inputs(self, count):
        """Inputs of the first examples, as tensors."""
        return self._rows(slice(count))[0]

    def value(self, w, wide=False):
        """The loss at `w`, a float."""
        return self._combined("value", "the loss", w, wide=wide)[0]

    def value_and_gradient(self, w, wide=False):
        """The loss at `w` and its gradient."""
        return self._combined("value_and_gradient", "the loss or its gradient", w, wide=wide)

    def hessian_vector_product(self, w, v, wide=False):
        """The Hessian at `w` times `v`, as the backend differentiates."""
        return self._combined("hessian_vector_product", "a Hessian product", w, v, wide=wide)[0]

    def batch_gradient(self, w, rows):
        """The gradient at `w` of the loss over `rows` (indices) alone."""
        if self._is_mean is None:
            self._is_mean = is_mean_over_examples(self.gradient_over, self.examples)
        if not self._is_mean:
            raise ValueError(
                "Gradients of batches are those of a mean over examples only if the loss is one: "
                "no sum, and no mean over what masks or weights leave of each. "
                f"Received: model={self.model!r} with loss={self.model.loss!r}"
            )
        return self._gradient_over(w, rows, False)

    def gradient_over(self, rows):
        """The gradient of the loss over `rows` alone at the present weights, as exact as can be."""
        return self._gradient_over(self.start, rows, self.can_be_wide())

    def _gradient_over(self, w, rows, wide):
        _, gradient = self._loss.run("value_and_gradient", w, *self._rows(rows), wide=wide)
        return _finite(_float64(gradient), "a batch gradient")

    def _combined(self, kind, what, w, *v, wide):
        if self._weights is None:
            self._weigh_chunks()
        wide = wide or self._always_wide
        totals = itertools.repeat(0.0)
        for xy, weight in zip(self._chunks, self._weights, strict=True):
            results = keras.tree.flatten(self._loss.run(kind, w, *xy, *v, wide=wide))
            totals = [t + weight * _float64(r) for t, r in zip(totals, results, strict=False)]
        return [_finite(t, what) for t in totals]

    def _weigh_chunks(self):
        try:
            self._weights = chunk_weights(self.gradient_over, self._slices, self.examples)
        except NotOfChunks:
            if self.examples > WHOLE_SIZE:
                raise
            self._chunks, self._weights = [self._rows(slice(None))], [1.0]

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


def _check_not_masked(x, y):
    for a in keras.tree.flatten((x, y)):
        if np.ma.is_masked(a):
            raise ValueError(
                "`x` and `y` must not be masked arrays: the loss counts every number. "
                f"Received: {np.ma.count_masked(a)} of {a.size} masked"
            )


def _number_of_rows(x, y):
    lengths = {len(a) if a.ndim else 0 for a in keras.tree.flatten((x, y))}
    if len(lengths) != 1 or 0 in lengths:
        shapes = keras.tree.map_structure(np.shape, (x, y))
        raise ValueError(
            "`x` and `y` must be arrays with the same number of rows, at least one. "
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

"""The compiled loss of a model and its derivatives, kept with the model."""

import math

import keras
import numpy as np

from callbacks._backend import compile_derivatives
from callbacks._float64 import in_float64


class Loss:
    """The compiled loss of a model as a function of `(w, state, x, y)`, with its derivatives.

    It knows the model and no data: all surfaces of a model share it, so each derivative is traced
    once for a model, whatever it is measured on and by whom. Each can also be had in float64.
    """

    def __init__(self, model, x, y):
        self.model, self.specs = model, _specs(x, y)
        self._can_be_wide = None
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
        self._build(w, x, y)
        self._compiled = {False: compile_derivatives(self, w, self.state, x, y)}
        if self.dtype == "float64":
            self._compiled[True] = self._compiled[False]

    def _build(self, w, x, y):
        """Has losses and metrics of the outputs made, which Keras leaves to the first call.

        Not inside a trace, nor in float64, whose type they would keep.
        """
        compiled = self.model._compile_loss
        if compiled is None or compiled.built:
            return
        graph = getattr(self.model, "_functional", None) or self.model
        outputs = getattr(graph, "_outputs_struct", None)
        if outputs is not None and not keras.tree.is_nested(outputs):
            compiled.build(y, outputs)
        else:
            self(w, self.state, *keras.tree.map_structure(lambda a: a[:2], (x, y)))

    def run(self, kind, w, x, y, *v, wide=False):
        """What `callbacks._backend.Compiled` has by the name `kind`, of vectors as NumPy arrays.

        Args:
            kind: "value", "value_and_gradient" or "hessian_vector_product".
            w: Weights.
            x: Inputs as tensors, floating ones in Keras's `floatx`.
            y: Targets, likewise.
            *v: The vector of a product.
            wide: Whether to compute in float64, with the numbers that weights and data have in
                the precision they are kept in.
        """
        if not wide or self.dtype == "float64":
            return self._call(self._compiled[False], kind, w, x, y, v, self.dtype)
        with in_float64(self.model):
            if True not in self._compiled:
                example = keras.ops.convert_to_tensor(np.zeros(self.size), dtype="float64")
                self._compiled[True] = compile_derivatives(self._wide, example, self.state, x, y)
            return self._call(self._compiled[True], kind, w, x, y, v, "float64")

    def can_be_wide(self, x, y):
        """Whether the model computes its gradient in float64; found out once, with this data.

        It may raise, for mixed types, or come out with the digits of float32: then gradients at
        three points in a row, as close as float32 cannot tell, are not on a line. (Where weights
        have fitted everything, neither are those of float64; so smaller weights are tried too.)
        """
        if self._can_be_wide is None:
            try:
                self._can_be_wide = any(self._is_smooth(s, x, y) for s in (1, 1 / 4, 1 / 16))
            except Exception:  # whatever a backend raises
                self._can_be_wide = False
        return self._can_be_wide

    def _is_smooth(self, scale, x, y):
        w = scale * self.weights.astype("float64")
        step = np.random.default_rng(0).standard_normal(self.size)
        step *= 1e-9 * (np.sqrt(np.mean(w**2)) + 1e-3)
        before, here, after = (
            np.asarray(self.run("value_and_gradient", v, x, y, wide=True)[1], "float64")
            for v in (w - step, w, w + step)
        )
        return bool(np.linalg.norm(before - 2 * here + after) <= 1e-11 * np.linalg.norm(here))

    def _call(self, compiled, kind, w, x, y, v, dtype):
        w, *v = (keras.ops.convert_to_tensor(np.asarray(a, dtype), dtype=dtype) for a in (w, *v))
        return getattr(compiled, kind)(w, self.state, x, y, *v)

    def _wide(self, w, state, x, y):
        def cast(a):
            return keras.ops.cast(a, "float64") if keras.backend.is_float_dtype(a.dtype) else a

        x, y = keras.tree.map_structure(cast, (x, y))
        others = [*self.model.non_trainable_variables, *self.model.metrics_variables]
        others = self._other or others
        state = state or [v.value for v in others]
        return self._loss(w, others, [cast(v) for v in state], x, y, "float64")

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
        """The loss as it is traced, in Keras operations."""
        return self._loss(w, self._other, state, x, y, self.dtype)

    def _loss(self, w, others, state, x, y, dtype):
        one = len(self._splits) == 1  # for which Keras on TensorFlow cannot split
        values = [w] if one else keras.ops.split(w, self._splits[:-1])
        mapping = [
            (variable, keras.ops.cast(keras.ops.reshape(value, shape), variable.dtype))
            for variable, value, shape in zip(self._trainable, values, self._shapes, strict=True)
        ]
        mapping += zip(others, state, strict=True)
        with keras.StatelessScope(mapping, collect_losses=True):
            predictions = self.model(x, training=False)
            loss = self.model.compute_loss(
                x=x, y=y, y_pred=predictions, sample_weight=None, training=False
            )
        return keras.ops.cast(loss, dtype)


def loss_of(model, x, y):
    """The loss of a model, kept with it as long as model and kind of data are what they were."""
    kept = vars(model).get("_loss_as_function")
    if kept is None or not kept.is_of(model) or kept.specs != _specs(x, y):
        kept = Loss(model, x, y)
        object.__setattr__(model, "_loss_as_function", kept)  # Keras would track it as a layer's
    return kept


def _specs(x, y):
    """Structure, shapes but for the number of rows, and types."""
    return keras.tree.map_structure(lambda a: (str(a.dtype), *a.shape[1:]), (x, y))

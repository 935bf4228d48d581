"""A callback that logs four measures of the sharpness of the loss."""

from callbacks._probe import EpochProbe
from callbacks._trusted import trusted_product
from callbacks.box_sharpness import _adaptive_sharpness, _epsilon_sharpness
from callbacks.curvature import DRAWS, _hessian_trace, _top_eigenvalues

MEASURES = ("lambda_max", "trace", "epsilon", "adaptive")


class SharpnessProbe(EpochProbe):
    """Logs the sharpness of the compiled loss on a fixed probe set during training.

    - `sharpness/lambda_max`: the largest eigenvalue of the Hessian (`top_eigenvalues`).
    - `sharpness/trace`: the trace of the Hessian (`hessian_trace`).
    - `sharpness/epsilon`: Keskar's sharpness, percent (`epsilon_sharpness`).
    - `sharpness/adaptive`: scale-invariant worst-case sharpness (`adaptive_sharpness`).

    The first three depend on the scale of the weights (Dinh et al., 2017); report the fourth with
    them. Use at least a thousand examples, the same ones throughout. The loss is evaluated in
    inference mode; recalibrate batch-norm statistics first if they matter. The compiled functions
    are kept, so only the first measurement pays for tracing.

    The values are in the `History` of `fit`, one for each epoch in `epochs`. (A `CSVLogger` fixes
    its columns after the first epoch: give it `every=1`.) To have the epoch that early stopping
    ends in measured too, put the probe after `EarlyStopping`.

    Example:
    >>> import keras, numpy as np
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 2)), np.ones((8, 1))
    >>> probe = SharpnessProbe(x, y, every=2, measures=("lambda_max", "adaptive"))
    >>> history = model.fit(x, y, epochs=3, verbose=0, callbacks=[probe])
    >>> probe.epochs
    [1, 2]
    >>> [round(value, 3) for value in history.history["sharpness/lambda_max"]]
    [6.0, 6.0]

    Args:
        x: Inputs of the probe set, an array or a structure of arrays of equal length.
        y: Targets, likewise.
        every: Measure at the end of every so many epochs, and at the last one. None, the default:
            only at the last one.
        measures: Which of "lambda_max", "trace", "epsilon" and "adaptive".
        epsilon: Half-width of the box of `epsilon_sharpness`.
        rho: Largest relative change of a weight in `adaptive_sharpness`.
        seed: Of the random vectors of the trace.
        draws: Number of them; the trace is most of the cost.
        errors: Whether to log the error of each measure too, as `sharpness/lambda_max_error` and
            so on, in its unit.

    Attributes:
        epochs: The epochs (from 0) of the last training that were measured.
        seconds: The time that all measurements have taken, tracing included.

    Raises:
        ValueError: For an unknown measure or an `every` below 1; when it measures, if the model
            has no loss, or `x` is empty or differs from `y` in length. Non-finite weights are
            logged as NaN.
    """

    def __init__(
        self,
        x,
        y,
        every=None,
        measures=MEASURES,
        epsilon=1e-3,
        rho=2e-3,
        seed=0,
        draws=DRAWS,
        errors=False,
    ):
        super().__init__(x, y, every)
        if isinstance(measures, str) or not measures or set(measures) - set(MEASURES):
            raise ValueError(
                f"`measures` must be some of {MEASURES}. Received: measures={measures!r}"
            )
        self.measures = tuple(measures)
        self.errors = errors
        endings = ("", "_error") if errors else ("",)
        self.names = tuple(f"sharpness/{m}{end}" for m in self.measures for end in endings)
        self.epsilon, self.rho = epsilon, rho
        self.seed, self.draws = seed, draws

    def _measure(self, surface):
        hessian = {"lambda_max", "trace"} & set(self.measures)
        product = trusted_product(surface, surface.start) if hessian else None

        def largest():
            if not self.errors:
                return _top_eigenvalues(surface, 1, product)
            return [numbers[0] for numbers in _top_eigenvalues(surface, 1, product, errors=True)]

        def trace():
            found = _hessian_trace(surface, self.draws, self.seed, product)
            return found.trace, found.error

        how = {
            "lambda_max": largest,
            "trace": trace,
            "epsilon": lambda: _epsilon_sharpness(surface, self.epsilon, errors=True),
            "adaptive": lambda: _adaptive_sharpness(surface, self.rho, errors=True),
        }
        kept = 2 if self.errors else 1
        pairs = [how[measure]() for measure in self.measures]
        return [float(number) for pair in pairs for number in pair[:kept]]

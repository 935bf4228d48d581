"""What predicted probabilities are worth: accuracy, likelihood, calibration."""

import numpy as np

BATCH_SIZE = 1024
BINS = 15  # Guo et al. 2017
LEAST = 1e-12  # a probability of 0 for what happened would make every mean infinite


def probabilities(model, x) -> np.ndarray:
    """The softmax of a model's logits.

    Args:
        model: A `keras.Model` whose output is logits `(n, classes)`.
        x: Inputs, `(n, ...)`.

    Returns:
        float64 array of shape `(n, classes)`.
    """
    from scipy.special import softmax

    starts = range(0, len(x), BATCH_SIZE)
    outputs = [np.asarray(model(x[i : i + BATCH_SIZE], training=False)) for i in starts]
    return softmax(np.concatenate(outputs).astype("float64"), axis=-1)


def scores(predicted: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Accuracy, mean negative log-likelihood (nats) and calibration error.

    Args:
        predicted: Probabilities, `(n, classes)`.
        y: Labels, `(n,)`.

    Example:
    >>> scores(np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([0, 0]))["accuracy"]
    1.0
    """
    of_label = predicted[np.arange(len(y)), y]
    return {
        "accuracy": float(np.mean(predicted.argmax(-1) == y)),
        "nll": float(-np.mean(np.log(np.maximum(of_label, LEAST)))),
        "calibration_error": calibration_error(predicted, y),
    }


def calibration_error(predicted: np.ndarray, y: np.ndarray, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3) over equal bins of confidence.

    The mean over examples of |accuracy - confidence| of the bin that each falls into.

    Args:
        predicted: Probabilities, `(n, classes)`.
        y: Labels, `(n,)`.
        bins: Number of bins between 0 and 1.

    Example: always 0.9 sure, and right three times of four.
    >>> p = np.array([[0.9, 0.1]] * 4)
    >>> round(calibration_error(p, np.array([0, 0, 0, 1])), 6)
    0.15
    """
    confidence = predicted.max(-1)
    right = predicted.argmax(-1) == y
    of_bin = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(of_bin, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(y))


def temperature(predicted: np.ndarray, y: np.ndarray) -> float:
    """The temperature that makes probabilities likeliest, for validation data.

    Likelihoods of models are only comparable after it (Guo et al. 2017; Ashukha et al. 2020).

    Args:
        predicted: Probabilities of one model or of an ensemble, `(n, classes)`.
        y: Labels, `(n,)`.

    Returns:
        A number between 0.01 and 100; above 1 the probabilities were too sure.

    Example: sure of every label but right in three of four.
    >>> p = np.array([[0.99, 0.01]] * 4)
    >>> t = temperature(p, np.array([0, 0, 0, 1]))
    >>> tempered(p, t)[0].round(2).tolist()
    [0.75, 0.25]
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logs = np.log(np.maximum(predicted, LEAST))
    rows = np.arange(len(y))

    def loss(log_t):
        scaled = logs / np.exp(log_t)
        return np.mean(logsumexp(scaled, axis=-1) - scaled[rows, y])

    found = minimize_scalar(loss, bounds=np.log([0.01, 100]), method="bounded")
    return float(np.exp(found.x))


def tempered(predicted: np.ndarray, t: float) -> np.ndarray:
    """Probabilities at temperature `t`: proportional to `p ** (1 / t)`."""
    from scipy.special import softmax

    return softmax(np.log(np.maximum(predicted, LEAST)) / t, axis=-1)

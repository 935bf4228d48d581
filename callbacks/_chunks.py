"""How the losses of parts of a data set make the loss of the whole: found out, not assumed."""

import numpy as np

# Gradients in float64 leave 1e-12 or less, in float32 1e-6; a loss that is not such a mean, 1e-2.
TOLERANCE = 1e-4
# Few enough to cost little; of different sizes, so that a sum is not taken for a mean.
SIZES = 64, 128


class NotOfChunks(ValueError):
    """The loss of the whole is no mean of the losses of chunks."""


def is_mean_over_examples(gradient, examples):
    """Whether the loss of two sets of examples is the mean of theirs, by numbers of examples.

    Losses normalized by a mask or by weights are only if each example has as much of them; sums
    are not, nor are functions of means, such as a root mean square.

    Args:
        gradient: A function from rows (indices) to the gradient of the loss over them alone.
        examples: How many there are.
    """
    if examples == 1:
        return True
    drawn = np.random.default_rng(0).permutation(examples)
    first = min(SIZES[0], max(1, examples // 3))
    a, b = drawn[:first], drawn[first : first + SIZES[1]]
    share = len(a) / (len(a) + len(b))
    return _residual(gradient(a), gradient(b), gradient(np.append(a, b)), share) < TOLERANCE


def chunk_weights(gradient, slices, examples):
    """The weights with which the losses of chunks add up to the loss of all.

    Of a mean over examples, their shares of the examples. A mean that is normalized by something
    else, as by what a mask leaves or the sum of weights, is that of two parts A and B with
    `a * loss(A) + (1 - a) * loss(B)` for a number a that the gradients tell: there are as many
    equations as weights in the network, for one unknown.

    Args:
        gradient: A function from rows (indices) to the gradient of the loss over them alone.
        slices: The chunks.
        examples: How many examples there are.

    Raises:
        NotOfChunks: If no weights make the loss of two chunks that of both together.
    """
    if is_mean_over_examples(gradient, examples):
        return [(s.stop - s.start) / examples for s in slices]
    rows = [np.arange(s.start, s.stop) for s in slices]
    first, ratios = gradient(rows[0]), [1.0]
    for other in rows[1:]:
        second, both = gradient(other), gradient(np.append(rows[0], other))
        gap = second - first
        share = float(gap @ (both - first)) / float(gap @ gap) if np.any(gap) else 0.5
        if not 0 <= share < 1 or _residual(first, second, both, 1 - share) > TOLERANCE:
            raise NotOfChunks(
                "The loss of all examples is not a mean of the losses of fewer (as with several "
                "outputs that have masks of their own, or where examples are compared with each "
                f"other), and these are too many for one piece. Received: {examples} examples"
            )
        ratios.append(share / (1 - share))
    return [ratio / sum(ratios) for ratio in ratios]


def _residual(a, b, both, share):
    """How far the gradient over both is from the mean of two, beside what tells them apart."""
    scale = np.linalg.norm(a) + np.linalg.norm(b) + np.linalg.norm(both)
    return np.linalg.norm(both - share * a - (1 - share) * b) / scale if scale else 0.0

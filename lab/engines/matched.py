"""Networks met at one training loss: what each measures where its loss first came down to a target.

After equally many epochs the faster of two trainings is further on, and another gap between
training and test may say that alone. `tune` by `reaching`; train once more, `repeated`, with all
weights kept; measure `matched`.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

from lab.engines.evaluation import evaluate
from lab.engines.fit import Fit
from lab.engines.tune import Tuned

Metrics = Mapping[str, float]


class Matched(NamedTuple):
    """What a network measured on its way and in the end. Made by `matched`.

    Attributes:
        at: By target the metrics where the training loss first came down to it, as `at_loss` gives
            them; None where it did not.
        end: The metrics at the end of the training.
    """

    at: Mapping[float, Metrics | None]
    end: Metrics

    def curve(self, metric: str) -> tuple[list[float], list[float]]:
        """A metric over the targets that were reached, as `Trial.record_curve` takes it.

        >>> Matched({1.0: {"gap": 0.1}, 0.5: {"gap": 0.2}, 0.1: None}, {}).curve("gap")
        ([1.0, 0.5], [0.1, 0.2])
        """
        reached = {target: seen[metric] for target, seen in self.at.items() if seen is not None}
        return list(reached), list(reached.values())

    def metrics(self, target: float) -> dict[str, float]:
        """The metrics at the end, and as `matched_...` those at a target.

        `reached` tells whether the training loss came down to the target; if not, those at the end
        stand in. The gates `lab.at_target` read these.

        >>> Matched({0.1: None}, {"gap": 0.2}).metrics(0.1)
        {'gap': 0.2, 'reached': False, 'matched_gap': 0.2}
        """
        seen = self.at[target]
        found = self.end if seen is None else seen
        named = {f"matched_{metric}": value for metric, value in found.items()}
        return {**self.end, "reached": seen is not None, **named}


def reaching(
    target: float, data, *, prepare: Callable[[Any], object] = lambda model: None
) -> Callable[[Fit], tuple]:
    """A score for `tune`: first whether the training loss came down to a target.

    Then by validation accuracy, ties by loss. Without it validation may prefer a rate that is too
    small to get anywhere, and whose gap is small for that alone.

    Args:
        target: A training loss in inference mode, nats.
        data: A `lab.data.Data`; the test data is not read.
        prepare: Called with the model before it is evaluated, to recompute batch-norm statistics.
    """

    def score(fit):
        prepare(fit.model)
        reached = evaluate(fit.model, data.train)["loss"] <= target
        seen = evaluate(fit.model, data.validation)
        return reached, seen["accuracy"], -seen["loss"]

    return score


def keep_weights(fit: Fit) -> list[list]:
    """Has a training keep the weights it goes through.

    Args:
        fit: A `Fit` that was not trained yet; it gets one callback more.

    Returns:
        The weights (as `model.get_weights` gives them) before the first epoch; those after each
        epoch are added while it trains.
    """
    import keras

    kept = [fit.model.get_weights()]
    keep = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: kept.append(fit.model.get_weights())
    )
    fit.callbacks = [*fit.callbacks, keep]
    return kept


def repeated(
    best: Tuned, make_fit: Callable[[Any], Fit]
) -> Generator[Fit, Any, tuple[Fit, list[list], Any]]:
    """Train what was chosen once more, with the same batches in the same order, and keep weights.

    Used with `yield from`. To keep those of every candidate would take their number as much memory.

    Args:
        best: What `tune` returned.
        make_fit: What `tune` was given.

    Returns:
        The `Fit`, trained; its weights as from `keep_weights`; its history.
    """
    again = make_fit(best.choice)
    again.seed = best.fit.seed
    kept = keep_weights(again)
    history = yield again
    return again, kept, history


def gaps(model, data) -> dict[str, float]:
    """Loss, accuracies and gaps between training and test, in inference mode. Reads the test data.

    Args:
        model: Compiled with accuracy; the caller has recomputed its batch-norm statistics.
        data: A `lab.data.Data`.

    Returns:
        `train_loss`, `train_accuracy`, `test_accuracy`, `accuracy_gap` (training minus test) and
        `loss_gap` (test minus training, nats).
    """
    train, test = evaluate(model, data.train), evaluate(model, data.test)
    return {
        "train_loss": train["loss"],
        "train_accuracy": train["accuracy"],
        "test_accuracy": test["accuracy"],
        "accuracy_gap": train["accuracy"] - test["accuracy"],
        "loss_gap": test["loss"] - train["loss"],
    }


def matched(
    model,
    kept: Sequence[list],
    data,
    targets: Sequence[float],
    *,
    prepare: Callable[[Any], object] = lambda model: None,
    measure: Callable[[Any, Any], Metrics] = gaps,
) -> Matched:
    """Measure a trained network where its training loss first came down to each target.

    Args:
        model: The network; its weights are overwritten.
        kept: Its weights before the first epoch and after each, from `keep_weights`.
        data: A `lab.data.Data`; `data.train` is what the loss is taken on, in inference mode.
        targets: Training losses, in nats; one that is named twice is met once.
        prepare: Called with the model before it is evaluated, to recompute batch-norm statistics.
        measure: A function of model and data to metrics by name. It is called for the last epoch,
            and for those before and after a target is passed.

    Example:
    ```python
    best = yield from tune(make, rates, data.validation, reaching(0.1, data))
    again, kept, history = yield from repeated(best, make)
    seen = matched(again.model, kept, data, [1.0, 0.1])
    trial.record(seen.metrics(0.1))
    ```
    """
    measured: dict[int, Metrics] = {}

    def ready(epoch):
        model.set_weights(kept[epoch])
        prepare(model)
        return model

    def seen(epoch):
        if epoch not in measured:
            measured[epoch] = measure(ready(epoch), data)
        return measured[epoch]

    losses: list[float] = []
    for epoch in range(len(kept)):
        losses.append(evaluate(ready(epoch), data.train)["loss"])
        if epoch and losses[-1] <= min(targets):
            break
    at = {target: at_loss(losses, seen, target) for target in targets}
    return Matched(at, seen(len(kept) - 1))


def at_loss(
    losses: Sequence[float], seen: Callable[[int], Metrics], target: float
) -> dict[str, float] | None:
    """The metrics where the training loss first came down to `target`, or None if it did not.

    Linear between the two epochs around it: the first one below would be further below in a
    network that trains in larger steps.

    Args:
        losses: Training loss before the first epoch and after each, nats.
        seen: A function of the index of a loss to the metrics there.
        target: A training loss. Where the first loss is below it already, it is met after the
            first epoch.

    Returns:
        The metrics, and `bracket`: the factor between the training losses of those two epochs.

    Example:
    >>> gap = [0.0, 0.1, 0.3]
    >>> found = at_loss([2.0, 0.3, 0.1], lambda epoch: {"gap": gap[epoch]}, target=0.2)
    >>> {metric: round(value, 6) for metric, value in found.items()}
    {'gap': 0.2, 'bracket': 3.0}
    """
    after = next((i for i, loss in enumerate(losses) if i and loss <= target), None)
    if after is None:
        return None
    high, low = losses[after - 1], losses[after]
    share = (high - target) / (high - low) if high > target else 1.0
    before, there = seen(after - 1), seen(after)
    found = {metric: before[metric] + share * (there[metric] - before[metric]) for metric in there}
    return found | {"bracket": high / max(low, 1e-9)}

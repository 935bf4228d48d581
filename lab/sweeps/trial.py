"""One trial: a generator that asks for trainings and records what it measured."""

import contextlib
import math
import re
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

import numpy as np

from lab.claims.vocabulary import Experiment, Setting
from lab.engines.fit import Fit
from lab.engines.training import train, train_each

# A curve is stored as one metric per coordinate, "name@x".
METRIC = re.compile(r"[A-Za-z][\w./-]*(@-?[\d.]+(e[+-]?\d+)?)?")
RESERVED_SCALE = ("train_size", "validation_size", "test_size", "probe_size")


class Diverged(ArithmeticError):
    """A loss became infinite or NaN where the trial had not said that it may."""


class Trial:
    """What `run(trial)` works with: its arm, scale and seed, data, models and the record.

    Attributes:
        arm: Settings of the arm, read-only.
        scale: Settings of the scale, read-only.
        seed: Replication number; it draws data split, initial weights and batch order.
        rows: What was recorded: `(epoch or None, metric, value)`.
        spent: Seconds by what they went into: "training", and what `timed` was told. Of trainings
            that ran together each trial has an equal share.
    """

    def __init__(
        self, name: str, experiment: Experiment, arm: str, seed: int, setting: Setting, build=None
    ):
        self.name = name
        self.arm = MappingProxyType(dict(experiment.arms[arm]))
        self.scale = MappingProxyType(dict(experiment.scales[setting.scale]))
        self.arm_name, self.seed, self.setting = arm, seed, setting
        self.rows: list[tuple[int | None, str, float]] = []
        self.spent: dict[str, float] = {}
        self.asked = 0  # trainings so far; each has a batch order of its own
        self._build: Callable | None = build
        self._data: list = []

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator of its own for every purpose, drawn from the seed alone."""
        return np.random.default_rng([self.seed, *purpose.encode()])

    def data(self, name: str | None = None, /, *, classes: Sequence[int] | None = None, **sizes):
        """The data of this seed: split, subset and order are drawn from it.

        Args:
            name: Another data set than the setting's (`DATA=`).
            classes: The classes to keep; they become 0, 1, ... in this order.
            **sizes: `train_size`, `validation_size`, `test_size`, `probe_size`; what is not given
                comes from the scale, else from the data set's defaults.

        Returns:
            A `lab.data.Data`.
        """
        from lab.data.loading import load

        asked = {key: self.scale[key] for key in RESERVED_SCALE if key in self.scale} | sizes
        self._data.append(load(name or self.setting.data, self.seed, classes=classes, **asked))
        return self._data[-1]

    @property
    def examples(self) -> list[dict[str, Any]]:
        """Name and sizes of each data set that it asked for, in order."""
        return [{"data": data.name, **data.sizes} for data in self._data]

    def model(self, data, **options):
        """A fresh model of the kind that `MODEL=` names, its weights drawn from the seed.

        The same weights every time it is called within a trial, and in every arm of a seed.
        """
        assert self._build is not None, "this trial was made without a model"
        return self._build(data.shape, data.classes, **{"seed": self.seed, **options})

    def classifier(self, data, optimizer, **options):
        """A fresh model as from `model`, compiled for cross-entropy of its logits and accuracy."""
        import keras

        model = self.model(data, **options)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])
        return model

    def record(self, metrics=None, /, *, epoch: int | None = None, **named) -> None:
        """Add measurements to the trial's rows.

        Args:
            metrics: A mapping of metric names to numbers (for names that are no identifiers).
            epoch: The epoch they belong to; None for an end-of-run metric.
            **named: The same as keywords.

        Raises:
            ValueError: If a name has other characters than letters, digits and `_./-@`, or was
                recorded before for this epoch.
            TypeError: If a value is not one number.
        """
        taken = {(row[0], row[1]) for row in self.rows}
        for metric, value in {**(metrics or {}), **named}.items():
            if not METRIC.fullmatch(metric):
                raise ValueError(f"Not a metric name. Received: {metric!r}")
            if (epoch, metric) in taken:
                raise ValueError(f"Recorded twice in one trial. Received: {metric!r}, {epoch=}")
            if np.ndim(value) != 0:
                raise TypeError(f"A metric is one number. Received: {metric}={value!r}")
            self.rows.append((epoch, metric, float(value)))

    def record_curve(self, name: str, x, y) -> None:
        """Record `y` over the coordinate `x` (two sequences of one length) as metrics `name@x`."""
        self.record({f"{name}@{at:g}": value for at, value in zip(x, y, strict=True)})

    def record_history(self, history, most: int = 40) -> None:
        """Record a `History` by epoch; of more than `most` epochs, `most` evenly spread ones.

        Epochs count from 1, so that a value belongs to the number of passes made.
        """
        epochs = max(map(len, history.history.values()), default=0)
        kept = np.unique(np.linspace(0, epochs - 1, min(most, epochs)).round().astype(int))
        for epoch in kept.tolist():
            logs = {k: v[epoch] for k, v in history.history.items() if len(v) == epochs}
            self.record(logs, epoch=epoch + 1)

    def record_tuned(self, tuned) -> None:
        """Record what `lab.tune` chose as `learning_rate`, and whether it was an edge."""
        self.record(learning_rate=tuned.choice, tuned_at_edge=tuned.at_edge)

    def record_evaluation(self, model, data) -> None:
        """Record loss and accuracy on training and on test data; reads the test data.

        As `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`, in inference mode: the
        caller has recomputed batch-norm statistics. Call it after the last training.
        """
        from lab.engines.evaluation import evaluate

        for part, split in (("train", data.train), ("test", data.test)):
            seen = evaluate(model, split)
            self.record({f"{part}_{name}": seen[name] for name in ("loss", "accuracy")})

    @contextlib.contextmanager
    def timed(self, what: str):
        """Count the seconds inside as spent on `what`; the manifest has them."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.spend(what, time.perf_counter() - started)

    def spend(self, what: str, seconds: float) -> None:
        """Add to `spent`."""
        self.spent[what] = self.spent.get(what, 0.0) + seconds

    def check_test_unread(self) -> None:
        """Refuse to train once test data was read: it may only be read at the end (trap 11)."""
        if any(data.test_was_read for data in self._data):
            raise RuntimeError(
                "This trial asks for a training after it has read `data.test`. Choose on "
                "`data.validation`, and read test data once, after the last training."
            )


def execute(trial: Trial, run: Callable, engine: str = "fused") -> None:
    """Run a trial to its end, answering each `Fit` it yields with the training's history.

    Raises:
        Diverged: If a training's loss is not finite and its `Fit` did not allow for it. What was
            recorded until then is in `trial.rows`.
        TypeError: If it yields something else than a `Fit` or a list of them.
    """
    with contextlib.closing(_course(trial, run)) as course:
        histories = None
        while True:
            try:
                fits = course.send(histories)
            except StopIteration:
                return
            with trial.timed("training"):
                histories = train(fits, engine)


def execute_together(
    trials: Sequence[Trial],
    run: Callable,
    engine: str = "stacked",
    surroundings: Sequence[AbstractContextManager] | None = None,
) -> list[Exception | None]:
    """Run trials to their ends in lockstep: what they ask for in a round is trained in one call.

    Args:
        trials: Trials of one arm, so that they ask for alike trainings.
        run: As for `execute`.
        engine: As for `lab.train`.
        surroundings: For each trial a context that is entered whenever it runs, such as its own
            state of the global random generators. Trainings run outside of it.

    Returns:
        For each trial None, or what `execute` would have raised; the others went on.
    """
    within = surroundings or [contextlib.nullcontext()] * len(trials)
    courses = [_course(trial, run) for trial in trials]
    endings: list[Exception | None] = [None] * len(trials)
    answers: dict[int, list | None] = dict.fromkeys(range(len(trials)))
    while answers:
        asked: dict[int, list[Fit]] = {}
        for i, histories in answers.items():
            try:
                with within[i]:
                    asked[i] = courses[i].send(histories)
            except StopIteration:
                continue
            except Exception as error:
                endings[i] = error
        started = time.perf_counter()
        results = iter(train_each([fit for fits in asked.values() for fit in fits], engine))
        for i in asked:
            trials[i].spend("training", (time.perf_counter() - started) / len(asked))
        answers = {}
        for i, fits in asked.items():
            histories = [next(results) for _ in fits]
            endings[i] = next((h for h in histories if isinstance(h, Exception)), None)
            if endings[i] is None:
                answers[i] = histories
            else:
                with contextlib.suppress(Exception), within[i]:
                    courses[i].close()
    return endings


def _course(trial: Trial, run: Callable) -> Generator[list[Fit], Any, None]:
    """A trial as it yields lists of checked `Fit`s and is sent lists of their histories."""
    generator = run(trial)
    if generator is None:  # a trial that trains nothing is a plain function
        return
    answer = None
    try:
        while True:
            request = generator.send(answer)
            fits = list(request) if isinstance(request, (list, tuple)) else [request]
            for fit in fits:
                if not isinstance(fit, Fit):
                    raise TypeError(f"A trial yields `Fit`s. Received: {fit!r}")
                if fit.seed is None:
                    fit.seed = _order_seed(trial.seed, trial.asked)
                trial.asked += 1
            trial.check_test_unread()
            histories = yield fits
            for fit, history in zip(fits, histories, strict=True):
                _check_finite(fit, history)
            answer = histories if isinstance(request, (list, tuple)) else histories[0]
    except StopIteration:
        return
    finally:
        generator.close()


def _order_seed(seed: int, asked: int) -> int:
    # One batch order per training of a trial, shared by the arms of a seed.
    return int(np.random.SeedSequence([seed, asked]).generate_state(1)[0])


def _check_finite(fit: Fit, history) -> None:
    if fit.may_diverge:
        return
    for epoch, loss in enumerate(history.history.get("loss", ()), start=1):
        if not math.isfinite(loss):
            raise Diverged(f"the training loss became {loss} in epoch {epoch}")

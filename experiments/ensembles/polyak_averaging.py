"""Averages of the weights over the steps of a training.

The lecture says (N0): instead of the last weights take a running average of them, Polyak and
Ruppert's, "rarely used". Izmailov et al. 2018 (SWA) gain 0.3 to 1.4 points with a uniform average
over the end of a training at a high learning rate.

What goes wrong: averaged weights keep the batch-norm statistics of other weights, and with Keras's
momentum of 0.99 even the last weights' own statistics lag behind them; a careless comparison then
measures statistics, to the average's favour or against it. An exponential average that is not
debiased is mostly the initial weights while the run is shorter than its horizon. An average wants
a higher learning rate than a last iterate: with one rate for both, one of the two is handicapped.
Therefore: statistics recomputed wherever something is measured or chosen, debiased averages, and
the last iterate and each average choose their own rate on validation data, among the same runs
(one run carries all averages). The naive figure is what one gets otherwise: the rate that suits
the raw network, and its statistics for everything. Networks without batch norm tell averaging
from statistics: there `excess` is exactly zero.

What we found (quick, 10 seeds, 5 minutes on 2 cores): on digits averages gain nothing that matters
(0.0 to 0.3 points). On mnist1d 1.4 to 2 points at a constant rate and nothing under a cosine, but
eight claims and 10 seeds leave that undecided. The careless figure errs in both directions there:
the uniform average gains 2.0 points, and naively loses 4.5, all of it stale statistics.

Margins were written down before the seeds that count (0 to 9) ran; the scales were chosen on
seeds from 100 up.
"""

import math

from lab import Claim, Curves, Experiment, Fit, Scatter, tune
from lab.claims.contrasts import POINTS, difference, recorded
from lab.claims.figures import Heatmap
from lab.claims.gates import leaves_room, not_at_edge

SCHEDULES = ("constant", "step", "cosine")
ARMS = {
    f"{schedule}{suffix}": {"schedule": schedule, "normalization": normalization}
    for suffix, normalization in {"": "batch", "_plain": "none"}.items()
    for schedule in SCHEDULES
}
HORIZONS = {"ema_9": 10, "ema_99": 100, "ema_999": 1000}  # steps; the decay is 1 - 1 / horizon
AVERAGES = ("uniform", *HORIZONS, "swa")
SHORTER = (1, 2, 5, 10, 20, 50, 100, 200)  # epochs: the start of a constant run is a shorter run
SHORTER_OF = AVERAGES.index("ema_99")
EARLY = 5  # of those; 100 steps at quick scale, as far back as batch-norm statistics remember
TAIL = 0.25  # the share of the steps that `swa` averages, as in Izmailov et al. 2018
BASE = {
    "seeds": 10,
    "train_size": 320,  # more, and digits leaves no room (97 % at 512)
    "validation_size": 450,
    "batch_size": 16,
    "epochs": 50,  # 1,000 steps: the longest horizon fits once
    "rates": (0.001, 0.004, 0.015, 0.06, 0.25, 1.0),
}
SCALES = {
    "smoke": BASE
    | {"seeds": 2, "train_size": 128, "test_size": 200, "epochs": 5}
    | {"rates": (0.03, 0.2)},
    "quick": BASE | {"test_size": 1000},
    "standard": BASE
    | {"train_size": 10_240, "validation_size": 2_000, "batch_size": 64, "epochs": 20},
    # Izmailov et al. 2018, their VGG16 on CIFAR, but averaged every step and not once an epoch.
    "paper": BASE
    | {"train_size": 45_000, "validation_size": 5_000, "batch_size": 128, "epochs": 200}
    | {"weight_decay": 5e-4},
}


def run(trial):
    """Train every rate once, with all averages; choose a rate for each, then measure."""
    data = trial.data()
    rates = trial.scale["rates"]
    tuned = yield from tune(
        lambda rate: fit(trial, data, rate),
        rates,
        data.validation,
        score=lambda one: seen(one.model, weights(one, "last"), data.validation, data.train.x),
    )
    trial.record_history(tuned.history)
    chosen = {}
    for name in ("last", *AVERAGES):
        chosen[name], best = choose(tuned, name, data.validation, data.train.x)
        at_edge = best in (0, len(rates) - 1)
        trial.record({f"learning_rate_{name}": rates[best], f"at_edge_{name}": at_edge})
    naive, best = choose(tuned, "last", data.validation)
    trial.record(learning_rate_naive=rates[best])
    measure(trial, data, chosen, naive)
    if trial.arm["schedule"] == "constant":
        over_length(trial, data, naive)


def fit(trial, data, rate):
    """The training of an arm at one rate, its callbacks the averages in the order of AVERAGES."""
    import keras

    from callbacks import PolyakAveraging

    scale = trial.scale
    steps = scale["epochs"] * -(-len(data.train.x) // scale["batch_size"])
    optimizer = keras.optimizers.SGD(
        scheduled(trial.arm["schedule"], rate, steps),
        momentum=0.9,
        weight_decay=scale.get("weight_decay"),
    )
    model = trial.classifier(data, optimizer, normalization=trial.arm["normalization"])
    averages = [
        PolyakAveraging(),
        *(PolyakAveraging(decay=1 - 1 / horizon) for horizon in HORIZONS.values()),
        PolyakAveraging(start_step=steps - round(TAIL * steps)),
    ]
    earlier = [keep_earlier(averages[SHORTER_OF])] if trial.arm["schedule"] == "constant" else []
    callbacks = [*averages, *earlier]
    return Fit(model, data.train, scale["batch_size"], scale["epochs"], callbacks=callbacks)


def keep_earlier(average):
    """A callback that keeps weights, statistics and their average as they were after SHORTER."""
    import keras
    import numpy as np

    kept = {}

    def keep(epoch, logs=None):
        if epoch + 1 in SHORTER:
            variables = [np.array(variable) for variable in average.model.variables]
            kept[epoch + 1] = variables, average.average

    callback = keras.callbacks.LambdaCallback(on_epoch_end=keep)
    callback.kept = kept
    return callback


def scheduled(schedule, rate, steps):
    """A learning rate over `steps` steps, as an optimizer takes it."""
    from keras.optimizers import schedules

    if schedule == "cosine":
        return schedules.CosineDecay(rate, steps)
    if schedule == "step":  # a tenth from the middle on, a hundredth in the last quarter
        last_steps = [steps // 2 - 1, 3 * steps // 4 - 1]
        return schedules.PiecewiseConstantDecay(last_steps, [rate, rate / 10, rate / 100])
    return rate


def weights(trained, name):
    """One of the averages that a `Fit` carried, or its "last" weights."""
    import numpy as np

    if name == "last":
        return [np.array(variable) for variable in trained.model.trainable_variables]
    return trained.callbacks[AVERAGES.index(name)].average


def seen(model, at, split, recalibrate_on=None):
    """Accuracy and minus the loss of a model at these weights; it is as it was afterwards.

    Batch-norm statistics are those that lie in the model, or recomputed.
    """
    from callbacks import recalibrate_batchnorm, weights_at
    from lab.engines.predictions import probabilities, scores

    with weights_at(model, at):
        if recalibrate_on is not None:
            recalibrate_batchnorm(model, recalibrate_on)
        got = scores(probabilities(model, split.x), split.y)
    return got["accuracy"], -got["nll"]


def choose(tuned, name, split, recalibrate_on=None):
    """The run at which one average does best, and its place among the rates."""

    def score(k):
        if math.isfinite(tuned.scores[k][0]):
            trained = tuned.fits[k]
            got = seen(trained.model, weights(trained, name), split, recalibrate_on)
            if all(map(math.isfinite, got)):
                return got
        return (-math.inf, -math.inf)  # the run diverged, or was about to

    best = max(range(len(tuned.fits)), key=score)
    return tuned.fits[best], best


def measure(trial, data, chosen, naive):
    """Test accuracy and its gains; the test data is read here, after all trainings.

    Records for each average `accuracy_` and `gain_` (controlled: own rates, statistics
    recomputed), `gain_same_rate_` (the average at the last iterate's rate), `naive_accuracy_` and
    `naive_gain_` (the naive rate, statistics as they were left), and `excess_`: the naive gain
    minus the gain of the very same weights with statistics recomputed.
    """
    x, test = data.train.x, data.test
    names = ("last", *AVERAGES)

    def accuracies(runs, on=None):
        return {n: seen(runs[n].model, weights(runs[n], n), test, on)[0] for n in names}

    own = accuracies(chosen, x)
    same_rate = accuracies(dict.fromkeys(names, chosen["last"]), x)
    left = accuracies(dict.fromkeys(names, naive))
    recomputed = accuracies(dict.fromkeys(names, naive), x)

    last = chosen["last"]
    accuracy, minus_loss = seen(last.model, weights(last, "last"), data.train, x)
    trial.record(train_accuracy=accuracy, train_loss=-minus_loss)
    trial.record({f"accuracy_{name}": own[name] for name in names})
    trial.record({f"naive_accuracy_{name}": left[name] for name in names})
    gains = {}
    for name in AVERAGES:
        gains |= {
            f"gain_{name}": own[name] - own["last"],
            f"gain_same_rate_{name}": same_rate[name] - same_rate["last"],
            f"naive_gain_{name}": left[name] - left["last"],
            f"same_weights_gain_{name}": recomputed[name] - recomputed["last"],
        }
        gains[f"excess_{name}"] = gains[f"naive_gain_{name}"] - gains[f"same_weights_gain_{name}"]
    trial.record(gains)
    for kind in ("gain", "naive_gain"):
        points = [100 * gains[f"{kind}_{name}"] for name in HORIZONS]
        trial.record_curve(f"{kind}_over_horizon", HORIZONS.values(), points)


def over_length(trial, data, trained):
    """What the average gains in shorter runs at this rate: as they leave it, and recomputed."""
    from callbacks import weights_at

    model, test = trained.model, data.test
    kept, curves = trained.callbacks[-1].kept, {}
    steps = [epochs * -(-len(data.train.x) // trained.batch_size) for epochs in kept]
    for name, on in {"naive_gain": None, "same_weights_gain": data.train.x}.items():
        gains = []
        for variables, average in kept.values():
            with weights_at(model, weights(trained, "last")):  # for the statistics too, afterwards
                for variable, value in zip(model.variables, variables, strict=True):
                    variable.assign(value)
                last = weights(trained, "last")
                averaged, raw = (seen(model, at, test, on)[0] for at in (average, last))
                gains.append(100 * (averaged - raw))
        trial.record_curve(f"{name}_over_steps", steps, gains)
        curves[name] = dict(zip(kept, gains, strict=True))
    excess = curves["naive_gain"][EARLY] - curves["same_weights_gain"][EARLY]
    trial.record(early_excess_ema_99=excess / 100)


def gates(name, *arms):
    """Room for an effect, and ranges of rates that were wide enough for both."""
    return [
        *(leaves_room(arm, metric="accuracy_last") for arm in arms),
        *not_at_edge(*arms, metric="at_edge_last"),
        *not_at_edge(*arms, metric=f"at_edge_{name}"),
    ]


SWA = "Izmailov 2018 (SWA, one budget): CIFAR-100 VGG16 72.55 to 73.91, PreResNet164 78.49 to 79.77"
CLAIMS = [
    *(
        Claim(
            id="E5a",
            says="Averaging the parameters improves test accuracy",
            under="constant rate",
            contrast=recorded(f"gain_{name}", "constant"),
            gates=gates(name, "constant"),
            literature=f"{SWA}, CIFAR-10 +0.3 to 0.5; cs231n: an extra percent or two",
            beside={
                "naive": recorded(f"naive_gain_{name}", "constant"),
                "both at the last iterate's rate": recorded(f"gain_same_rate_{name}", "constant"),
                "without batch norm": recorded(f"gain_{name}", "constant_plain"),
                "step decay": recorded(f"gain_{name}", "step"),
                "cosine": recorded(f"gain_{name}", "cosine"),
            },
            **POINTS,
        )
        for name in ("uniform", "ema_99", "ema_999", "swa")
    ),
    *(
        Claim(
            id="E5b",
            says="Averaging matters less when the learning rate decays",
            under="constant - cosine",
            contrast=difference(f"gain_{name}", "constant", "cosine"),
            gates=gates(name, "constant", "cosine"),
            literature="no figure; Izmailov 2018 average at a constant or cyclic rate",
            beside={
                "naive": difference(f"naive_gain_{name}", "constant", "cosine"),
                "constant - step": difference(f"gain_{name}", "constant", "step"),
                "without batch norm": difference(f"gain_{name}", "constant_plain", "cosine_plain"),
            },
            **POINTS,
        )
        for name in ("ema_99", "swa")
    ),
    *(
        Claim(
            id="E5c",
            says="Part of the gain people report is batch-norm statistics",
            under="constant rate, same weights",
            contrast=recorded(f"excess_{name}", "constant"),
            gates=[leaves_room("constant", metric="accuracy_last")],
            literature="ours, digits CNN: EMA +1.9 +- 0.7 naive, +0.25 +- 0.26 recomputed",
            beside={
                "naive": recorded(f"naive_gain_{name}", "constant"),
                "step decay": recorded(f"excess_{name}", "step"),
                "cosine": recorded(f"excess_{name}", "cosine"),
                f"horizon 100, after {EARLY} epochs": recorded("early_excess_ema_99", "constant"),
                "uniform average": recorded("excess_uniform", "constant"),
                "horizon 1,000": recorded("excess_ema_999", "constant"),
            },
            **POINTS,
        )
        for name in ("ema_99", "swa")
    ),
]
FIGURES = [
    Heatmap(
        "gain_by_schedule",
        "What each average gains over the last iterate, by learning-rate schedule",
        "points of test accuracy",
        {
            panel: {
                says: {schedule: recorded(f"{kind}_{name}", schedule) for schedule in SCHEDULES}
                for name, says in {
                    "uniform": "all steps",
                    **{name: f"horizon {horizon:,}" for name, horizon in HORIZONS.items()},
                    "swa": f"last {TAIL:.0%} of steps",
                }.items()
            }
            for panel, kind in {
                "naive: rate of the last iterate, statistics as left": "naive_gain",
                "own rates, statistics recomputed": "gain",
            }.items()
        },
        x_label="learning-rate schedule",
        y_label="average over",
        scale_by=100,
    ),
    Curves(
        "gain_over_horizon",
        "What an exponential average gains over the last iterate",
        "horizon of the average in steps: 1 / (1 - decay)",
        {
            f"{says}, points": [
                (schedule, schedule, f"{kind}_over_horizon") for schedule in SCHEDULES
            ]
            for says, kind in {
                "own rates, statistics recomputed": "gain",
                "naive": "naive_gain",
            }.items()
        },
        log_x=True,
    ),
    Curves(
        "gain_over_steps",
        "What an exponential average of horizon 100 gains in shorter and longer runs",
        "steps of a run at a constant rate",
        {
            "gain over the last iterate, points": [
                ("statistics as they are left", "constant", "naive_gain_over_steps"),
                ("recomputed for both", "constant", "same_weights_gain_over_steps"),
                ("without batch norm", "constant_plain", "naive_gain_over_steps"),
            ]
        },
        log_x=True,
    ),
    Scatter(
        "naive_and_recomputed",
        "The gain of the same averaged weights, reported and real",
        "same_weights_gain_ema_99",
        "naive_gain_ema_99",
        "gain with batch-norm statistics recomputed in both, points",
        "gain with the statistics that the training left, points",
        arms=tuple(ARMS),
        x_scale=100,
        y_scale=100,
    ),
]
EXPERIMENT = Experiment(
    title="Averages of the weights",
    source="Lecture notes N0 (E5a, E5b); Polyak and Juditsky 1992, Acceleration of Stochastic "
    "Approximation by Averaging; Izmailov et al. 2018, Averaging Weights Leads to Wider Optima",
    arms=ARMS,
    scales=SCALES,
    claims=CLAIMS,
    figures=FIGURES,
    run=run,
)

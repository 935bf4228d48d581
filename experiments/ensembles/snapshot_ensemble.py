"""Snapshot ensembles: several models from one run.

The lecture says (N0, N3): averaging independent models gains about 2 points; snapshots of a single
run serve too, better so if the learning rate is raised and lowered again; members usually differ
in their hyperparameters. Its source for the snapshots is Huang et al. 2017.

What goes wrong: the average is compared with its own last snapshot, which one short cycle has
trained, or with a run of another schedule; weights of members are chosen on the test set and the
best checkpoint is slipped in; likelihoods are compared without a temperature (Ashukha 2020); poor
members disagree more and are not the better for it; an ensemble of many settings is compared with
one of a single setting, which was searched a fifth as much.

Therefore: single runs, cycles, plain snapshots and short runs of one budget; each arm has its
starting rate chosen from the same list, by the validation accuracy of what it will predict with
(likelihood where that ties); a fivefold single run beside five runs; a temperature and batch-norm
statistics of its own for everything; and settings that are searched alike for E4.

What we found (quick, 10 seeds, 6 to 7 minutes on 2 cores): five independent models gain 2.8 points
on mnist1d and 0.9 on digits; snapshots of one run 1.1 [-0.3, 2.5] and 0.1 [-0.4, 0.6]; members
with different hyperparameters are no better once both ensembles were searched alike.

Margins were written down before the seeds that count (0 to 9) ran; the scales were chosen on
seeds from 100 up.
"""

import functools

from lab import Claim, Curves, Experiment, Fit, Gate, Scatter, evaluate, tune
from lab.claims.contrasts import POINTS, RATIO, difference, ratio, recorded
from lab.claims.figures import cosine_cycles
from lab.claims.gates import leaves_room, not_at_edge

ARMS = {
    "single_cosine": {"schedule": "cosine"},
    "single_step": {"schedule": "step"},
    "no_cycle": {"schedule": "step", "snapshots": True},  # Huang's NoCycle
    "cyclic": {"schedule": "cyclic"},
    "cyclic_low": {"schedule": "cyclic", "rate": 0.1},  # Huang's two starting rates
    "cyclic_high": {"schedule": "cyclic", "rate": 0.2},
    "short_runs": {"schedule": "cosine", "runs": "short"},  # Huang's SingleCycle
    "long_single": {"schedule": "cosine", "runs": "long"},
    "independent": {},
    "repeated": {},
    "mixed": {},
}
WATCHED = ("cyclic", "single_cosine", "no_cycle")  # their course is drawn
CYCLES = 5  # Huang 2017 for a budget of 200 epochs
DECAY, DROPOUT = {"weight_decay": 1e-2}, {"dropout": 0.2}
# What members may differ in. None has more parameters than the first of its kind, to 3 %.
SETTINGS = {
    "mlp": [{}, {"activation": "tanh"}, {"widths": (96, 96, 96)}, DROPOUT, DECAY],
    "convnet": [{}, {"normalization": "group"}, {"normalization": "layer"}, DROPOUT, DECAY],
    "resnet": [{}, {"normalization": "group"}, {"normalization": "layer"}, {"depth": 14}, DECAY],
}
OTHER_MODELS = [{}, {"momentum": 0.8}, {"momentum": 0.95}, {"weight_decay": 1e-3}, DECAY]
QUICK = {
    "seeds": 10,
    "train_size": 256,  # few, so that digits leave room
    "validation_size": 320,
    "test_size": 1200,
    "normalization": "batch",  # Huang's networks had it, and their starting rates go with it
    "batch_size": 16,
    "epochs": 60,
    "rates": (0.01, 0.04, 0.16, 0.64),
    "most_members": 10,
}
SCALES = {
    "smoke": QUICK
    | {"seeds": 2, "train_size": 128, "validation_size": 64, "test_size": 200, "epochs": 5}
    | {"rates": (0.03, 0.1), "most_members": 6},
    "quick": QUICK,
    "standard": QUICK
    | {"train_size": 5_120, "validation_size": 2_000, "test_size": 5_000}
    | {"batch_size": 64, "epochs": 30, "rates": (0.01, 0.03, 0.1, 0.3)},
    "paper": QUICK
    | {"seeds": 5, "train_size": 45_000, "validation_size": 5_000, "test_size": 10_000}
    | {"batch_size": 64, "epochs": 200, "rates": (0.05, 0.1, 0.2)},
}


def run(trial):
    """Train the arm's predictor, one model or several, and measure it as a whole."""
    data = trial.data()
    train = {"independent": independent, "repeated": searched, "mixed": searched}
    tuned, fits = yield from train.get(trial.arm_name, one_budget)(trial, data)
    record_choice(trial, tuned)
    references = []
    if trial.arm_name == "cyclic":  # the independent members of this seed, to be measured against
        _, references = yield from independent(trial, data, CYCLES)
    if trial.arm_name in WATCHED:
        record_course(trial, tuned[0].history[0])
    measure(trial, data, fits, references)


def one_budget(trial, data):
    """The arms that are one run, or several short ones, or one long one, at the best rate."""
    rates = (trial.arm["rate"],) if "rate" in trial.arm else trial.scale["rates"]
    best = yield from search(trial, data, lambda rate: candidate(trial, data, rate), rates)
    return [best], best.fit


def candidate(trial, data, rate):
    """The run or runs of an arm at one starting rate; no more epochs than the arm's budget."""
    epochs, runs = trial.scale["epochs"], trial.arm.get("runs")
    if runs == "short":
        short = epochs // CYCLES
        return [one_run(trial, data, rate, k, epochs=short) for k in range(CYCLES)]
    epochs *= CYCLES if runs == "long" else 1
    kept = trial.arm.get("snapshots", False)
    return [one_run(trial, data, rate, 0, trial.arm["schedule"], epochs, snapshots=kept)]


def one_run(trial, data, rate, member, schedule="cosine", epochs=None, snapshots=False, **setting):
    """One training; `member` draws initial weights and batch order, the same ones in every arm."""
    import keras

    from callbacks import SnapshotEnsemble

    epochs, batch = epochs or trial.scale["epochs"], trial.scale["batch_size"]
    steps = epochs * -(-len(data.train.x) // batch)
    watchers = [snapshots_of(epochs // CYCLES)] if snapshots else []
    if schedule == "cyclic":
        watchers, rates = [SnapshotEnsemble(CYCLES, rate)], rate
    elif schedule == "step":
        ends, values = [steps // 2, steps * 3 // 4], [rate, rate / 10, rate / 100]
        rates = keras.optimizers.schedules.PiecewiseConstantDecay(ends, values)
    else:
        rates = keras.optimizers.schedules.CosineDecay(rate, steps)
    momentum, decay = setting.pop("momentum", 0.9), setting.pop("weight_decay", None)
    optimizer = keras.optimizers.SGD(rates, momentum=momentum, weight_decay=decay)
    setting = {"normalization": trial.scale["normalization"], **setting}
    seed = 1000 * member + trial.seed
    return Fit(
        trial.classifier(data, optimizer, seed=seed, **setting),
        data.train,
        batch_size=batch,
        epochs=epochs,
        callbacks=watchers,
        validation=data.validation if trial.arm_name in WATCHED else None,
        seed=seed,
    )


def snapshots_of(length):
    """A callback that keeps the weights every `length` epochs and leaves the rate alone."""
    import keras

    def keep(epoch, logs):
        if (epoch + 1) % length == 0:
            kept.append(callback.model.get_weights())

    kept = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=keep, snapshots=kept)
    return callback


def search(trial, data, make_fits, rates=None):
    """The rate whose fits, averaged, classify validation data best; ties by likelihood."""
    from lab.engines.predictions import scores

    def score(fits):
        predicted = predictions(fits, data, data.validation.x)
        whole = scores(sum(predicted) / len(predicted), data.validation.y)
        return whole["accuracy"], -whole["nll"]

    rates = rates or trial.scale["rates"]
    return (yield from tune(make_fits, rates, data.validation, score=score))


def independent(trial, data, most=None):
    """Full-cost members that differ in their seed; the rate is the best one for the first."""
    most = most or trial.scale["most_members"]
    best = yield from search(trial, data, lambda rate: [one_run(trial, data, rate, 0)])
    more = [one_run(trial, data, best.choice, k) for k in range(1, most)]
    yield more
    return [best], [*best.fit, *more]


def searched(trial, data):
    """Every setting at its best rate (mixed), or the best of them again and again (repeated)."""
    settings, found = SETTINGS.get(trial.setting.model, OTHER_MODELS), []
    for k, setting in enumerate(settings):
        make = functools.partial(with_setting, trial, data, k, setting)
        found.append((yield from search(trial, data, make)))
    if trial.arm_name == "mixed":
        return found, [fit for one in found for fit in one.fit]
    best = max(range(len(found)), key=lambda k: max(found[k].scores))
    others = [k for k in range(len(settings)) if k != best]
    make = functools.partial(one_run, trial, data, found[best].choice, **settings[best])
    more = [make(member=k) for k in others]
    yield more
    return [found[best]], [*found[best].fit, *more]


def with_setting(trial, data, member, setting, rate):
    """A list of one fit, as `search` takes it."""
    return [one_run(trial, data, rate, member, **setting)]


def record_choice(trial, tuned):
    """The rate (geometric mean over settings) and the share of settings where it is an edge."""
    import numpy as np

    rates = [one.choice for one in tuned]
    trial.record(learning_rate=np.prod(rates) ** (1 / len(rates)))
    trial.record(tuned_at_edge=np.mean([one.at_edge for one in tuned]))


def record_course(trial, history):
    """Validation accuracy, and the rate if it goes in cycles, against cycles completed."""
    length = trial.scale["epochs"] // CYCLES
    epochs = range(1, length * CYCLES + 1)
    epochs = [epoch for epoch in epochs if epoch % length % max(1, length // 6) == 0]
    for metric in ("val_accuracy", "learning_rate"):
        if values := history.history.get(metric):
            at = [epoch / length for epoch in epochs]
            trial.record_curve(f"course_{metric}", at, [values[epoch - 1] for epoch in epochs])


def members(fits):
    """Model and weights of each member: the snapshots that a fit has kept, or how it ended."""
    found = []
    for fit in fits:
        kept = [w for callback in fit.callbacks for w in getattr(callback, "snapshots", ())]
        found += [(fit.model, weights) for weights in kept or [fit.model.get_weights()]]
    return found


def predictions(fits, data, x):
    """Each member's probabilities on `x`, its batch-norm statistics recomputed first."""
    from callbacks import recalibrate_batchnorm
    from lab.engines.predictions import probabilities

    predicted = []
    for model, weights in members(fits):
        model.set_weights(weights)
        recalibrate_batchnorm(model, data.train.x)
        predicted.append(probabilities(model, x))
    return predicted


def ensembles(fits, data):
    """Scores of the ensembles of 1, 2, ... members on test data, and each member's predictions.

    Of snapshots the last ones come first (Huang 2017), of separate runs the first.
    """
    from lab.engines.predictions import scores, temperature, tempered

    both = [predictions(fits, data, part.x) for part in (data.validation, data.test)]
    if len(fits) < len(both[0]):
        both = [part[::-1] for part in both]
    found = []
    for m in range(1, len(both[0]) + 1):
        validation, test = (sum(part[:m]) / m for part in both)
        raw = scores(test, data.test.y)
        right = scores(tempered(test, temperature(validation, data.validation.y)), data.test.y)
        found.append(
            {
                "test_accuracy": raw["accuracy"],
                "nll": right["nll"],
                "raw_nll": raw["nll"],
                "calibration_error": right["calibration_error"],
                "raw_calibration_error": raw["calibration_error"],
            }
        )
    return found, both[1]


def measure(trial, data, fits, references=()):
    """All about the predictor and its members; test data is read here and nowhere else."""
    import numpy as np

    from lab.engines.predictions import disagreement, ensemble_equivalent, scores

    nested, predicted = ensembles(fits, data)
    n = min(CYCLES, len(nested))  # of more independent members only curves and gains are told
    trial.record(nested[n - 1])
    trial.record(members=n, steps=sum(int(fit.model.optimizer.iterations) for fit in fits[:n]))
    trial.record(train_loss=evaluate(fits[0].model, data.train)["loss"])
    if references:
        alone = [one["nll"] for one in ensembles(references, data)[0]]
        trial.record(deep_ensemble_equivalent=ensemble_equivalent(nested[n - 1]["nll"], alone))
    if n == 1:
        return
    accuracy = [one["test_accuracy"] for one in nested]
    for metric in ("test_accuracy", "nll"):
        trial.record_curve(metric, range(1, len(nested) + 1), [one[metric] for one in nested])
    each = [scores(p, data.test.y)["accuracy"] for p in predicted[:n]]
    trial.record(member_accuracy=np.mean(each), ensemble_gain=accuracy[n - 1] - np.mean(each))
    # The first of `each` is the last snapshot, or the first of separate runs.
    trial.record(last_member_accuracy=each[0], last_member_gain=accuracy[n - 1] - each[0])
    trial.record(gain_of_2=accuracy[1] - each[0], gain_of_all=accuracy[-1] - each[0])
    differ = disagreement(predicted[:n])
    trial.record(disagreement=differ)
    # Fort 2019: members that err more also disagree more, and are not the better for it.
    trial.record(disagreement_per_error=differ / max(1 - np.mean(each), 1 / len(data.test.y)))


def accuracy(of, minus):
    """Test accuracy of one arm minus that of another."""
    return difference("test_accuracy", of, minus)


def fair(of, to, equal=None):
    """Gates: a baseline that leaves room, rates inside of their list, as many steps in both."""
    equal = equal or to
    return [
        leaves_room("single_cosine"),
        *not_at_edge(of, to),
        Gate(f"as many steps ({of}, {equal})", difference("steps", of, equal), 0, 0),
    ]


HUANG = (
    "Huang 2017, error % single / no cycle / short runs / snapshots from .1 / from .2: "
    "C100 ResNet-110 28.02 / 26.97 / 26.30 / 25.55 / 24.19, "
    "DenseNet-40 24.42 / 24.63 / 22.85 / 23.34 / 21.93; C10 ResNet-110 5.52, snapshots 5.73 / 5.32"
)
INDEPENDENT = "N0: about 2 points; Garipov 2018 (FGE), PreResNet-164, C100, 1 / 2 / 3 independent "
INDEPENDENT += "models: 78.4 / 80.5 / 81.6 %"
E2 = {"id": "E2", "says": "Snapshots of one run, averaged, beat the single model of that budget"}
E3 = {"id": "E3", "says": "Cycles of the learning rate make better ensembles than plain snapshots"}
E4 = {"id": "E4", "says": "Members with different hyperparameters are better members"}
CLAIMS = [
    Claim(
        id="E1",
        says="An ensemble of independent models gains about 2 points",
        contrast=accuracy("independent", "single_cosine"),
        gates=fair("independent", "single_cosine", equal="long_single"),
        literature=INDEPENDENT,
        **POINTS | {"margin": 0.01},  # half of what the lecture says
        beside={
            "naive": recorded("ensemble_gain", "independent"),
            "against one run five times as long": accuracy("independent", "long_single"),
            "2 members": recorded("gain_of_2", "independent"),
            "10 members": recorded("gain_of_all", "independent"),
        },
    ),
    Claim(
        **E2,
        contrast=accuracy("cyclic", "single_cosine"),
        gates=fair("cyclic", "single_cosine"),
        literature=HUANG,
        **POINTS,
        beside={
            "naive": recorded("last_member_gain", "cyclic"),
            "against step decay": accuracy("cyclic", "single_step"),
            "cycles from 0.1": accuracy("cyclic_low", "single_cosine"),
            "cycles from 0.2": accuracy("cyclic_high", "single_cosine"),
            "short runs instead of cycles": accuracy("short_runs", "single_cosine"),
            "against five full runs": accuracy("cyclic", "independent"),
        },
    ),
    Claim(
        **E2,
        contrast=ratio("nll", "single_cosine", "cyclic"),
        **RATIO | {"margin": 0.0488},  # 5 %
        gates=fair("cyclic", "single_cosine"),
        literature="Ashukha 2020: compare likelihoods at the best temperature",
        beside={
            "naive": ratio("raw_nll", "single_cosine", "cyclic"),  # without a temperature
            "against step decay": ratio("nll", "single_step", "cyclic"),
            "short runs instead of cycles": ratio("nll", "single_cosine", "short_runs"),
            "five full runs": ratio("nll", "single_cosine", "independent"),
        },
    ),
    Claim(
        **E3,
        contrast=accuracy("cyclic", "no_cycle"),
        gates=fair("cyclic", "no_cycle"),
        literature=HUANG,
        **POINTS,
        beside={
            # Credits cycles with what any averaging gives.
            "naive": accuracy("cyclic", "single_step"),
            "cycles from 0.1": accuracy("cyclic_low", "no_cycle"),
            "cycles from 0.2": accuracy("cyclic_high", "no_cycle"),
        },
    ),
    Claim(
        **E3,
        contrast=ratio("disagreement_per_error", "cyclic", "no_cycle"),
        **RATIO,
        gates=fair("cyclic", "no_cycle"),
        literature="Huang 2017: snapshots of cycles are less correlated (figures only)",
        beside={
            "naive": ratio("disagreement", "cyclic", "no_cycle"),
            "short runs": ratio("disagreement_per_error", "short_runs", "no_cycle"),
        },
    ),
    Claim(
        **E4,
        contrast=accuracy("mixed", "repeated"),
        gates=fair("mixed", "repeated"),
        literature="N0 (Q&A): members usually differ; no figure given",
        **POINTS,
        beside={
            # The mixed members were chosen among five times as many.
            "naive": accuracy("mixed", "independent"),
            "gain over the own members": difference("ensemble_gain", "mixed", "repeated"),
        },
    ),
    Claim(
        **E4,
        contrast=ratio("disagreement_per_error", "mixed", "repeated"),
        **RATIO,
        gates=fair("mixed", "repeated"),
        literature="none given",
        beside={"naive": ratio("disagreement", "mixed", "independent")},
    ),
]
ENSEMBLES = ("cyclic", "no_cycle", "short_runs", "independent", "repeated", "mixed")
FIGURES = [
    Curves(
        "members",
        "What more members are worth (of snapshots, the last ones first)",
        "number of members averaged",
        {
            "test accuracy": [(arm, arm, "test_accuracy") for arm in ENSEMBLES],
            "test negative log-likelihood": [(arm, arm, "nll") for arm in ENSEMBLES],
        },
    ),
    Curves(
        "course",
        "One budget: cycles, one cosine, step decay",
        "cycles completed",
        {
            "learning rate": [("cyclic", "cyclic", "course_learning_rate")],
            "validation accuracy": [(arm, arm, "course_val_accuracy") for arm in WATCHED],
        },
        marks={f"snapshot {k}": k for k in range(1, CYCLES + 1)},
        laws={"learning rate": ("cosine cycles", "cyclic", "learning_rate", cosine_cycles)},
    ),
    Scatter(
        "members_and_disagreement",
        "Are members good, and do they differ?",
        "member_accuracy",
        "disagreement_per_error",
        "mean test accuracy of the members, %",
        "disagreement of two members / mean test error",
        arms=ENSEMBLES,
        x_scale=100,
    ),
]
EXPERIMENT = Experiment(
    title="Snapshot ensembles: several models from one run",
    source="Lecture notes N0 and N3 (E1 to E4); Huang et al. 2017, Snapshot Ensembles: Train 1, "
    "Get M for Free",
    arms=ARMS,
    scales=SCALES,
    claims=CLAIMS,
    figures=FIGURES,
    run=run,
)

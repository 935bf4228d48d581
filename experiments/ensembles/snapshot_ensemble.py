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

from lab import (
    Curves,
    Experiment,
    Fit,
    Scatter,
    as_many_steps,
    cosine_cycles,
    difference,
    ensembles,
    evaluate,
    factor,
    leaves_room,
    lines,
    not_at_edge,
    points,
    ratio,
    recorded,
    steps_per_epoch,
    tune_members,
)

ARMS = {
    "single_cosine": {"schedule": "cosine"},
    "single_step": {"schedule": "step"},
    "no_cycle": {"schedule": "step", "snapshots": True},  # Huang's NoCycle
    "cyclic": {"schedule": "cyclic"},
    "cyclic_low": {"schedule": "cyclic", "rate": 0.1},  # Huang's two starting rates
    "cyclic_high": {"schedule": "cyclic", "rate": 0.2},
    "short_runs": {"schedule": "cosine", "runs": "short"},  # Huang's SingleCycle
    "long_single": {"schedule": "cosine", "runs": "long"},
    **{arm: {} for arm in ("independent", "repeated", "mixed")},
}
WATCHED = ("cyclic", "single_cosine", "no_cycle")  # their course is drawn
ENSEMBLES = ("cyclic", "no_cycle", "short_runs", "independent", "repeated", "mixed")
CYCLES = 5  # Huang 2017 for a budget of 200 epochs
DECAY, DROPOUT = {"weight_decay": 1e-2}, {"dropout": 0.2}
# What members may differ in. None has more parameters than the first of its kind, to 3 %.
SETTINGS = {
    "mlp": [{}, {"activation": "tanh"}, {"widths": (96, 96, 96)}, DROPOUT, DECAY],
    "convnet": [{}, {"normalization": "group"}, {"normalization": "layer"}, DROPOUT, DECAY],
    "resnet": [{}, {"normalization": "group"}, {"normalization": "layer"}, {"depth": 14}, DECAY],
}
OTHER_MODELS = [{}, {"momentum": 0.8}, {"momentum": 0.95}, {"weight_decay": 1e-3}, DECAY]
QUICK = (  # few examples, so that digits leave room
    {"seeds": 10, "train_size": 256, "validation_size": 320, "test_size": 1200}
    | {"normalization": "batch"}  # Huang's networks had it, and their starting rates go with it
    | {"batch_size": 16, "epochs": 60, "rates": (0.01, 0.04, 0.16, 0.64), "most_members": 10}
)
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
    from callbacks import recalibrate_batchnorm

    data = trial.data()
    prepare = functools.partial(recalibrate_batchnorm, x=data.train.x)  # before all predictions
    most = {"independent": trial.scale["most_members"], "repeated": CYCLES}.get(trial.arm_name)
    found = yield from trained(trial, data, prepare, trial.arm_name, most)
    trial.record_tuned(found)
    if trial.arm_name in WATCHED:
        record_course(trial, found.tuned[0].history[0].history)
    alone = None
    if trial.arm_name == "cyclic":  # to be measured against independent members of this seed
        alone = yield from trained(trial, data, prepare, "independent", CYCLES)
    measure(trial, data, prepare, found.fits, alone)


def trained(trial, data, prepare, name, most):
    """The members of an arm at the best rates: `most` of its best setting, or one of each."""

    def make(setting, member, rate):
        members = range(CYCLES) if arm.get("runs") == "short" else [member]
        return [one_run(trial, data, arm, rate, k, **setting) for k in members]

    arm, settings = ARMS[name], [{}]
    if name in ("repeated", "mixed"):  # searched alike
        settings = SETTINGS.get(trial.setting.model, OTHER_MODELS)
    rates = (arm["rate"],) if "rate" in arm else trial.scale["rates"]
    return tune_members(make, settings, rates, data.validation, most=most, prepare=prepare)


def one_run(trial, data, arm, rate, member, momentum=0.9, weight_decay=None, **network):
    """One training; `member` draws initial weights and batch order, the same ones in every arm."""
    from keras.optimizers import SGD, schedules

    from callbacks import PeriodicSnapshots, SnapshotEnsemble

    epochs, batch = trial.scale["epochs"], trial.scale["batch_size"]
    epochs = {"short": epochs // CYCLES, "long": epochs * CYCLES}.get(arm.get("runs"), epochs)
    steps = epochs * steps_per_epoch(len(data.train.x), batch)
    kept = [PeriodicSnapshots(epochs // CYCLES)] if "snapshots" in arm else []
    if arm.get("schedule") == "cyclic":
        kept = [SnapshotEnsemble(CYCLES, rate)]
    elif arm.get("schedule") == "step":
        ends, values = [steps // 2, steps * 3 // 4], [rate, rate / 10, rate / 100]
        rate = schedules.PiecewiseConstantDecay(ends, values)
    else:
        rate = schedules.CosineDecay(rate, steps)
    optimizer = SGD(rate, momentum=momentum, weight_decay=weight_decay)
    seed = 1000 * member + trial.seed
    network = {"normalization": trial.scale["normalization"], "seed": seed} | network
    watched = data.validation if trial.arm_name in WATCHED else None
    model = trial.classifier(data, optimizer, **network)
    return Fit(model, data.train, batch, epochs, watched, callbacks=kept, seed=seed)


def record_course(trial, history):
    """Validation accuracy, and the rate if it goes in cycles, against cycles completed."""
    cycle = trial.scale["epochs"] // CYCLES
    epochs = [n for n in range(1, cycle * CYCLES + 1) if n % cycle % max(1, cycle // 6) == 0]
    for metric in ("val_accuracy", "learning_rate"):
        if values := history.get(metric):
            at = [epoch / cycle for epoch in epochs]
            trial.record_curve(f"course_{metric}", at, [values[epoch - 1] for epoch in epochs])


def measure(trial, data, prepare, fits, alone):
    """All about the predictor and its members; test data is read here and nowhere else."""
    measured = ensembles.of_fits(fits, data, prepare=prepare)
    n = min(CYCLES, len(measured.members))  # of more members only curves and gains are told
    trial.record(measured.scores[n - 1])
    trial.record(members=n, steps=sum(int(fit.model.optimizer.iterations) for fit in fits[:n]))
    prepare(fits[0].model)
    trial.record(train_loss=evaluate(fits[0].model, data.train)["loss"])
    if alone:
        _, likelihoods = ensembles.of_fits(alone.fits, data, prepare=prepare).curve("nll")
        equivalent = ensembles.equivalent(measured.scores[n - 1]["nll"], likelihoods)
        trial.record(deep_ensemble_equivalent=equivalent)
    if n > 1:
        for metric in ("test_accuracy", "nll"):
            trial.record_curve(metric, *measured.curve(metric))
        trial.record(measured.gains(n))


def fair(of, over, equal=None):
    """Gates: a baseline that leaves room, rates inside of their list, as many steps in both."""
    return [leaves_room("single_cosine"), *not_at_edge(of, over), as_many_steps(of, equal or over)]


ACCURACY, LIKELIHOOD = points("test_accuracy"), factor("nll", margin=0.0488)  # 5 %
VARIETY = factor("disagreement_per_error")
HUANG = "Huang 2017, error % single / no cycle / short runs / snapshots from .1 / from .2: C100 "
HUANG += "ResNet-110 28.02 / 26.97 / 26.30 / 25.55 / 24.19, DenseNet-40 24.42 / 24.63 / 22.85 / "
HUANG += "23.34 / 21.93; C10 ResNet-110 5.52, snapshots 5.73 / 5.32"
E2 = ("E2", "Snapshots of one run, averaged, beat the single model of that budget")
E3 = ("E3", "Cycles of the learning rate make better ensembles than plain snapshots")
E4 = ("E4", "Members with different hyperparameters are better members")
CLAIMS = [
    ACCURACY.at(0.01).claim(  # half of what the lecture says
        "E1",
        "An ensemble of independent models gains about 2 points",
        ("independent", "single_cosine"),
        gates=fair("independent", "single_cosine", equal="long_single"),
        literature="N0: about 2 points; Garipov 2018 (FGE), PreResNet-164, C100, 1 / 2 / 3 "
        "independent models: 78.4 / 80.5 / 81.6 %",
        naive=recorded("ensemble_gain", "independent"),
        beside={
            "against one run five times as long": ("independent", "long_single"),
            "2 members": recorded("gain_of_2", "independent"),
            "10 members": recorded("gain_of_all", "independent"),
        },
    ),
    ACCURACY.claim(
        *E2,
        ("cyclic", "single_cosine"),
        gates=fair("cyclic", "single_cosine"),
        literature=HUANG,
        naive=recorded("last_member_gain", "cyclic"),
        beside={
            "against step decay": ("cyclic", "single_step"),
            "cycles from 0.1": ("cyclic_low", "single_cosine"),
            "cycles from 0.2": ("cyclic_high", "single_cosine"),
            "short runs instead of cycles": ("short_runs", "single_cosine"),
            "against five full runs": ("cyclic", "independent"),
        },
    ),
    LIKELIHOOD.claim(
        *E2,
        ("single_cosine", "cyclic"),
        gates=fair("cyclic", "single_cosine"),
        literature="Ashukha 2020: compare likelihoods at the best temperature",
        naive=ratio("raw_nll", "single_cosine", "cyclic"),  # without a temperature
        beside={
            "against step decay": ("single_step", "cyclic"),
            "short runs instead of cycles": ("single_cosine", "short_runs"),
            "five full runs": ("single_cosine", "independent"),
        },
    ),
    ACCURACY.claim(
        *E3,
        ("cyclic", "no_cycle"),
        gates=fair("cyclic", "no_cycle"),
        literature=HUANG,
        naive=("cyclic", "single_step"),  # credits cycles with what any averaging gives
        beside={
            "cycles from 0.1": ("cyclic_low", "no_cycle"),
            "cycles from 0.2": ("cyclic_high", "no_cycle"),
        },
    ),
    VARIETY.claim(
        *E3,
        ("cyclic", "no_cycle"),
        gates=fair("cyclic", "no_cycle"),
        literature="Huang 2017: snapshots of cycles are less correlated (figures only)",
        naive=ratio("disagreement", "cyclic", "no_cycle"),
        beside={"short runs": ("short_runs", "no_cycle")},
    ),
    ACCURACY.claim(
        *E4,
        ("mixed", "repeated"),
        gates=fair("mixed", "repeated"),
        literature="N0 (Q&A): members usually differ; no figure given",
        naive=("mixed", "independent"),  # the mixed were chosen among five times as many
        beside={"gain over the own members": difference("ensemble_gain", "mixed", "repeated")},
    ),
    VARIETY.claim(
        *E4,
        ("mixed", "repeated"),
        gates=fair("mixed", "repeated"),
        literature="none given",
        naive=ratio("disagreement", "mixed", "independent"),
    ),
]
FIGURES = [
    Curves(
        "members",
        "What more members are worth (of snapshots, the last ones first)",
        "number of members averaged",
        {
            "test accuracy": lines("test_accuracy", *ENSEMBLES),
            "test negative log-likelihood": lines("nll", *ENSEMBLES),
        },
    ),
    Curves(
        "course",
        "One budget: cycles, one cosine, step decay",
        "cycles completed",
        {
            "learning rate": lines("course_learning_rate", "cyclic"),
            "validation accuracy": lines("course_val_accuracy", *WATCHED),
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
    seen={"digits": 10, "mnist1d": 10},  # before looks were declared, on 2026-11-27
)

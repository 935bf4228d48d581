"""Batch size, sharp and flat minima.

The lecture says (N1, after Keskar et al. 2017, who trained both to convergence): large batches end
in sharp minima, small batches generalize better, and a flat minimum still works where the test
function has moved away from the training function.

What goes wrong: at equal epochs a large batch makes fewer updates and simply trains less (Hoffer
2017, Shallue 2018), so its minimum is no minimum yet; sharpness follows the learning rate
(Andriushchenko 2023) and can be rescaled at will (Dinh 2017). Therefore: equal epochs AND equal
steps, three rules for the learning rate, arms tuned on validation data, four measures of
sharpness, batch-norm statistics recomputed, and a gate that the training losses match.

What we found (digits, quick, 10 seeds, 4 minutes on 2 cores): sharper at equal steps and the same
rate, by x1.2 to x1.7; less sharp as soon as the rate is scaled with the batch. 8 points of
accuracy at equal epochs shrink to 0.4 +- 0.6 at equal steps with tuned rates. Sharpness and gap
are negatively related over arms: longer or faster training makes minima flatter and gaps larger.

Margins were written down before the seeds that count (0 to 9) ran; the scales were chosen on
seeds from 100 up.
"""

from functools import partial

from lab import (
    Contrast,
    Curves,
    Experiment,
    Fit,
    Measure,
    RankCorrelation,
    Scatter,
    evaluate,
    factor,
    leaves_room,
    lines,
    losses_match,
    not_at_edge,
    points,
    stand_in,
    steps_per_epoch,
    tune,
)

ARMS = {
    "small": {"batch": "small", "budget": "epochs", "rule": "same"},
    "large_steps_same": {"batch": "large", "budget": "steps", "rule": "same"},
    "large_epochs_same": {"batch": "large", "budget": "epochs", "rule": "same"},
    "small_tuned": {"batch": "small", "budget": "epochs", "rule": "tuned"},
    "large_steps_tuned": {"batch": "large", "budget": "steps", "rule": "tuned"},
    "large_epochs_tuned": {"batch": "large", "budget": "epochs", "rule": "tuned"},
    "large_steps_sqrt": {"batch": "large", "budget": "steps", "rule": "sqrt"},
    "large_steps_linear": {"batch": "large", "budget": "steps", "rule": "linear"},
    "large_epochs_sqrt": {"batch": "large", "budget": "epochs", "rule": "sqrt"},
    "large_epochs_linear": {"batch": "large", "budget": "epochs", "rule": "linear"},
    "line": {"rule": "same"},
}
QUICK = (  # 64 small batches, 4 large ones
    {"seeds": 10, "train_size": 1024, "validation_size": 256, "small": 16, "large": 256}
    | {"epochs": 10, "learning_rate": 0.01, "rates": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)}
    | {"normalization": "none", "directions": 5}
)
SCALES = {
    "smoke": QUICK | {"seeds": 2, "train_size": 256, "large": 64, "epochs": 2, "directions": 1},
    "quick": QUICK,
    "standard": QUICK | {"train_size": 10240, "validation_size": 2000, "small": 32, "large": 1024},
    # Keskar's protocol: Adam, 256 against a tenth of the data, a network with batch normalization.
    "paper": QUICK
    | {"seeds": 20, "train_size": 45_000, "validation_size": 5_000, "small": 256, "large": 4_500}
    | {"epochs": 100, "optimizer": "adam", "learning_rate": 1e-3, "normalization": "batch"}
    | {"rates": (3e-4, 1e-3, 3e-3, 1e-2)},
}
TRAINED_ARMS = tuple(arm for arm in ARMS if arm != "line")
MATCHED_ARMS = ("small", "small_tuned", *(arm for arm in ARMS if arm.startswith("large_steps")))
RULES = ("same", "sqrt", "linear")
NOISE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # relative to each filter's own norm
ALPHAS = tuple(-1 + 0.125 * i for i in range(25))  # Keskar's plot: -1 to 2


def run(trial):
    """Train the arm, then measure sharpness, gap and tolerance to noise at its solution."""
    data = trial.data()
    if trial.arm_name == "line":
        yield from parametric_line(trial, data)
        return
    asked = partial(fit, trial, data, trial.arm)
    if trial.arm["rule"] == "tuned":
        best = yield from tune(asked, trial.scale["rates"], data.validation)
        trial.record_tuned(best)
        made, history = best.fit, best.history
    else:
        made = asked()
        history = yield made
    trial.record_history(history)
    measure(trial, made.model, data)


def fit(trial, data, arm, rate=None):
    """The training of one arm: its batch size, its budget, its learning-rate rule."""
    from keras import optimizers

    from callbacks import scaled_cosine

    scale, size = trial.scale, len(data.train.x)
    batch, epochs = scale[arm["batch"]], scale["epochs"]
    if arm["budget"] == "steps":  # as many updates as the small batch makes
        epochs = epochs * steps_per_epoch(size, scale["small"]) // steps_per_epoch(size, batch)
    steps = epochs * steps_per_epoch(size, batch)
    rule = "same" if arm["rule"] == "tuned" else arm["rule"]
    schedule = scaled_cosine(rate or scale["learning_rate"], steps, batch / scale["small"], rule)
    adam = scale.get("optimizer") == "adam"
    optimizer = optimizers.Adam(schedule) if adam else optimizers.SGD(schedule, momentum=0.9)
    model = trial.classifier(data, optimizer, normalization=scale["normalization"])
    return Fit(model, data.train, batch_size=batch, epochs=epochs)


def measure(trial, model, data):
    """Everything about one solution; the test data is read here, after the last training."""
    import numpy as np

    import callbacks

    callbacks.recalibrate_batchnorm(model, data.train.x)
    trial.record_evaluation(model, data)
    seen = {metric: value for _, metric, value in trial.rows}
    trial.record(loss_gap=seen["test_loss"] - seen["train_loss"])
    trial.record(accuracy_gap=seen["train_accuracy"] - seen["test_accuracy"])
    kept = stand_in(model, data.train)  # what the probe compiles serves the next trial
    with trial.timed("probe"):
        sharpness = callbacks.SharpnessProbe(*data.probe).measure(kept)
    trial.record({name.removeprefix("sharpness/"): value for name, value in sharpness.items()})
    trial.record(probe_size=len(data.probe.x))

    at_test = partial(evaluate, data=data.test)
    seed = 1000 * trial.seed  # the same directions in every arm of a seed
    noisy = callbacks.along_random_directions(
        model, NOISE, at_test, trial.scale["directions"], seed, recalibrate_on=data.train.x
    )
    losses = noisy["loss"].mean(axis=0)
    trial.record_curve("perturbed_test_loss", NOISE, losses)
    trial.record(noise_slope=np.polyfit(NOISE, losses, 1)[0])
    if trial.arm_name == "small":
        for replace, name in ((True, "gradient_variance"), (False, "epoch_gradient_variance")):
            sizes, variances = callbacks.gradient_variances(kept, *data.train, replace=replace)
            trial.record_curve(name, sizes, variances)
            trial.record({f"{name}_slope": np.polyfit(np.log(sizes), np.log(variances), 1)[0]})


def parametric_line(trial, data):
    """Keskar's plot: loss and accuracy from the small-batch (0) to the large-batch solution (1)."""
    from callbacks import along_line, weights_of

    fits = [fit(trial, data, ARMS[arm]) for arm in ("small", "large_steps_same")]
    yield fits
    ends = [weights_of(one.model) for one in fits]
    for name, split in (("train", data.train), ("test", data.test)):
        at_split = partial(evaluate, data=split)
        curves = along_line(fits[0].model, *ends, ALPHAS, at_split, recalibrate_on=data.train.x)
        for metric, values in curves.items():
            trial.record_curve(f"line_{name}_{metric}", ALPHAS, values)


EQUAL_STEPS = {
    "of": ("large_steps_same", "small"),
    "under": "equal steps",
    "naive": ("large_epochs_same", "small"),
    "gates": [losses_match("large_steps_same", "small")],
}
KESKAR = "Keskar 2017: C1 80.04 / 77.26, C4 63.08 / 57.81, F1 98.03 / 97.81 %"
HOFFER = "Hoffer 2017: no gap at equal updates; Shallue 2018: no evidence of one"
ROOM = leaves_room("small_tuned", 0.995)
TOLERANT = "Flat minima tolerate a shift between training and test function"
LI = "Keskar 2017, figure 1 (a sketch); Li 2018: filter-normalized directions"
CLAIMS = [
    *(
        factor(sharpness).claim(
            "G1a",
            "Large-batch training ends in sharper minima",
            **EQUAL_STEPS,
            beside={
                "equal steps, square-root rate": ("large_steps_sqrt", "small"),
                "equal steps, linear rate": ("large_steps_linear", "small"),
                "equal steps, both tuned": ("large_steps_tuned", "small_tuned"),
            },
            literature="Keskar 2017, sharpness at epsilon 1e-3, small against large batch: "
            "C1 28.6 / 707, C2 8.7 / 925; Andriushchenko 2023: sharpness tracks the learning rate",
        )
        for sharpness in ("lambda_max", "trace", "epsilon", "adaptive")
    ),
    *(
        points("test_accuracy").claim(
            "G1b",
            "Small batches generalize better",
            ("small_tuned", f"{large}_tuned"),
            under=f"{budget}, tuned",
            naive=("small", "large_epochs_same"),
            beside={f"{budget}, {rule} rate": ("small", f"{large}_{rule}") for rule in RULES},
            gates=[ROOM, *not_at_edge("small_tuned", f"{large}_tuned")],
            literature=literature,
        )
        for budget, large, literature in (
            ("equal epochs", "large_epochs", KESKAR),
            ("equal steps", "large_steps", HOFFER),
        )
    ),
    factor("noise_slope").claim("G2", TOLERANT, **EQUAL_STEPS, literature=LI),
    Measure("lambda_max", 0.3, "rank correlation").claim(
        "G2",
        TOLERANT,
        RankCorrelation("lambda_max", "loss_gap", over=MATCHED_ARMS),
        naive=RankCorrelation("lambda_max", "loss_gap", over=TRAINED_ARMS),
        beside={
            "adaptive sharpness": RankCorrelation("adaptive", "loss_gap", over=MATCHED_ARMS),
            "accuracy gap": RankCorrelation("lambda_max", "accuracy_gap", over=MATCHED_ARMS),
        },
        literature="Jiang 2020: sharpness measures among the best predictors of the gap; "
        "Andriushchenko 2023: little or negative correlation",
    ),
    Measure("gradient_variance_slope", 0.9, "(minus the log-log slope)").claim(
        "O3",
        "Mini-batch gradients are noisy, and the noise falls with batch size",
        Contrast("gradient_variance_slope", {"small": -1}),
        naive=Contrast("epoch_gradient_variance_slope", {"small": -1}),
        literature="theory: variance is proportional to 1 / batch size, slope -1",
    ),
]
MOVED_ARMS = ("small", "large_steps_same", "large_steps_linear", "large_epochs_same")
FIGURES = [
    Curves(
        "parametric_line",
        "From the small-batch to the large-batch solution",
        "alpha: position on the line between the two solutions",
        {
            label: [("training", "line", f"line_train_{of}"), ("test", "line", f"line_test_{of}")]
            for label, of in {"cross-entropy": "loss", "accuracy": "accuracy"}.items()
        },
        marks={"small batch": 0.0, "large batch": 1.0},
    ),
    Scatter(
        "sharpness_and_gap",
        "Does sharpness go with the generalization gap?",
        "lambda_max",
        "loss_gap",
        "sharpness: largest eigenvalue of the training loss's Hessian",
        "generalization gap: test - training cross-entropy",
        arms=TRAINED_ARMS,
        log_x=True,
    ),
    Curves(
        "weight_noise",
        "Test loss when the solution is moved along random filter-normalized directions",
        "size of the perturbation, relative to each filter's norm",
        {"test cross-entropy": lines("perturbed_test_loss", *MOVED_ARMS)},
    ),
    Curves(
        "gradient_noise",
        "Variance of the mini-batch gradient at the small-batch solution",
        "batch size",
        {
            "squared norm of the deviation": [
                ("drawn with replacement (expected slope -1)", "small", "gradient_variance"),
                ("drawn without, as an epoch does", "small", "epoch_gradient_variance"),
            ]
        },
        log_x=True,
        log_y=True,
    ),
]
EXPERIMENT = Experiment(
    title="Batch size, sharp and flat minima",
    source="Lecture notes N1 (G1a, G1b, G2), N0 and N3 (O3); Keskar et al. 2017, On Large-Batch "
    "Training for Deep Learning: Generalization Gap and Sharp Minima",
    arms=ARMS,
    scales=SCALES,
    claims=CLAIMS,
    figures=FIGURES,
    run=run,
    seen={"digits": 10, "mnist1d": 10},  # before looks were declared, on 2026-11-27
)

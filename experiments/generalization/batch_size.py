"""Batch size, sharp and flat minima.

The lecture says (N1): large batches end in sharp minima, small batches generalize better, and a
flat minimum still works where the test function has moved away from the training function. Its
source is Keskar et al. 2017, who trained both to convergence.

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

from lab import (
    Claim,
    Contrast,
    Curves,
    Experiment,
    Fit,
    Gate,
    RankCorrelation,
    Scatter,
    evaluate,
    stand_in,
    tune,
)
from lab.claims.contrasts import POINTS, RATIO, difference, ratio
from lab.claims.gates import leaves_room, not_at_edge

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
RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
QUICK = {
    "seeds": 10,
    "train_size": 1024,  # 64 small batches, 4 large ones
    "validation_size": 256,
    "small": 16,
    "large": 256,
    "epochs": 10,
    "learning_rate": 0.01,
    "rates": RATES,
    "normalization": "none",
    "directions": 5,
}
SCALES = {
    "smoke": QUICK | {"seeds": 2, "train_size": 256, "large": 64, "epochs": 2, "directions": 1},
    "quick": QUICK,
    "standard": QUICK
    | {"seeds": 10, "train_size": 10_240, "validation_size": 2_000, "small": 32, "large": 1_024},
    # Keskar's protocol: Adam, 256 against a tenth of the data, a network with batch normalization.
    "paper": QUICK
    | {"seeds": 20, "train_size": 45_000, "validation_size": 5_000, "small": 256, "large": 4_500}
    | {"epochs": 100, "optimizer": "adam", "learning_rate": 1e-3, "normalization": "batch"}
    | {"rates": (3e-4, 1e-3, 3e-3, 1e-2)},
}
MATCHED_ARMS = ("small", "small_tuned", *(arm for arm in ARMS if arm.startswith("large_steps")))
TRAINED_ARMS = tuple(arm for arm in ARMS if arm != "line")
NOISE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # relative to each filter's own norm
ALPHAS = tuple(-1 + 0.125 * i for i in range(25))  # Keskar's plot: -1 to 2


def run(trial):
    """Train the arm, then measure sharpness, gap and tolerance to noise at its solution."""
    data = trial.data()
    if trial.arm_name == "line":
        yield from parametric_line(trial, data)
        return
    if trial.arm["rule"] == "tuned":
        rates = trial.scale["rates"]
        best = yield from tune(
            lambda rate: fit(trial, data, trial.arm, rate), rates, data.validation
        )
        model, history = best.fit.model, best.history
        trial.record(learning_rate=best.choice, tuned_at_edge=best.at_edge)
    else:
        asked = fit(trial, data, trial.arm)
        history, model = (yield asked), asked.model
    trial.record_history(history)
    measure(trial, model, data)


def fit(trial, data, arm, rate=None):
    """The training of one arm: its batch size, its budget, its learning-rate rule."""
    import keras

    scale = trial.scale
    batch = scale[arm["batch"]]
    steps_per_epoch = -(-len(data.train.x) // batch)
    epochs = scale["epochs"]
    if arm["budget"] != "epochs":  # as many updates as the small batch makes
        epochs = epochs * -(-len(data.train.x) // scale["small"]) // steps_per_epoch
    growth = batch / scale["small"]
    if rate is None:
        power = {"same": 0.0, "sqrt": 0.5, "linear": 1.0}[arm["rule"]]
        rate = scale["learning_rate"] * growth**power
    steps = epochs * steps_per_epoch
    warmup = steps // 20 if arm["rule"] == "linear" else 0  # Goyal 2017: 5 of 90 epochs
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / growth if warmup else rate,
        steps - warmup,
        warmup_target=rate if warmup else None,
        warmup_steps=warmup,
    )
    if scale.get("optimizer") == "adam":
        optimizer = keras.optimizers.Adam(schedule)
    else:
        optimizer = keras.optimizers.SGD(schedule, momentum=0.9)
    model = trial.classifier(data, optimizer, normalization=scale["normalization"])
    return Fit(model, data.train, batch_size=batch, epochs=epochs)


def measure(trial, model, data):
    """Everything about one solution; the test data is read here, after the last training."""
    import numpy as np

    from callbacks import SharpnessProbe, filter_normalized_direction, recalibrate_batchnorm

    recalibrate_batchnorm(model, data.train.x)
    train, test = evaluate(model, data.train), evaluate(model, data.test)
    trial.record(train_loss=train["loss"], train_accuracy=train["accuracy"])
    trial.record(test_loss=test["loss"], test_accuracy=test["accuracy"])
    trial.record(loss_gap=test["loss"] - train["loss"])
    trial.record(accuracy_gap=train["accuracy"] - test["accuracy"])
    kept = stand_in(model, data.train)  # what the probe compiles serves the next trial
    with trial.timed("probe"):
        sharpness = SharpnessProbe(*data.probe).measure(kept)
    trial.record({name.removeprefix("sharpness/"): value for name, value in sharpness.items()})
    trial.record(probe_size=len(data.probe.x))

    curves = []
    for direction in range(trial.scale["directions"]):  # the same ones in every arm of a seed
        step = filter_normalized_direction(model, seed=1000 * trial.seed + direction)
        moved = [w + d for w, d in zip(weights(model), step, strict=True)]
        curves.append(along_line(model, data, weights(model), moved, NOISE, ["test"])["test_loss"])
    mean = np.mean(curves, axis=0)
    trial.record_curve("perturbed_test_loss", NOISE, mean)
    trial.record(noise_slope=np.polyfit(NOISE, mean, 1)[0])
    if trial.arm_name == "small":
        gradient_variance(trial, kept, data)


def along_line(model, data, start, end, positions, splits=("train", "test")):
    """Losses and accuracies at positions of the line from `start` (0) to `end` (1)."""
    from callbacks import interpolate, recalibrate_batchnorm, weights_at

    curves = {}
    for position in positions:
        with weights_at(model, interpolate(start, end, position)):
            recalibrate_batchnorm(model, data.train.x)
            for split in splits:
                for metric, value in evaluate(model, getattr(data, split)).items():
                    curves.setdefault(f"{split}_{metric}", []).append(value)
    return curves


def gradient_variance(trial, model, data):
    """Variance of the mini-batch gradient over batch sizes 1 to all, and its log-log slope."""
    import numpy as np

    from callbacks import gradient_noise

    n = len(data.train.x)
    sizes = [4**i for i in range(n.bit_length()) if 4**i <= n]
    for replace, name in ((True, "gradient_variance"), (False, "epoch_gradient_variance")):
        # Without replacement, as an epoch draws, the noise of the full batch is zero: no logarithm.
        kept = sizes if replace else [size for size in sizes if size < n]
        variances = []
        for size in kept:
            # Gradients of single examples have heavy tails: with few draws their variance comes
            # out too small more often than not, and the slope too flat (-0.94 with 100 draws).
            draws = max(100, 4 * n // size)
            noise = gradient_noise(model, *data.train, size, draws=draws, replace=replace)
            variances.append(noise.variance)
        trial.record_curve(name, kept, variances)
        trial.record({f"{name}_slope": np.polyfit(np.log(kept), np.log(variances), 1)[0]})


def parametric_line(trial, data):
    """Keskar's plot: loss and accuracy from the small-batch (0) to the large-batch solution (1)."""
    fits = [fit(trial, data, ARMS[arm]) for arm in ("small", "large_steps_same")]
    yield fits
    small, large = (weights(one.model) for one in fits)
    for name, values in along_line(fits[0].model, data, small, large, ALPHAS).items():
        trial.record_curve(f"line_{name}", ALPHAS, values)


def weights(model):
    """The trainable weights as numpy arrays."""
    import numpy as np

    return [np.asarray(variable).copy() for variable in model.trainable_variables]


def sharper(metric, large="large_steps_same", small="small"):
    """The ratio of a metric, large batch to small."""
    return ratio(metric, large, small)


def better(large, small="small"):
    """Test accuracy, small batch minus large."""
    return difference("test_accuracy", small, large)


KESKAR = (
    "Keskar 2017, sharpness at epsilon 1e-3, small against large batch: C1 28.6 / 707, C2 8.7 / 925"
)
LOSSES_MATCH = Gate(
    "training losses match within a factor of 1.5", sharper("train_loss"), -0.405, 0.405
)
MEASURES = ("lambda_max", "trace", "epsilon", "adaptive")
SHARPER = KESKAR + "; Andriushchenko 2023: sharpness tracks the learning rate"
CLAIMS = [
    *(
        Claim(
            id="G1a",
            says="Large-batch training ends in sharper minima",
            under="equal steps",
            contrast=sharper(metric),
            **RATIO,
            gates=[LOSSES_MATCH],
            literature=SHARPER,
            beside={
                "naive": sharper(metric, "large_epochs_same"),
                "equal steps, square-root rate": sharper(metric, "large_steps_sqrt"),
                "equal steps, linear rate": sharper(metric, "large_steps_linear"),
                "equal steps, both tuned": sharper(metric, "large_steps_tuned", "small_tuned"),
            },
        )
        for metric in MEASURES
    ),
    *(
        Claim(
            id="G1b",
            says="Small batches generalize better",
            under=f"equal {budget}, tuned",
            contrast=better(f"large_{budget}_tuned", "small_tuned"),
            **POINTS,
            gates=[
                leaves_room("small_tuned", 0.995),
                *not_at_edge("small_tuned", f"large_{budget}_tuned"),
            ],
            literature=literature,
            beside={
                "naive": better("large_epochs_same"),
                **{
                    f"equal {budget}, {rule} rate": better(f"large_{budget}_{rule}")
                    for rule in ("same", "sqrt", "linear")
                },
            },
        )
        for budget, literature in {
            "epochs": "Keskar 2017: C1 80.04 / 77.26, C4 63.08 / 57.81, F1 98.03 / 97.81 %",
            "steps": "Hoffer 2017: no gap at equal updates; Shallue 2018: no evidence of one",
        }.items()
    ),
    Claim(
        id="G2",
        says="Flat minima tolerate a shift between training and test function",
        under="equal steps",
        contrast=sharper("noise_slope"),
        **RATIO,
        gates=[LOSSES_MATCH],
        literature="Keskar 2017, figure 1 (a sketch); Li 2018: filter-normalized directions",
        beside={"naive": sharper("noise_slope", "large_epochs_same")},
    ),
    Claim(
        id="G2",
        says="Flat minima tolerate a shift between training and test function",
        contrast=RankCorrelation("lambda_max", "loss_gap", over=MATCHED_ARMS),
        margin=0.3,
        unit="rank correlation",
        literature="Jiang 2020: sharpness measures among the best predictors of the gap; "
        "Andriushchenko 2023: little or negative correlation",
        beside={
            "naive": RankCorrelation("lambda_max", "loss_gap", over=TRAINED_ARMS),
            "adaptive sharpness": RankCorrelation("adaptive", "loss_gap", over=MATCHED_ARMS),
            "accuracy gap": RankCorrelation("lambda_max", "accuracy_gap", over=MATCHED_ARMS),
        },
    ),
    Claim(
        id="O3",
        says="Mini-batch gradients are noisy, and the noise falls with batch size",
        contrast=Contrast("gradient_variance_slope", {"small": -1}),
        margin=0.9,
        unit="(minus the log-log slope)",
        literature="theory: variance is proportional to 1 / batch size, slope -1",
        beside={"naive": Contrast("epoch_gradient_variance_slope", {"small": -1})},
    ),
]
FIGURES = [
    Curves(
        "parametric_line",
        "From the small-batch to the large-batch solution",
        "alpha: position on the line between the two solutions",
        {
            "cross-entropy": [
                ("training", "line", "line_train_loss"),
                ("test", "line", "line_test_loss"),
            ],
            "accuracy": [
                ("training", "line", "line_train_accuracy"),
                ("test", "line", "line_test_accuracy"),
            ],
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
        {
            "test cross-entropy": [
                (arm, arm, "perturbed_test_loss")
                for arm in ("small", "large_steps_same", "large_steps_linear", "large_epochs_same")
            ]
        },
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
)

"""Transfer learning: little or much data, similar to what was pretrained on or different.

The lecture says (N0, N3): with little, similar data train a linear classifier on top; with much
of it fine-tune, at a smaller rate than before; with little, different data the top features serve
badly, try earlier ones; with much, different data fine-tune everything; and with little data take
a pretrained model.

What goes wrong: scratch gets the small budget of fine-tuning and loses before it is trained (He
2018); one rate serves probes and deep networks alike; the new head starts from the numbers that
the old one was trained from; one lucky subset decides (BiT: 45.8 to 66.1 % over runs). Therefore:
every arm tries the same rates and chooses on validation data; all make the same number of steps
of the same batch size (an epoch repeats the data to a fixed length), scratch also ten times as
many; random features show what pretraining adds; LP-FT (Kumar 2022) stands between probe and
fine-tuning; a seed draws the subset. Validation data is larger than the little training set, for
every arm alike: methods are compared, not budgets of labels.

Source and target: classes 0 to 4 of a data set, then 5 to 9 (similar) or pieces of photographs
(different); from TFDS CIFAR-100, then CIFAR-10 or chest X-rays.

What we found (quick, 10 seeds, 7 to 9 minutes on 2 cores): on digits an MLP transfers nothing to
the other half of the classes: with 25 examples scratch beats what was pretrained by 3.7 points,
and full fine-tuning beats the probe by 5.7. On mnist1d pretraining is worth 7 points, with little
and with much data. A smaller rate than the pretraining's helps on neither.
"""

from lab import Contrast, Curves, Experiment, Fit, Heatmap, evaluate, learned, once, points, tune

TARGETS = ("similar", "different")
MARGINS = {"little": 0.01, "much": 0.005}  # of the claims: so much accuracy matters
CELLS = {f"{t}_{size}": {"target": t, "size": size} for t in TARGETS for size in MARGINS}
METHODS = {  # `trains`: one part after the other, which share the budget
    "probe_top": {"start": "pretrained", "trains": ("probe_top",)},
    "probe_early": {"start": "pretrained", "trains": ("probe_early",)},
    "last2": {"start": "pretrained", "trains": ("last2",)},
    "full": {"start": "pretrained", "trains": ("all",)},
    "lp_ft": {"start": "pretrained", "trains": ("probe_top", "all")},
    "scratch": {"start": "random", "trains": ("all",)},
    "scratch_10x": {"start": "random", "trains": ("all",), "times": 10},
    "random_features": {"start": "random", "trains": ("probe_top",)},
}
ARMS = {
    f"{cell}_{name}": {"times": 1} | settings | method
    for cell, settings in CELLS.items()
    for name, method in METHODS.items()
}
QUICK = {
    "seeds": 10,
    "little": 25,
    "much": 400,
    "source_size": {"mnist1d": 4000},  # it is generated; elsewhere all there is
    "source_epochs": 10,
    "learning_rate": 0.03,  # of the pretraining: best of 0.01 to 0.3 on its validation data
    "ratios": (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),  # of the rates tried, to that one
    "batch_size": 25,
    "epoch_size": 1000,  # of a target, its examples repeated: 40 steps
    "epochs": 10,
}
STANDARD = QUICK | {"little": 100, "much": 4000, "batch_size": 50, "epoch_size": 4000}
SCALES = {
    "smoke": QUICK
    | {"seeds": 2, "much": 50, "source_size": {}, "source_epochs": 2}
    | {"ratios": (0.1, 1.0, 3.0), "epoch_size": 50, "epochs": 2},
    "quick": QUICK,
    "standard": STANDARD,
    "paper": STANDARD | {"seeds": 20, "source_epochs": 100, "epochs": 50},
}
SIMILAR = {"cifar100": "cifar10"}  # for other data sets the other half of their classes
DIFFERENT = {(8, 8, 1): "photo_patches", (40, 1): "photo_rows"}  # by shape; else chest X-rays
LOWER = 0.1  # the smaller rate of the lecture, to the pretraining's


def run(trial):
    """Pretrain, take over what the arm takes over, train its parts at every rate, measure."""
    from callbacks import recalibrate_batchnorm
    from models.surgery import take_over

    source, target = tasks(trial)
    # In every arm, needed or not: what follows then has the same batch orders in all of them.
    pretrained = (yield from once(trial, "source", lambda: pretraining(trial, source))).model
    start = fresh_network(trial, target)
    if trial.arm["start"] == "pretrained":
        take_over(start, pretrained)
    recalibrate_batchnorm(start, target.train.x)
    *before, last = trial.arm["trains"]
    for part in before:  # LP-FT: a trained head to start from
        head, _ = yield from search(trial, target, start, part)
        start.layers[-1].set_weights(head.fit.model.layers[-1].get_weights())
        trial.record(head_ratio=head.choice, head_at_edge=head.at_edge)
    found, seen = yield from search(trial, target, start, last)
    # Below the lowest rate a head that is trained already just stays: that edge hides nothing.
    stays = bool(before) and found.choice == trial.scale["ratios"][0]
    trial.record(steps=found.fit.steps * len(trial.arm["trains"]))
    trial.record(tuned_at_edge=found.at_edge and not stays)
    measure(trial, found, seen)
    recalibrate_batchnorm(pretrained, source.train.x)
    trial.record(source_accuracy=evaluate(pretrained, source.test)["accuracy"])


def tasks(trial):
    """The source, the same in every arm of a seed, and the arm's target in the source's shape."""
    name, halves = trial.setting.data, (None, None)
    if name not in SIMILAR:
        k = trial.data(train_size=100, validation_size=100, test_size=100).classes
        halves = range(k // 2), range(k // 2, k)
    source = trial.data(classes=halves[0], train_size=trial.scale["source_size"].get(name))
    name, classes = SIMILAR.get(name, name), halves[1]
    if trial.arm["target"] == "different":
        name, classes = DIFFERENT.get(source.shape, "pneumonia_mnist"), range(2)
    target = trial.data(name, classes=classes, train_size=trial.scale[trial.arm["size"]])
    return source, target.in_shape(source.shape)


def training(trial, model, split, ratio, epochs):
    """A `Fit` at a multiple of the pretraining's rate, which falls as a cosine."""
    import keras

    fit = Fit(model, split, trial.scale["batch_size"], epochs)
    rate = keras.optimizers.schedules.CosineDecay(ratio * trial.scale["learning_rate"], fit.steps)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), model.loss, metrics=["accuracy"])
    return fit


def pretraining(trial, source):
    """The `Fit` that all arms of a seed share."""
    model = trial.classifier(source, "sgd")
    return training(trial, model, source.train, 1.0, trial.scale["source_epochs"])


def fresh_network(trial, target):
    """A random network for the target, from another seed than the source's.

    A trained head stays near its start, and the features fit it: a new head with that start
    would be half trained.
    """
    return trial.classifier(target, "sgd", seed=1_000_000 + trial.seed)


def search(trial, target, start, name):
    """Train a part of `start` at every rate; what `tune` chose, and the target as it saw it."""
    from callbacks import recalibrate_batchnorm
    from models.surgery import part

    trained, scale = part(start, name, lambda: fresh_network(trial, target)), trial.scale
    seen = target.through(trained.view)
    epochs = scale["epochs"] * trial.arm["times"] // len(trial.arm["trains"])

    def make_fit(ratio):
        repeated = seen.train.repeated(scale["epoch_size"])
        return training(trial, trained.fresh(), repeated, ratio, epochs)

    def score(fit):
        recalibrate_batchnorm(fit.model, seen.train.x)
        reached = evaluate(fit.model, seen.validation)
        return reached["accuracy"], -reached["loss"]

    return (yield from tune(make_fit, scale["ratios"], seen.validation, score)), seen


def measure(trial, found, seen):
    """What was chosen, and every candidate beside it; the test data is read here, not before."""
    ratios, test = trial.scale["ratios"], seen.test
    reached = dict(zip(ratios, (evaluate(fit.model, test) for fit in found.fits), strict=True))
    accuracy = {ratio: one["accuracy"] for ratio, one in reached.items()}
    train = evaluate(found.fit.model, seen.train)
    trial.record(train_loss=train["loss"], train_accuracy=train["accuracy"])
    trial.record(validation_accuracy=found.scores[ratios.index(found.choice)][0])
    trial.record(test_loss=reached[found.choice]["loss"], test_accuracy=accuracy[found.choice])
    trial.record(learning_rate=found.choice * trial.scale["learning_rate"])
    trial.record(learning_rate_ratio=found.choice, untuned_accuracy=accuracy[1.0])
    trial.record(lower_rate_gain=accuracy[LOWER] - accuracy[1.0])
    best_lower = max(value for ratio, value in accuracy.items() if ratio < 1)
    trial.record(lower_rate_gain_chosen_on_test=best_lower - accuracy[1.0])  # trap 11, to be shown
    trial.record_curve("test_accuracy_ratio", ratios, accuracy.values())


ACCURACY = points("test_accuracy", naive="untuned_accuracy", edge="tuned_at_edge", room=0.96)
LEARNED = 0.7  # of the source; chance is 20 %
NONE = "none in these terms"


def arms(cell, of, over):
    """Two ways to transfer in one cell."""
    return f"{cell}_{of}", f"{cell}_{over}"


def claim(id, says, pair, literature=NONE, **more):
    """A way to transfer over another in one cell, both tuned; naively, neither is."""
    measure, gates = ACCURACY.at(MARGINS[ARMS[pair[0]]["size"]]), [learned(pair[0], LEARNED)]
    return measure.claim(id, says, pair, literature=literature, gates=gates, **more)


T1B = {"id": "T1b", "says": "Much, similar data: fine-tune more layers"}
MUCH, LITTLE = (arms(f"similar_{size}", "full", "probe_top") for size in ("much", "little"))
CLAIMS = [
    claim(
        "T1a",
        "Little, similar data: train only a linear classifier on top",
        arms("similar_little", "probe_top", "full"),
        "Kumar 2022: fine-tuning +2 points in, -7 points out of distribution",
        beside={
            "probe - LP-FT": arms("similar_little", "probe_top", "lp_ft"),
            "probe - random features": arms("similar_little", "probe_top", "random_features"),
        },
    ),
    claim(
        **T1B,
        pair=MUCH,
        literature="Kumar 2022: fine-tuning +2 points in distribution",
        beside={"last two layers - probe": arms("similar_much", "last2", "probe_top")},
    ),
    points("test_accuracy", MARGINS["little"], naive="untuned_accuracy").claim(
        **T1B,
        of=Contrast("test_accuracy", {MUCH[0]: 1, MUCH[1]: -1, LITTLE[1]: 1, LITTLE[0]: -1}),
        under="more so than with little",
        literature=NONE,
        # Of the pair that is subtracted, the ranges of rates alone.
        gates=[*claim(**T1B, pair=MUCH).gates, *claim(**T1B, pair=LITTLE).gates[1:3]],
    ),
    claim(
        "T1c",
        "Little, different data: the top features serve badly, try earlier ones",
        arms("different_little", "probe_early", "probe_top"),
        beside={
            "with much data": arms("different_much", "probe_early", "probe_top"),
            "with similar data": arms("similar_little", "probe_early", "probe_top"),
            "top - random features": arms("different_little", "probe_top", "random_features"),
        },
    ),
    claim(
        "T1d",
        "Much, different data: fine-tune everything",
        arms("different_much", "full", "last2"),
        beside={
            "all - probe": arms("different_much", "full", "probe_top"),
            "all - scratch, 10 x the steps": arms("different_much", "full", "scratch_10x"),
        },
    ),
    *(
        points("lower_rate_gain", margin, naive="lower_rate_gain_chosen_on_test").claim(
            "T2",
            "Fine-tune with a smaller learning rate than the one used to pretrain",
            f"similar_{size}_full",
            under=f"a tenth; similar, {size}",
            literature=NONE,
            gates=[learned(f"similar_{size}_full", LEARNED)],
            beside={"the same from scratch": f"similar_{size}_scratch"},
        )
        for size, margin in MARGINS.items()
    ),
    claim(
        "T3",
        "With little data, take a pretrained model",
        arms("similar_little", "lp_ft", "scratch_10x"),
        "He 2018: scratch catches up when trained longer, except with very little data",
        naive=arms("similar_little", "lp_ft", "scratch"),
        beside={
            "with much data": arms("similar_much", "lp_ft", "scratch_10x"),
            "different": arms("different_little", "lp_ft", "scratch_10x"),
            "different, much data": arms("different_much", "lp_ft", "scratch_10x"),
        },
    ),
]
COMPARED = {
    "all fine-tuned over probe on top": ("full", "probe_top"),
    "probe of early features over on top": ("probe_early", "probe_top"),
    "pretrained (LP-FT) over scratch, 10 x the steps": ("lp_ft", "scratch_10x"),
}
SHOWN = ("full", "last2", "lp_ft", "probe_top", "probe_early", "scratch")
SAID = {cell: cell.replace("_", ", ") for cell in CELLS}
compared = ACCURACY.compared
FIGURES = [
    Heatmap(
        "grid",
        "The lecture's grid: which way to transfer wins where",
        "points of test accuracy",
        {
            says: {t: {s: compared(arms(f"{t}_{s}", *ways)) for s in MARGINS} for t in TARGETS}
            for says, ways in COMPARED.items()
        },
        x_label="target data",
        y_label="to the source",
        scale_by=100,
    ),
    Heatmap(
        "accuracy_by_cell",
        "What each way to transfer reaches at its own learning rate",
        "% test accuracy",
        {"": {m: {SAID[c]: compared(f"{c}_{m}") for c in CELLS} for m in METHODS}},
        x_label="target data, and how much of it",
        scale_by=100,
        effects=False,
    ),
    Curves(
        "accuracy_by_rate",
        "What each way to transfer reaches, by learning rate",
        "learning rate, as a ratio to the pretraining's",
        {
            f"test accuracy ({said} data)": [(m, f"{c}_{m}", "test_accuracy_ratio") for m in SHOWN]
            for c, said in SAID.items()
        },
        log_x=True,
        marks={"the pretraining's rate": 1.0},
    ),
]
EXPERIMENT = Experiment(
    title="Transfer: little or much data, similar or different",
    source="Lecture notes N0 and N3, the 2 x 2 grid (T1a to T1d, T2, T3); CS231n lecture 7",
    arms=ARMS,
    scales=SCALES,
    claims=CLAIMS,
    figures=FIGURES,
    run=run,
    seen={"digits": 10, "mnist1d": 10},  # before looks were declared, on 2026-11-27
)

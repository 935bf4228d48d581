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

from collections.abc import Callable
from typing import Any, NamedTuple

from lab import Claim, Contrast, Curves, Experiment, Fit, Gate, evaluate, once, tune
from lab.claims.contrasts import POINTS, difference, recorded
from lab.claims.figures import Heatmap
from lab.claims.gates import leaves_room, not_at_edge

CELLS = {
    f"{target}_{size}": {"target": target, "size": size}
    for target in ("similar", "different")
    for size in ("little", "much")
}
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
SCALES = {
    "smoke": QUICK
    | {"seeds": 2, "much": 50, "source_size": {}, "source_epochs": 2}
    | {"ratios": (0.1, 1.0, 3.0), "epoch_size": 50, "epochs": 2},
    "quick": QUICK,
    "standard": QUICK | {"little": 100, "much": 4000, "batch_size": 50, "epoch_size": 4000},
    "paper": QUICK
    | {"seeds": 20, "little": 100, "much": 4000, "batch_size": 50, "epoch_size": 4000}
    | {"source_epochs": 100, "epochs": 50},
}
SIMILAR = {"cifar100": "cifar10"}  # for other data sets the other half of their classes
DIFFERENT = {(8, 8, 1): "photo_patches", (40, 1): "photo_rows"}
OTHERWISE_DIFFERENT = "pneumonia_mnist"
LOWER = 0.1  # the smaller rate of the lecture, to the pretraining's


class Target(NamedTuple):
    """A target data set in the shape of the source's examples."""

    shape: tuple
    classes: int
    train: tuple
    validation: tuple
    read_test: Callable


class Found(NamedTuple):
    """What `search` chose, with what it takes to measure it."""

    tuned: Any
    see: Callable  # from examples to inputs of the models that were trained
    train: tuple  # inputs and labels, none repeated
    steps: int  # of each candidate


def run(trial):
    """Pretrain, take over what the arm takes over, train its parts at every rate, measure."""
    source, target = tasks(trial)
    # In every arm, needed or not: what follows then has the same batch orders in all of them.
    pretrained = (yield from once(trial, "source", lambda: pretraining(trial, source))).model
    start = starting_network(trial, target, pretrained)
    *before, last = trial.arm["trains"]
    epochs = trial.scale["epochs"] * trial.arm["times"] // len(trial.arm["trains"])
    steps = 0
    for part in before:  # LP-FT: a trained head to start from
        head = yield from search(trial, target, start, part, epochs)
        start.layers[-1].set_weights(head.tuned.fit.model.layers[-1].get_weights())
        trial.record(head_ratio=head.tuned.choice, head_at_edge=head.tuned.at_edge)
        steps += head.steps
    found = yield from search(trial, target, start, last, epochs)
    # Below the lowest rate a head that is trained already just stays: that edge hides nothing.
    stays = bool(before) and found.tuned.choice == trial.scale["ratios"][0]
    trial.record(steps=steps + found.steps, tuned_at_edge=found.tuned.at_edge and not stays)
    measure(trial, target, found)
    measure_source(trial, source, pretrained)


def tasks(trial):
    """The source, the same in every arm of a seed, and the arm's target."""
    name, classes = trial.setting.data, None
    size = trial.scale["source_size"].get(name)
    if name in SIMILAR:
        source, name = trial.data(train_size=size), SIMILAR[name]
    else:
        k = trial.data(train_size=100, validation_size=100, test_size=100).classes
        source, classes = trial.data(classes=range(k // 2), train_size=size), range(k // 2, k)
    if trial.arm["target"] == "different":
        name, classes = DIFFERENT.get(source.shape, OTHERWISE_DIFFERENT), range(2)
    data = trial.data(name, classes=classes, train_size=trial.scale[trial.arm["size"]])

    def in_shape(split):
        return fitted(split.x, source.shape), split.y

    train, validation = in_shape(data.train), in_shape(data.validation)
    return source, Target(
        source.shape, data.classes, train, validation, lambda: in_shape(data.test)
    )


def fitted(x, shape):
    """Images in another shape: their nearest pixels, channels averaged if they are not as many."""
    import numpy as np

    if x.shape[1:] == shape:
        return x
    rows, columns = (np.arange(shape[i]) * x.shape[i + 1] // shape[i] for i in (0, 1))
    x = x[:, rows][:, :, columns]
    return x if x.shape[-1] == shape[-1] else np.repeat(x.mean(-1, keepdims=True), shape[-1], -1)


def optimizer(scale, ratio, steps):
    """SGD with momentum; its rate is a multiple of the pretraining's and falls as a cosine."""
    import keras

    schedule = keras.optimizers.schedules.CosineDecay(ratio * scale["learning_rate"], steps)
    return keras.optimizers.SGD(schedule, momentum=0.9)


def pretraining(trial, source):
    """The `Fit` that all arms of a seed share."""
    batch, epochs = trial.scale["batch_size"], trial.scale["source_epochs"]
    sgd = optimizer(trial.scale, 1.0, epochs * -(-len(source.train.y) // batch))
    return Fit(trial.classifier(source, sgd), source.train, batch_size=batch, epochs=epochs)


def fresh_network(trial, target, sgd="sgd"):
    """A random network for the target, from another seed than the source's.

    A trained head stays near its start, and the features fit it: a new head with that start
    would be half trained.
    """
    return trial.classifier(target, sgd, seed=1_000_000 + trial.seed)


def starting_network(trial, target, pretrained):
    """A new head on the pretrained layers or on random ones; batch-norm statistics the target's."""
    from callbacks import recalibrate_batchnorm

    start = fresh_network(trial, target)
    if trial.arm["start"] == "pretrained":
        for own, trained in zip(start.layers[:-1], pretrained.layers[:-1], strict=True):
            own.set_weights(trained.get_weights())
    recalibrate_batchnorm(start, target.train[0])
    return start


def search(trial, target, start, part, epochs):
    """Train a part of `start` at every rate, each from there; returns a `Found`."""
    import numpy as np

    from callbacks import recalibrate_batchnorm

    scale, see = trial.scale, view(start, part)
    train, validation = ((see(x), y) for x, y in (target.train, target.validation))
    rows = np.resize(np.arange(len(train[1])), scale["epoch_size"])
    steps = epochs * -(-len(rows) // scale["batch_size"])

    def make_fit(ratio):
        sgd = optimizer(scale, ratio, steps)
        model = trained_part(trial, target, start, part, train[0], sgd)
        repeated = train[0][rows], train[1][rows]
        return Fit(model, repeated, batch_size=scale["batch_size"], epochs=epochs)

    def score(fit):
        recalibrate_batchnorm(fit.model, train[0])
        seen = evaluate(fit.model, validation)
        return seen["accuracy"], -seen["loss"]

    tuned = yield from tune(make_fit, scale["ratios"], validation, score)
    return Found(tuned, see, train, steps)


def view(network, part):
    """What the trained part sees of an example: all of it, or the features of a frozen network."""
    import keras
    import numpy as np

    if not part.startswith("probe"):
        return lambda x: x
    hidden = [layer for layer in network.layers if isinstance(layer, keras.layers.Activation)]
    at = hidden[0].output if part == "probe_early" else network.layers[-1].input
    below = keras.Model(network.input, keras.layers.Flatten()(at))
    return lambda x: np.concatenate(
        [np.asarray(below(x[i : i + 1000], training=False)) for i in range(0, len(x), 1000)]
    )


def trained_part(trial, target, start, part, inputs, sgd):
    """What is trained: a linear classifier alone, or the network, some of its layers frozen."""
    if part.startswith("probe"):
        from models.mlp import mlp

        head = mlp(inputs.shape[1:], target.classes, widths=())
        # A random start would stay in all directions that a few examples do not span.
        head.set_weights([0 * weight for weight in head.get_weights()])
        head.compile(sgd, start.loss, metrics=["accuracy"])
        return head
    model = fresh_network(trial, target, sgd)
    model.set_weights(start.get_weights())
    if part == "last2":
        kernels = [i for i, layer in enumerate(model.layers) if hasattr(layer, "kernel")]
        for layer in model.layers[: kernels[-2]]:
            layer.trainable = False
    return model


def measure(trial, target, found):
    """What was chosen, and every candidate beside it; the test data is read here, not before."""
    tuned, ratios = found.tuned, trial.scale["ratios"]
    x, y = target.read_test()
    test = found.see(x), y
    seen = dict(zip(ratios, (evaluate(fit.model, test) for fit in tuned.fits), strict=True))
    accuracy = {ratio: one["accuracy"] for ratio, one in seen.items()}
    train = evaluate(tuned.fit.model, found.train)
    trial.record(train_loss=train["loss"], train_accuracy=train["accuracy"])
    trial.record(validation_accuracy=tuned.scores[ratios.index(tuned.choice)][0])
    trial.record(test_loss=seen[tuned.choice]["loss"], test_accuracy=accuracy[tuned.choice])
    trial.record(learning_rate=tuned.choice * trial.scale["learning_rate"])
    trial.record(learning_rate_ratio=tuned.choice, untuned_accuracy=accuracy[1.0])
    trial.record(lower_rate_gain=accuracy[LOWER] - accuracy[1.0])
    best_lower = max(value for ratio, value in accuracy.items() if ratio < 1)
    trial.record(lower_rate_gain_chosen_on_test=best_lower - accuracy[1.0])  # trap 11, to be shown
    trial.record_curve("test_accuracy_ratio", ratios, accuracy.values())


def measure_source(trial, source, pretrained):
    """Whether there was anything to transfer."""
    from callbacks import recalibrate_batchnorm

    recalibrate_batchnorm(pretrained, source.train.x)
    trial.record(source_accuracy=evaluate(pretrained, source.test)["accuracy"])


def gain(cell, method, over, metric="test_accuracy"):
    """How much better a method is than another in one cell."""
    return difference(metric, f"{cell}_{method}", f"{cell}_{over}")


def more_with_much(metric="test_accuracy"):
    """How much more fine-tuning gains on a probe with much similar data than with little."""
    much = gain("similar_much", "full", "probe_top", metric).weights
    return Contrast(metric, {**much, **gain("similar_little", "probe_top", "full").weights})


def learned(arm):
    """There was something to transfer: chance is 20 %."""
    of = recorded("source_accuracy", arm)
    return Gate(f"the source was learned ({arm}): accuracy at least 0.7", of, low=0.7)


def claim(id, says, where, margin, literature="none in these terms", **more):
    """A method over another in one cell, with its gates; naively, neither is tuned."""
    cell, method, over = where
    arms = f"{cell}_{method}", f"{cell}_{over}"
    beside = {"naive": gain(*where, "untuned_accuracy")} | more.pop("beside", {})
    return Claim(
        id=id,
        says=says,
        contrast=more.pop("contrast", None) or gain(*where),
        **POINTS | {"margin": margin},
        gates=[leaves_room(arms[1]), *not_at_edge(*arms), learned(arms[0]), *more.pop("gates", [])],
        literature=literature,
        beside=beside,
        **more,
    )


CLAIMS = [
    claim(
        "T1a",
        "Little, similar data: train only a linear classifier on top",
        ("similar_little", "probe_top", "full"),
        0.01,
        "Kumar 2022: fine-tuning +2 points in, -7 points out of distribution",
        beside={
            "probe - LP-FT": gain("similar_little", "probe_top", "lp_ft"),
            "probe - random features": gain("similar_little", "probe_top", "random_features"),
        },
    ),
    claim(
        "T1b",
        "Much, similar data: fine-tune more layers",
        ("similar_much", "full", "probe_top"),
        0.005,
        "Kumar 2022: fine-tuning +2 points in distribution",
        beside={"last two layers - probe": gain("similar_much", "last2", "probe_top")},
    ),
    claim(
        "T1b",
        "Much, similar data: fine-tune more layers",
        ("similar_much", "full", "probe_top"),
        0.01,
        under="more so than with little",
        contrast=more_with_much(),
        gates=not_at_edge("similar_little_full", "similar_little_probe_top"),
        beside={"naive": more_with_much("untuned_accuracy")},
    ),
    claim(
        "T1c",
        "Little, different data: the top features serve badly, try earlier ones",
        ("different_little", "probe_early", "probe_top"),
        0.01,
        beside={
            "with much data": gain("different_much", "probe_early", "probe_top"),
            "with similar data": gain("similar_little", "probe_early", "probe_top"),
            "top - random features": gain("different_little", "probe_top", "random_features"),
        },
    ),
    claim(
        "T1d",
        "Much, different data: fine-tune everything",
        ("different_much", "full", "last2"),
        0.005,
        beside={
            "all - probe": gain("different_much", "full", "probe_top"),
            "all - scratch, 10 x the steps": gain("different_much", "full", "scratch_10x"),
        },
    ),
    *(
        Claim(
            id="T2",
            says="Fine-tune with a smaller learning rate than the one used to pretrain",
            under=f"a tenth; {cell.replace('_', ', ')}",
            contrast=recorded("lower_rate_gain", f"{cell}_full"),
            **POINTS | {"margin": margin},
            gates=[learned(f"{cell}_full")],
            literature="none in these terms",
            beside={
                "naive": recorded("lower_rate_gain_chosen_on_test", f"{cell}_full"),
                "the same from scratch": recorded("lower_rate_gain", f"{cell}_scratch"),
            },
        )
        for cell, margin in {"similar_little": 0.01, "similar_much": 0.005}.items()
    ),
    claim(
        "T3",
        "With little data, take a pretrained model",
        ("similar_little", "lp_ft", "scratch_10x"),
        0.01,
        "He 2018: scratch catches up when trained longer, except with very little data",
        beside={
            "naive": gain("similar_little", "lp_ft", "scratch"),
            "with much data": gain("similar_much", "lp_ft", "scratch_10x"),
            "different": gain("different_little", "lp_ft", "scratch_10x"),
            "different, much data": gain("different_much", "lp_ft", "scratch_10x"),
        },
    ),
]
SHOWN = ("full", "last2", "lp_ft", "probe_top", "probe_early", "scratch")
FIGURES = [
    Heatmap(
        "grid",
        "The lecture's grid: which way to transfer wins where",
        "points of test accuracy",
        {
            f"{says} over {than}": {
                target: {size: gain(f"{target}_{size}", *arms) for size in ("little", "much")}
                for target in ("similar", "different")
            }
            for (says, than), arms in {
                ("all fine-tuned", "probe on top"): ("full", "probe_top"),
                ("probe of early features", "on top"): ("probe_early", "probe_top"),
                ("pretrained (LP-FT)", "scratch, 10 x the steps"): ("lp_ft", "scratch_10x"),
            }.items()
        },
        x_label="target data",
        y_label="to the source",
        scale_by=100,
    ),
    Heatmap(
        "accuracy_by_cell",
        "What each way to transfer reaches at its own learning rate",
        "% test accuracy",
        {
            "": {
                method: {
                    cell.replace("_", ", "): Contrast("test_accuracy", {f"{cell}_{method}": 1})
                    for cell in CELLS
                }
                for method in METHODS
            }
        },
        x_label="target data, and how much of it",
        scale_by=100,
        effects=False,
    ),
    Curves(
        "accuracy_by_rate",
        "What each way to transfer reaches, by learning rate",
        "learning rate, as a ratio to the pretraining's",
        {
            f"test accuracy ({cell.replace('_', ', ')} data)": [
                (method, f"{cell}_{method}", "test_accuracy_ratio") for method in SHOWN
            ]
            for cell in CELLS
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
)

import contextlib
import math

import keras
import numpy as np
import pytest

from callbacks import PeriodicSnapshots, SnapshotEnsemble
from lab import Fit, train
from lab.engines.fit import batch_order

pytestmark = pytest.mark.both_backends

STEPS = 5  # in an epoch
X, Y = np.eye(STEPS, dtype="float32"), np.zeros((STEPS, 1), "float32")
RNG = np.random.default_rng(0)
POINTS = RNG.standard_normal((20, 4)).astype("float32")
CLASSES = RNG.integers(0, 3, 20)


def output(y, p):
    return p


def huang(t, total, cycles, top, bottom=0.0):
    """The rate of step t = 1, ..., total, from the paper's formula in Python floats."""
    length = math.ceil(total / cycles)
    return bottom + (top - bottom) / 2 * (math.cos(math.pi * ((t - 1) % length) / length) + 1)


def close(rates, reference):
    assert len(rates) == len(reference)
    np.testing.assert_allclose(rates, reference, rtol=1e-6, atol=1e-12)


def linear(steps_per_execution=1):
    """A model whose weights show the rates: the step on example i takes the rate from weight i."""
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((STEPS,)), layer])
    sgd = keras.optimizers.SGD(0.7)
    model.compile(sgd, output, steps_per_execution=steps_per_execution)
    return model


class Rates(keras.callbacks.Callback):
    """Collects the rates of an epoch from the weights, which it then sets to zero."""

    def __init__(self, order=None):
        super().__init__()
        self.seen, self.order = [], order or (lambda epoch: np.arange(STEPS))

    def on_epoch_end(self, epoch, logs=None):
        kernel = self.model.layers[0].kernel
        self.seen += (-np.array(kernel)[self.order(epoch), 0]).tolist()
        kernel.assign(np.zeros(kernel.shape))


def fit_rates(model, *callbacks, **options):
    rates = Rates()
    options = {"batch_size": 1, "shuffle": False, "verbose": 0} | options
    history = model.fit(X, Y, callbacks=[*callbacks, rates], **options)
    return rates.seen, history.history


class Keep(keras.callbacks.Callback):
    """Keeps what the weights were after each epoch."""

    def on_train_begin(self, logs=None):
        self.kept = []

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append([np.asarray(w).copy() for w in self.model.weights])


def classifier(units=3, activation=None, loss=None, **layers):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(units, activation=activation),
        ]
    )
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    return model


def trained(model, y=CLASSES, cycles=2, epochs=4, **options):
    ensemble, keep = SnapshotEnsemble(cycles, 0.5, 0.01), Keep()
    options = {"batch_size": 5, "verbose": 0} | options
    model.fit(POINTS, y, epochs=epochs, callbacks=[ensemble, keep], **options)
    return ensemble, keep.kept


def given(model):
    """An ensemble of three members that nobody trained, and their weights."""
    ensemble = SnapshotEnsemble(3, 0.1)
    ensemble.set_model(model)
    ensemble.snapshots = [[scale * w for w in model.get_weights()] for scale in (0.5, 1.0, 2.0)]
    return ensemble, ensemble.snapshots


def outputs_of(model, kept):
    """What the model gives at each of some weights."""
    before, outputs = model.get_weights(), []
    for weights in kept:
        model.set_weights(weights)
        outputs.append(np.array(keras.tree.flatten(model(POINTS, training=False))[0], "float64"))
    model.set_weights(before)
    return outputs


def softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)


def state(model):
    return [np.asarray(v).copy() for v in [*model.variables, *model.optimizer.variables]]


def same(before, after):
    return all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("steps_per_execution", [1, 8])
@pytest.mark.parametrize("cycles, epochs", [(1, 2), (2, 6), (3, 3)])
def test_every_step_has_the_rate_of_the_formula(cycles, epochs, steps_per_execution):
    model, total = linear(steps_per_execution), epochs * STEPS
    seen, history = fit_rates(model, SnapshotEnsemble(cycles, 0.5, 0.01), epochs=epochs)
    reference = [huang(t, total, cycles, 0.5, 0.01) for t in range(1, total + 1)]
    assert reference.count(0.5) == cycles
    close(seen, reference)
    close(history["learning_rate"], reference[STEPS - 1 :: STEPS])
    assert isinstance(model.optimizer._learning_rate, keras.Variable)
    close(fit_rates(model)[0], [0.7] * STEPS)


def test_rates_near_zero_keep_their_digits():
    from callbacks.snapshots import _Restarts

    rate = _Restarts(None, offset=7, min_lr=0.0, max_lr=0.2, length=30_000)
    for t in (29_999, 30_000, 30_001, 60_000, 89_000):
        got = float(keras.ops.convert_to_numpy(rate(7 + t - 1)))
        assert got == pytest.approx(huang(t, 90_000, 3, 0.2), rel=1e-6)


@pytest.mark.parametrize("engine", ["plain", "fused", "stacked"])
def test_engines(engine):
    if engine == "stacked" and keras.backend.backend() != "jax":
        pytest.skip("the stacked engine needs JAX")
    tops, fits, rates = (0.1, 0.2, 0.5), [], []
    for i, top in enumerate(tops):
        rates.append(Rates(lambda epoch, i=i: batch_order(i, epoch, STEPS)))
        both = [SnapshotEnsemble(2, top), rates[i]]
        fits.append(Fit(linear(), (X, Y), batch_size=1, epochs=4, seed=i, callbacks=both))
    for _ in range(2):
        train(fits, engine=engine)
        for top, seen in zip(tops, rates, strict=True):
            close(seen.seen, [huang(t, 4 * STEPS, 2, top) for t in range(1, 4 * STEPS + 1)])
            seen.seen.clear()


@pytest.mark.parametrize("engine", ["fit", "fused"])
def test_snapshots_are_the_weights_at_the_end_of_each_cycle(engine):
    model, ensemble, keep = classifier(), SnapshotEnsemble(3, 0.5), Keep()
    for epochs in (6, 3):  # a fit is a run of its own
        if engine == "fit":
            model.fit(POINTS, CLASSES, epochs=epochs, verbose=0, callbacks=[keep, ensemble])
        else:
            train(
                Fit(
                    model,
                    (POINTS, CLASSES),
                    epochs=epochs,
                    batch_size=10,
                    callbacks=[keep, ensemble],
                )
            )
        assert len(keep.kept) == epochs and len(ensemble.snapshots) == 3
        assert not same(keep.kept[0], keep.kept[-1])
        ends = keep.kept[epochs // 3 - 1 :: epochs // 3]
        assert all(same(a, b) for a, b in zip(ends, ensemble.snapshots, strict=True))
    model.set_weights([w + 1 for w in model.get_weights()])
    assert same(keep.kept[-1], ensemble.snapshots[-1])


@pytest.mark.parametrize("engine", ["fit", "plain", "fused", "stacked"])
def test_plain_snapshots_are_the_weights_every_few_epochs_and_change_nothing_else(engine):
    if engine == "stacked" and keras.backend.backend() != "jax":
        pytest.skip("the stacked engine needs JAX")
    models, plain = [classifier() for _ in range(2)], PeriodicSnapshots(every=2)
    for epochs in (5, 4):  # a fit is a run of its own
        own = [[keep := Keep(), plain], [bare := Keep()]]
        for model, callbacks in zip(models, own, strict=True):
            if engine == "fit":
                options = {"batch_size": 10, "shuffle": False, "verbose": 0}
                model.fit(POINTS, CLASSES, epochs=epochs, callbacks=callbacks, **options)
            else:
                fit = Fit(model, (POINTS, CLASSES), 10, epochs, callbacks=callbacks, seed=0)
                train(fit, engine=engine)
        assert len(plain.snapshots) == 2 and len(keep.kept) == epochs
        assert not same(keep.kept[1], keep.kept[3])
        assert all(same(a, b) for a, b in zip(keep.kept[1::2], plain.snapshots, strict=True))
        assert all(same(a, b) for a, b in zip(keep.kept, bare.kept, strict=True))
        assert isinstance(models[0].optimizer._learning_rate, keras.Variable)
        assert float(np.array(models[0].optimizer.learning_rate)) == pytest.approx(0.1)


def test_plain_snapshots_are_members_as_those_of_cycles_are():
    model, plain, keep = classifier(), PeriodicSnapshots(3), Keep()
    for call in (lambda: plain.predict(POINTS), plain.members):
        with pytest.raises(ValueError, match=r"no snapshot yet.*Received: snapshots=\[\]"):
            call()
    model.fit(POINTS, CLASSES, epochs=7, verbose=0, callbacks=[plain, keep])
    before, seen = state(model), [member.get_weights() for member in plain.members()]
    assert len(seen) == 2 and all(same(a, b) for a, b in zip(keep.kept[2::3], seen, strict=True))
    each = [softmax(z) for z in outputs_of(model, keep.kept[2::3])]
    np.testing.assert_allclose(plain.predict(POINTS), np.mean(each, axis=0), rtol=1e-4)
    np.testing.assert_allclose(plain.predict(POINTS, last=1), each[-1], rtol=1e-4)
    assert same(before, state(model))
    model.fit(POINTS, CLASSES, epochs=7, initial_epoch=4, verbose=0, callbacks=[plain])
    assert len(plain.snapshots) == 1  # counted in the whole run


@pytest.mark.parametrize("every", [0, 1.5, None])
def test_a_wrong_number_of_epochs_between_snapshots(every):
    with pytest.raises(ValueError, match=f"`every` must be .*Received: every={every}"):
        PeriodicSnapshots(every)


def test_early_stopping_leaves_no_snapshot_of_the_last_cycle():
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 4

    model, ensemble = classifier(), SnapshotEnsemble(3, 0.5)
    model.fit(POINTS, CLASSES, epochs=6, verbose=0, callbacks=[ensemble, Stop()])
    assert len(ensemble.snapshots) == 2
    assert isinstance(model.optimizer._learning_rate, keras.Variable)


def test_initial_epoch_is_a_place_in_the_whole_run():
    reference = [huang(t, 6 * STEPS, 2, 0.5) for t in range(1, 6 * STEPS + 1)]
    model, ensemble = linear(), SnapshotEnsemble(2, 0.5)
    close(fit_rates(model, ensemble, epochs=6, initial_epoch=1)[0], reference[STEPS:])
    assert len(ensemble.snapshots) == 2
    close(fit_rates(model, ensemble, epochs=6, initial_epoch=4)[0], reference[4 * STEPS :])
    assert len(ensemble.snapshots) == 1


def test_saved_and_loaded_between_two_fits(tmp_path):
    model, ensemble = classifier(), SnapshotEnsemble(2, 0.5)
    model.fit(POINTS, CLASSES, epochs=2, verbose=0, callbacks=[ensemble])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert same(model.get_weights(), loaded.get_weights())
    assert same(map(np.array, model.optimizer.variables), map(np.array, loaded.optimizer.variables))
    assert float(np.array(loaded.optimizer.learning_rate)) == pytest.approx(0.1)
    first = ensemble.snapshots
    loaded.fit(POINTS, CLASSES, epochs=2, verbose=0, callbacks=[ensemble])
    assert len(ensemble.snapshots) == 2 and not same(first[0], ensemble.snapshots[0])
    assert ensemble.predict(POINTS).shape == (20, 3)


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_prediction_is_the_mean_of_the_members_softmax(activation):
    model = classifier(activation=activation)
    ensemble, kept = trained(model, cycles=4, epochs=4)
    each = outputs_of(model, kept)
    if activation is None:
        each = [softmax(z) for z in each]
    before = state(model)
    for last in (None, 1, 2, 4):
        got = ensemble.predict(POINTS, last=last, batch_size=7)
        np.testing.assert_allclose(got, np.mean(each[-(last or 4) :], axis=0), rtol=1e-4)
        np.testing.assert_allclose(got.sum(axis=-1), 1, rtol=1e-5)
        assert got.dtype == np.float32
    assert np.abs(each[0] - each[-1]).max() > 0.01
    assert same(before, state(model))


def test_what_outputs_are_is_told_by_the_last_layer_and_the_loss():
    losses = keras.losses
    sparse, dense = losses.SparseCategoricalCrossentropy, losses.CategoricalCrossentropy
    binary, own = losses.BinaryCrossentropy, output

    def identity(p):
        return p

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    for units, activation, loss, expected in [
        (3, None, sparse(from_logits=True), softmax),
        (3, None, dense(from_logits=True, label_smoothing=0.1), softmax),
        (3, None, {"out": sparse(from_logits=True)}, softmax),
        (3, "softmax", "sparse_categorical_crossentropy", identity),
        (3, "softmax", "crossentropy", identity),
        (3, "softmax", losses.categorical_crossentropy, identity),
        (3, "softmax", "mse", identity),
        (3, None, binary(from_logits=True), sigmoid),
        (3, "sigmoid", "binary_crossentropy", identity),
        (1, None, binary(from_logits=True), sigmoid),
        (1, "sigmoid", binary(), identity),
        (1, "sigmoid", "mse", identity),
        (1, "sigmoid", own, identity),
    ]:
        model = classifier(units, activation, loss if not isinstance(loss, dict) else None)
        if isinstance(loss, dict):
            model.layers[-1].name = "out"
            model = keras.Model(model.inputs[0], model.outputs[0])
            model.compile("sgd", loss)
        ensemble, kept = given(model)
        each = [expected(z) for z in outputs_of(model, kept)]
        np.testing.assert_allclose(ensemble.predict(POINTS), np.mean(each, axis=0), rtol=1e-4)


def test_models_of_other_kinds_that_end_in_a_softmax():
    inner = classifier(activation="softmax")
    x = keras.Input((4,))
    logits = classifier()(x)
    subclassed = type("Wrapped", (keras.Model,), {"call": lambda self, x: self.inner(x)})()
    subclassed.inner = inner
    subclassed.build((None, 4))
    for model, loss in [
        (keras.Model(x, inner(x)), "mse"),
        (keras.Sequential([keras.Input((4,)), inner]), "mse"),
        (keras.Model(x, keras.layers.Softmax()(logits)), "mse"),
        (keras.Model(x, [keras.layers.Softmax()(logits)]), "mse"),
        (keras.Model(x, keras.layers.Activation("softmax")(logits)), "mse"),
        (subclassed, "categorical_crossentropy"),
    ]:
        model.compile("sgd", loss)
        ensemble, kept = given(model)
        each = outputs_of(model, kept)
        np.testing.assert_allclose(ensemble.predict(POINTS), np.mean(each, axis=0), rtol=1e-4)


def test_half_precision_outputs():
    model = classifier()
    model.layers[-1].dtype_policy = "mixed_float16"
    ensemble, _ = trained(model)
    got = ensemble.predict(POINTS)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.sum(axis=-1), 1, rtol=1e-5)


def test_outputs_that_cannot_be_told():
    one_hot = np.eye(3)[CLASSES]
    model = classifier(loss="mse")
    ensemble, kept = trained(model, one_hot)
    before = state(model)
    with pytest.raises(ValueError, match=r"`from_logits` must be given.*Received: .*loss='mse'"):
        ensemble.predict(POINTS)
    expected = np.mean([softmax(z) for z in outputs_of(model, kept[1::2])], axis=0)
    np.testing.assert_allclose(ensemble.predict(POINTS, from_logits=True), expected, rtol=1e-4)

    # Logits that the loss takes for probabilities.
    for loss in ("categorical_crossentropy", "binary_crossentropy"):
        model.compile("sgd", loss)
        ensemble, _ = trained(model, one_hot, epochs=2)
        ensemble.snapshots[1] = [np.zeros(w.shape) for w in model.get_weights()]
        ensemble.snapshots[1][-1] += [5.0, 0.0, 0.0]  # the bias of the last layer
        model.set_weights(ensemble.snapshots[1])  # finite ones
        before = state(model)
        with pytest.raises(ValueError, match=r"must be probabilities.*Received: activation='lin"):
            ensemble.predict(POINTS, last=1)
        assert same(before[: len(model.variables)], state(model)[: len(model.variables)])

    x = keras.Input((4,))
    model = keras.Model(x, [keras.layers.Dense(3)(x), keras.layers.Dense(3)(x)])
    model.compile("sgd", "mse")
    ensemble, _ = trained(model, [one_hot, one_hot])
    with pytest.raises(ValueError, match=r"one output.*`members\(\)`.*Received: 2 outputs"):
        ensemble.predict(POINTS)


def test_diverged_members_predict_nan():
    model = classifier(activation="softmax")
    ensemble, _ = trained(model)
    ensemble.snapshots[0][0][:] = np.nan
    assert np.isnan(ensemble.predict(POINTS)).all()
    assert np.isfinite(ensemble.predict(POINTS, last=1)).all()


def test_members_visit_the_snapshots_and_give_the_weights_back():
    model = classifier()
    ensemble, kept = trained(model, cycles=4)
    model.set_weights([w + 1 for w in kept[-1]])
    before = state(model)
    for last in (None, 3):
        seen = []
        for member in ensemble.members(last):
            assert member is model
            seen.append([np.asarray(w).copy() for w in member.weights])
            member(POINTS, training=True)  # changes batch-norm statistics and seeds
        assert len(seen) == (last or 4)
        assert all(same(a, b) for a, b in zip(kept[-len(seen) :], seen, strict=True))
        assert same(before, state(model))

    for _ in ensemble.members():
        break
    assert same(before, state(model))

    with pytest.raises(RuntimeError, match="inside"):
        for _ in ensemble.members():
            assert not same(before, state(model))
            raise RuntimeError("inside")
    assert same(before, state(model))

    with contextlib.closing(ensemble.members()) as members:
        next(members)
        assert not same(before, state(model))
    assert same(before, state(model))

    ensemble.snapshots[1] = ensemble.snapshots[1][:-1]
    with pytest.raises(ValueError):
        ensemble.predict(POINTS)
    assert same(before, state(model))

    for member in ensemble.members(last=1):
        member.fit(POINTS, CLASSES, verbose=0)  # on JAX, donates what the weights are stored in
    assert same(before[: len(model.variables)], state(model)[: len(model.variables)])


def test_an_exception_in_a_prediction_gives_the_weights_back():
    model = classifier()
    ensemble, _ = trained(model)
    before = state(model)
    with pytest.raises(ValueError):
        ensemble.predict(POINTS[:, :3])
    assert same(before, state(model))


def test_data_sets_are_read_once_for_every_member():
    ensemble, _ = trained(classifier())

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, i):
            return (POINTS[5 * i : 5 * i + 5],)

    expected = ensemble.predict(POINTS)
    np.testing.assert_allclose(ensemble.predict(Batches()), expected, rtol=1e-5)
    with pytest.raises(ValueError, match=r"once for every member\. Received: x=<generator"):
        ensemble.predict((POINTS[i : i + 5],) for i in range(0, 20, 5))


def test_without_snapshots_or_with_too_few():
    ensemble = SnapshotEnsemble(2, 0.1)
    for call in (lambda: ensemble.predict(POINTS), ensemble.members):
        with pytest.raises(ValueError, match=r"no snapshot yet.*Received: snapshots=\[\]"):
            call()
    ensemble, _ = trained(classifier())
    for last in (3, 0, -1, 1.5):
        for call in (ensemble.members, lambda last: ensemble.predict(POINTS, last=last)):
            with pytest.raises(ValueError, match=f"`last` must be .*Received: last={last}"):
                call(last)


def test_cycles_that_do_not_end_with_an_epoch():
    model = classifier()
    for cycles, epochs, message in [
        (4, 6, "epochs=4 or 8 or cycles=3 or 6"),
        (5, 7, "epochs=5 or 10 or cycles=1 or 7"),
        (9, 6, "epochs=9 or cycles=6"),
    ]:
        ensemble = SnapshotEnsemble(cycles, 0.1)
        with pytest.raises(
            ValueError, match=rf"multiple of `cycles`.* {message}\. .*{epochs}, cycles={cycles}$"
        ):
            model.fit(POINTS, CLASSES, epochs=epochs, verbose=0, callbacks=[ensemble])
    assert int(model.optimizer.iterations) == 0

    def batches():
        while True:
            yield POINTS, CLASSES

    ensemble = SnapshotEnsemble(2, 0.1)
    with pytest.raises(ValueError, match=r"`steps_per_epoch` to `fit`. Received: steps=None"):
        model.fit(batches(), epochs=2, shuffle=False, verbose=0, callbacks=[ensemble])
    known = {"epochs": 2, "steps_per_epoch": 3, "shuffle": False, "verbose": 0}
    model.fit(batches(), callbacks=[ensemble], **known)
    assert len(ensemble.snapshots) == 2


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"cycles": 0}, "`cycles` must be .*Received: cycles=0"),
        ({"cycles": 1.5}, "`cycles` must be .*Received: cycles=1.5"),
        ({"min_lr": 0.2}, "`max_lr` must be .*Received: min_lr=0.2, max_lr=0.1"),
        ({"min_lr": -0.1}, "negative. Received: min_lr=-0.1"),
        ({"max_lr": math.inf}, "finite.*max_lr=inf"),
    ],
)
def test_wrong_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        SnapshotEnsemble(**{"cycles": 2, "max_lr": 0.1} | wrong)

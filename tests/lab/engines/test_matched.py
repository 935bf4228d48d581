"""What is measured at a training loss, against trainings that are stopped there one by one."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from callbacks import recalibrate_batchnorm
from lab.engines import matched as m
from lab.engines.fit import Fit
from lab.engines.training import train
from lab.engines.tune import tune
from models import mlp

EPOCHS = 6


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 5)).astype("float32")
    y = (x @ rng.normal(size=(5, 3)) + rng.normal(size=(160, 3))).argmax(-1)
    return SimpleNamespace(
        train=(x[:64], y[:64]), validation=(x[64:96], y[64:96]), test=(x[96:], y[96:])
    )


def fit(data, rate=0.3, epochs=EPOCHS, normalization="none"):
    model = mlp((5,), 3, widths=(16,), normalization=normalization)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return Fit(model, data.train, batch_size=16, epochs=epochs, seed=3)


def finish(asking):
    """Train what a generator asks for; returns what it returns."""
    answer = None
    while True:
        try:
            answer = train(asking.send(answer))
        except StopIteration as done:
            return done.value


def stopped_after(data, epochs, recalibrate):
    """Loss and gap of a training of so many epochs, by `model.evaluate`."""
    one = fit(data, epochs=max(epochs, 1), normalization="batch")
    if epochs:
        train(one)
    recalibrate(one.model)
    loss, accuracy = one.model.evaluate(*data.train, verbose=0)
    other_loss, other_accuracy = one.model.evaluate(*data.test, verbose=0)
    return loss, other_loss - loss, accuracy - other_accuracy


def test_it_is_what_trainings_stopped_at_each_epoch_say(data):
    def recalibrate(model):
        recalibrate_batchnorm(model, data.train[0])

    losses, loss_gaps, accuracy_gaps = zip(
        *(stopped_after(data, epochs, recalibrate) for epochs in range(EPOCHS + 1)), strict=True
    )
    assert list(losses) == sorted(losses, reverse=True)  # else there is no inverse to compare with
    one = fit(data, normalization="batch")
    kept = m.keep_weights(one)
    train(one)
    targets = [(losses[i] + 3 * losses[i + 1]) / 4 for i in (0, 2, EPOCHS - 1)]
    seen = m.matched(one.model, kept, data, [*targets, targets[0], 1e-6], prepare=recalibrate)
    assert seen.at[1e-6] is None and len(seen.at) == 4
    for metric, values in (("loss_gap", loss_gaps), ("accuracy_gap", accuracy_gaps)):
        naive = np.interp([-t for t in targets], [-loss for loss in losses], values)
        reached, found = seen.curve(metric)
        assert reached == targets
        np.testing.assert_allclose(found, naive, atol=1e-4)
        assert seen.end[metric] == pytest.approx(values[-1], abs=1e-4)
    for i, target in zip((0, 2, EPOCHS - 1), targets, strict=True):
        assert seen.at[target]["train_loss"] == pytest.approx(target, rel=1e-4)
        assert seen.at[target]["bracket"] == pytest.approx(losses[i] / losses[i + 1], rel=1e-3)


def test_statistics_are_those_of_the_weights_that_are_measured(data):
    """Trap 2: those that training left lag behind, and say another loss."""
    one = fit(data, normalization="batch")
    kept = m.keep_weights(one)
    train(one)
    stale, fresh = (
        m.matched(one.model, kept, data, [0.5], prepare=prepare)
        for prepare in (lambda _: None, lambda model: recalibrate_batchnorm(model, data.train[0]))
    )
    assert abs(stale.end["train_loss"] - fresh.end["train_loss"]) > 1e-3


def course(losses):
    """A model whose weights are its loss, and weights kept at these losses."""
    model = SimpleNamespace(loss=None)
    model.set_weights = lambda weights: setattr(model, "loss", weights[0])
    return model, [[loss] for loss in losses]


def test_it_measures_at_the_end_and_around_targets_alone(monkeypatch):
    model, kept = course([2.0, 1.0, 0.5, 0.2, 0.1])
    monkeypatch.setattr(m, "evaluate", lambda model, part: {"loss": model.loss})
    measured = []

    def measure(model, data):
        measured.append(model.loss)
        return {"loss": model.loss}

    seen = m.matched(model, kept, SimpleNamespace(train=None), [0.4, 0.3], measure=measure)
    assert measured == [0.5, 0.2, 0.1]
    assert seen.at[0.4]["loss"] == pytest.approx(0.4) and seen.end == {"loss": 0.1}


def test_a_target_above_the_first_loss_is_met_after_the_first_epoch(monkeypatch):
    model, kept = course([2.0, 1.0, 0.5])
    monkeypatch.setattr(m, "evaluate", lambda model, part: {"loss": model.loss})
    data = SimpleNamespace(train=None)
    seen = m.matched(model, kept, data, [3.0], measure=lambda model, _: {"loss": model.loss})
    assert seen.at[3.0] == {"loss": 1.0, "bracket": 2.0}


def seen(loss):
    """Metrics of a training whose gap depends on the training loss alone."""
    return {"train_loss": loss, "accuracy_gap": 0.3 - 0.2 * loss}


def test_gaps_are_compared_at_one_training_loss():
    """Trap 9: an arm that trains in larger steps would be met further on."""
    fast, slow = [2.0, 0.4, 0.02], [2.0, 1.0, 0.4, 0.3, 0.12, 0.08, 0.05]
    found = [m.at_loss(one, lambda i, one=one: seen(one[i]), 0.1) for one in (fast, slow)]
    for one in found:
        assert one["train_loss"] == pytest.approx(0.1)
        assert one["accuracy_gap"] == pytest.approx(0.28)
    assert found[0]["bracket"] == pytest.approx(20) and found[1]["bracket"] == pytest.approx(1.5)
    first_below = [next(seen(x)["accuracy_gap"] for x in one if x <= 0.1) for one in (fast, slow)]
    assert first_below[0] != pytest.approx(first_below[1])


def test_the_first_time_counts_even_if_the_loss_rises_again():
    losses = [2.0, 0.2, 1.5, 0.1]
    assert m.at_loss(losses, lambda i: {"at": float(i)}, 0.2)["at"] == 1


def test_a_target_that_was_not_reached_is_told():
    assert m.at_loss([2.0, 0.5, 0.2], None, 0.1) is None
    assert m.at_loss([2.0, np.nan], None, 0.1) is None
    told = m.Matched({0.1: None, 1.0: {"gap": 0.5, "bracket": 2.0}}, {"gap": 0.3})
    assert told.metrics(0.1) == {"gap": 0.3, "reached": False, "matched_gap": 0.3}
    assert told.metrics(1.0) == {
        "gap": 0.3,
        "reached": True,
        "matched_gap": 0.5,
        "matched_bracket": 2.0,
    }


def test_a_rate_that_gets_nowhere_is_not_chosen_for_what_validation_says(data, monkeypatch):
    """Trap 5: its gap is small for having trained less."""
    real = m.evaluate

    def contrary(model, part):
        found = real(model, part)
        return found | {"accuracy": found["loss"]}

    monkeypatch.setattr(m, "evaluate", contrary)
    for target, chosen in ((0.8, 0.3), (100.0, 1e-6)):  # to the second all come down
        score = m.reaching(target, data)
        best = finish(tune(lambda rate: fit(data, rate), (1e-6, 0.3), data.validation, score))
        assert best.choice == chosen


def test_choosing_reads_no_test_data(data):
    blind = SimpleNamespace(train=data.train, validation=data.validation)
    assert m.reaching(100.0, blind)(fit(data))[0]


def test_what_is_repeated_is_the_chosen_training(data):
    def make(rate):
        one = fit(data, rate)
        one.seed = int(100 * rate)  # as a trial gives every training a batch order of its own
        return one

    best = finish(tune(make, (0.1, 0.3), data.validation))
    again, kept, history = finish(m.repeated(best, lambda rate: fit(data, rate)))
    assert len(kept) == EPOCHS + 1 and again is not best.fit
    assert history.history["loss"] == pytest.approx(best.history.history["loss"], rel=1e-4)
    ends = zip(kept[-1], best.fit.model.get_weights(), again.model.get_weights(), strict=True)
    for one, first, last in ends:
        np.testing.assert_allclose(one, first, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(one, last)
    start = make(best.choice).model.get_weights()
    assert all(map(np.array_equal, kept[0], start)) and len(kept[0]) == len(start)

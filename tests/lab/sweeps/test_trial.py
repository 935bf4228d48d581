"""A trial asks for trainings, and its rows depend on its seed alone."""

import numpy as np
import pytest

from lab.claims.vocabulary import Experiment, Setting
from lab.engines.fit import Fit
from lab.sweeps import trial as trial_module
from lab.sweeps.trial import Diverged, Trial, execute

SETTING = Setting("quick", "digits", "mlp", "tensorflow")


class History:
    def __init__(self, loss):
        self.history = {"loss": list(loss)}


def make(seed=0, **scale):
    experiment = Experiment(
        title="t",
        source="s",
        arms={"a": {"rate": 0.1}},
        scales={"quick": {"seeds": 1, "train_size": 200, **scale}},
        claims=[],
        run=lambda trial: None,
    )
    return Trial("toy", experiment, "a", seed, SETTING)


@pytest.fixture
def trained(monkeypatch):
    """Replaces training by writing down what was asked."""
    asked = []

    def train(fits, engine):
        asked.append(fits)
        return [History(getattr(fit, "losses", [1.0, 0.5])) for fit in fits]

    monkeypatch.setattr(trial_module, "train", train)
    return asked


def fit(**more):
    return Fit(None, (np.zeros((4, 1)), np.zeros(4)), 4, **more)


def test_a_yield_is_answered_by_a_history_and_a_list_by_a_list(trained):
    answers = []

    def run(trial):
        answers.append((yield fit()))
        answers.append((yield [fit(), fit()]))

    execute(make(), run)
    assert answers[0].history["loss"] == [1.0, 0.5]
    assert len(answers[1]) == 2 and [len(fits) for fits in trained] == [1, 2]


def test_a_trial_knows_how_many_examples_it_asked_for():
    trial = make(validation_size=100)
    trial.data()
    trial.data("mnist1d", test_size=50)
    digits, mnist1d = trial.examples
    assert digits == {"data": "digits", "train": 200, "validation": 100, "test": 500}
    assert mnist1d["data"] == "mnist1d" and mnist1d["test"] == 50
    trial.check_test_unread()


def test_each_fit_gets_a_seed_of_its_own_that_depends_on_the_trial_alone(trained):
    def run(trial):
        yield fit()
        yield [fit(), fit(seed=5)]

    execute(make(seed=1), run)
    execute(make(seed=1), run)
    execute(make(seed=2), run)
    seeds = [f.seed for fits in trained for f in fits]
    assert seeds[:3] == seeds[3:6] and seeds[2] == seeds[8] == 5
    assert len({seeds[0], seeds[1], seeds[6], seeds[7]}) == 4


def test_a_loss_that_is_not_finite_ends_the_trial_as_diverged(trained):
    def run(trial):
        trial.record(before=1.0)
        bad = fit()
        bad.losses = [1.0, float("inf")]
        yield bad
        trial.record(after=1.0)

    trial = make()
    with pytest.raises(Diverged, match="inf in epoch 2"):
        execute(trial, run)
    assert trial.rows == [(None, "before", 1.0)]


def test_a_fit_that_may_diverge_is_an_answer(trained):
    def run(trial):
        bad = fit(may_diverge=True)
        bad.losses = [float("nan")]
        history = yield bad
        trial.record(loss=history.history["loss"][-1])

    trial = make()
    execute(trial, run)
    assert np.isnan(trial.rows[0][2])


def test_training_after_reading_test_data_is_refused(trained):
    def run(trial):
        data = trial.data(validation_size=50, test_size=50)
        assert len(data.test.x) == 50
        yield fit()

    with pytest.raises(RuntimeError, match=r"data\.test"):
        execute(make(), run)
    assert trained == []


def test_yielding_something_else_is_a_type_error(trained):
    def run(trial):
        yield "train, please"

    with pytest.raises(TypeError, match="train, please"):
        execute(make(), run)


def test_data_take_their_sizes_from_the_scale():
    trial = make(seed=4)
    data = trial.data(validation_size=97)
    assert len(data.train.x) == 200 and len(data.validation.x) == 97
    again = make(seed=4).data(validation_size=97)
    other = make(seed=5).data(validation_size=97)
    assert np.array_equal(data.train.x, again.train.x)
    assert not np.array_equal(data.train.x, other.train.x)


def test_records_are_rows():
    trial = make()
    trial.record(loss=np.float32(0.5), accuracy=1)
    trial.record({"sharpness/trace": 2.0}, epoch=3)
    trial.record_curve("loss", [-0.5, 1e-3], [1.0, 2.0])
    assert trial.rows == [
        (None, "loss", 0.5),
        (None, "accuracy", 1.0),
        (3, "sharpness/trace", 2.0),
        (None, "loss@-0.5", 1.0),
        (None, "loss@0.001", 2.0),
    ]


@pytest.mark.parametrize("name", ["", "=HYPERLINK(1)", "a,b", "a b", "a\nb", "x@y"])
def test_metric_names_that_could_hurt_are_refused(name):
    with pytest.raises(ValueError, match="metric name"):
        make().record({name: 1.0})


def test_a_metric_is_recorded_once_and_is_one_number():
    trial = make()
    trial.record(loss=1.0)
    trial.record(epoch=1, loss=1.0)
    with pytest.raises(ValueError, match="twice"):
        trial.record(loss=2.0)
    with pytest.raises(TypeError, match="one number"):
        trial.record(losses=[1.0, 2.0])


def test_a_long_history_is_thinned_but_keeps_both_ends():
    trial = make()
    history = History(np.arange(1000.0))
    trial.record_history(history, most=40)
    epochs = [row[0] for row in trial.rows]
    assert len(epochs) == 40 and epochs[0] == 1 and epochs[-1] == 1000
    assert all(value == epoch - 1 for epoch, _, value in trial.rows)
    assert max(np.diff(epochs)) <= 27


def test_generators_differ_by_purpose_and_repeat():
    draw = [make().rng(p).integers(2**62) for p in ("noise", "noise", "order")]
    assert draw[0] == draw[1] != draw[2]

"""Stacked fits share a program and nothing else."""

import json
import os
import random

import keras
import numpy as np
import pytest

from lab.claims.vocabulary import Experiment, Setting
from lab.engines import program, saying, stacked
from lab.engines.fit import Fit
from lab.engines.training import train, train_each
from lab.sweeps import trial as trial_module
from lab.sweeps.trial import Diverged, Trial, execute_together
from lab.sweeps.worker import Surroundings

pytestmark = [
    pytest.mark.both_backends,
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="stacking needs JAX"),
]
WAYS = ("map", "vmap")  # a CPU's and an accelerator's


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    monkeypatch.setattr(program, "way", lambda: request.param)
    return request.param


@pytest.fixture
def sizes(monkeypatch):
    """The number of members of every stack that is made."""
    seen = []

    class Stack(stacked._Stack):
        def __init__(self, members):
            seen.append(len(members))
            super().__init__(members)

    monkeypatch.setattr(stacked, "_Stack", Stack)
    return seen


def examples(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 5)).astype("float32"), rng.integers(0, 3, n).astype("int32")


def scaled_loss(factor):
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(y, predicted):
        return keras.ops.max(factor) * entropy(y, predicted)

    return loss


def fit(k, rate=0.1, width=8, factor=1.0, data=None, **more):
    """A fit whose weights, dropout, order and data are those of number `k`."""
    init = keras.initializers.HeNormal
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(width, "relu", kernel_initializer=init(k)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2, seed=k),
            keras.layers.Dense(3, kernel_initializer=init(k + 50)),
        ]
    )
    rate = keras.optimizers.SGD(rate, momentum=0.9)
    model.compile(rate, scaled_loss(factor), metrics=["accuracy"])
    asked = {"batch_size": 16, "epochs": 3, "seed": k} | more
    return Fit(model, data or examples(seed=k), **asked)


def weights(fit):
    return [np.asarray(w) for w in fit.model.weights]


def assert_same(a, b, exactly=True):
    (fit_a, history_a), (fit_b, history_b) = a, b
    tolerance = {"rtol": 0, "atol": 0} if exactly else {"rtol": 2e-4, "atol": 1e-5}
    assert list(history_a.history) == list(history_b.history)
    for name, values in history_a.history.items():
        np.testing.assert_allclose(values, history_b.history[name], **tolerance)
    for x, y in zip(weights(fit_a), weights(fit_b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


def alone(k, **more):
    asked = fit(k, **more)
    return asked, train(asked, "stacked")


def test_what_differs_only_in_numbers_shares_a_stack(sizes):
    cosine = keras.optimizers.schedules.CosineDecay
    asked = [fit(0), fit(1, rate=0.02), fit(2, rate=cosine(0.1, 9)), fit(3, rate=cosine(0.3, 9))]
    asked += [fit(4, width=4), fit(5, batch_size=8), fit(6, epochs=2), fit(7, data=examples(39))]
    train([*asked, fit(8)], "stacked")
    assert sorted(sizes) == [1, 1, 1, 1, 2, 3]


@pytest.mark.parametrize("shape", [(), (4,)], ids=["number", "array"])
def test_losses_of_one_name_that_compute_different_things_do_not_share_a_stack(sizes, shape):
    """A configuration says `loss` for both; the program tells them apart."""
    asked = [fit(0, factor=np.full(shape, factor, "float32")) for factor in (1, 3)]
    first, second = train(asked, "stacked")
    assert sizes == [1, 1]
    ratio = second.history["loss"][0] / first.history["loss"][0]
    assert ratio > 2


def test_programs_are_compiled_once_for_all_stacks_of_a_shape(monkeypatch):
    monkeypatch.setattr(program, "_programs", {})
    train([fit(0), fit(1)], "stacked")
    train([fit(2), fit(3)], "stacked")
    (compiled,) = program._programs.values()
    assert compiled._cache_size() == 1


def test_results_do_not_depend_on_the_company(way):
    validation = examples(20, 9)
    for company in ([0, 1], [1, 2, 3, 4, 5]):
        asked = [fit(k, validation=validation) for k in company]
        histories = train(asked, "stacked")
        place = company.index(1)
        together = (asked[place], histories[place])
        # To the bit where members run one after the other; else to the rounding of larger sums.
        assert_same(together, alone(1, validation=validation), exactly=way == "map")


def test_a_nan_stays_where_it_arose(way):
    asked = [fit(0), fit(1, rate=1e30, may_diverge=True), fit(2)]
    histories = train(asked, "stacked")
    assert not np.isfinite(histories[1].history["loss"][-1])
    for k in (0, 2):
        assert_same((asked[k], histories[k]), alone(k), exactly=way == "map")


class Stop(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.after


@pytest.mark.parametrize("stopping", [(1,), (0, 1, 2)], ids=["one", "most"])
def test_one_that_stops_is_left_as_it_was_and_the_others_go_on(way, stopping):
    def asked():
        return [
            fit(k, epochs=5, callbacks=[Stop(k)] if k in stopping else [], validation=examples(9))
            for k in range(4)
        ]

    both = []
    for engine in ("fused", "stacked"):
        fits = asked()
        both.append(list(zip(fits, train(fits, engine), strict=True)))
    for k, (a, b) in enumerate(zip(*both, strict=True)):
        assert len(b[1].history["loss"]) == (k + 1 if k in stopping else 5)
        assert_same(a, b, exactly=False)


class Log(keras.callbacks.Callback):
    """Remembers its calls, and disturbs its own model's weights."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("begin", epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("end", epoch, logs["loss"]))
        self.model.layers[0].kernel.assign(self.model.layers[0].kernel * 0.9)


def exhausted(monkeypatch, most):
    """Makes programs fail for more than `most` members, in the second epoch and after."""
    import jax

    real, calls = stacked.compiled, []

    def compiled(*arguments):
        program = real(*arguments)

        def limited(state, *rest):
            calls.append(len(state[0][0]))
            if len(calls) > 1 and calls[-1] > most:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            return program(state, *rest)

        return limited

    monkeypatch.setattr(stacked, "compiled", compiled)
    return calls


def test_running_out_of_memory_halves_the_stack_and_goes_on(monkeypatch, caplog):
    expected = [alone(k, callbacks=[Log()], validation=examples(9)) for k in range(5)]
    sizes = exhausted(monkeypatch, most=2)
    asked = [fit(k, callbacks=[Log()], validation=examples(9)) for k in range(5)]
    with caplog.at_level("WARNING", "lab.engines.stacked"):
        histories = train(asked, "stacked")
    assert sizes[:2] == [5, 5] and sizes[-1] == 2 and 3 in sizes
    assert "Out of memory with 5 models in a stack: going on with 2" in caplog.text
    for own, history, reference in zip(asked, histories, expected, strict=True):
        assert_same((own, history), reference)
        assert own.callbacks[0].calls == reference[0].callbacks[0].calls


def test_one_model_that_does_not_fit_fails_with_what_xla_said(monkeypatch):
    exhausted(monkeypatch, most=0)
    results = train_each([fit(0), fit(1)], "stacked")
    assert all("RESOURCE_EXHAUSTED" in str(result) for result in results)


class EveryBatch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


def test_what_cannot_be_stacked_falls_back_and_says_so_once(caplog):
    saying.say_once.cache_clear()
    with caplog.at_level("WARNING", "lab"):
        for _ in range(2):
            train([fit(0, callbacks=[EveryBatch()]), fit(1)], "stacked")
            twice = fit(2)
            train([twice, Fit(twice.model, twice.data, 16, 3, seed=5)], "stacked")
    assert caplog.text.count("shares variables") == 1
    assert caplog.text.count("EveryBatch overrides") == 1
    one_by_one = fit(2)
    train(one_by_one, "stacked")
    train(Fit(one_by_one.model, one_by_one.data, 16, 3, seed=5), "fused")
    for a, b in zip(weights(twice), weights(one_by_one), strict=True):
        np.testing.assert_array_equal(a, b)


def test_convolutions_are_stacked_on_an_accelerator_alone(way, sizes, caplog):
    """In a loop of XLA's on a CPU a small convnet took 5.8 s a step instead of 0.2 s."""
    saying.say_once.cache_clear()
    asked = []
    for _ in range(2):
        layers = [keras.Input((5, 1)), keras.layers.Conv1D(2, 3), keras.layers.Flatten()]
        model = keras.Sequential([*layers, keras.layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        x, y = examples()
        asked.append(Fit(model, (x[..., None], y), 16, 1))
    with caplog.at_level("WARNING", "lab.engines.stacked"):
        histories = train(asked, "stacked")
    assert all(np.isfinite(history.history["loss"][0]) for history in histories)
    assert sizes == ([] if way == "map" else [2])
    assert caplog.text.count("slow path") == (1 if way == "map" else 0)


class Unruly(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise LookupError("no such thing")


class Freezer(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.layers[0].trainable = False


def test_a_callback_that_fails_ends_its_own_fit_alone():
    asked = [fit(0, callbacks=[Unruly()]), fit(1), fit(2, callbacks=[Freezer()])]
    failed, history, frozen = train_each(asked, "stacked")
    assert isinstance(failed, LookupError)
    assert isinstance(frozen, ValueError)
    with pytest.raises(ValueError, match="shape"):
        train(fit(2, callbacks=[Freezer()]), "plain")
    assert_same((asked[1], history), alone(1))
    with pytest.raises(LookupError, match="no such thing"):
        train([fit(0, callbacks=[Unruly()]), fit(1)], "stacked")


def test_another_backend_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match=r"needs the JAX backend.*Received: engine='stacked'"):
        train([fit(0)], "stacked")


def trials(count):
    experiment = Experiment(
        title="t", source="s", arms={"a": {}}, scales={"quick": {"seeds": 1}}, claims=[], run=print
    )
    setting = Setting("quick", "digits", "mlp", "jax")
    return [Trial("toy", experiment, "a", seed, setting) for seed in range(count)]


def run(trial):
    """Seed 1 diverges, 2 ends early, 3 raises, 4 asks for nonsense; the others train twice."""
    history = yield fit(trial.seed, rate=1e30 if trial.seed == 1 else 0.1, seed=None)
    trial.record(first=history.history["loss"][-1])
    if trial.seed == 2:
        return
    if trial.seed == 3:
        raise LookupError("seed 3")
    if trial.seed == 4:
        yield "train, please"
    histories = yield [fit(trial.seed + 10, seed=None), fit(trial.seed + 20, rate=0.02, seed=None)]
    trial.record({f"loss{i}": h.history["loss"][-1] for i, h in enumerate(histories)})


def test_trials_advance_together_and_end_by_themselves(sizes):
    together = trials(6)
    endings = execute_together(together, run)
    kinds = [type(None), Diverged, type(None), LookupError, TypeError, type(None)]
    assert [type(ending) for ending in endings] == kinds
    assert sizes == [6, 4]  # the second round: two lists of two, of one architecture
    for trial in trials(6):
        execute_together([trial], run)
        assert trial.rows == together[trial.seed].rows
    assert len(together[5].rows) == 3


def test_a_trial_draws_from_global_generators_as_if_it_were_alone():
    def run(trial):
        for turn in (1, 2):
            metric = keras.metrics.AUC()
            drawn = float(keras.random.uniform(()))  # from the global generator of Keras
            values = {"py": random.random(), "np": np.random.random(), metric.name: drawn}
            trial.record(values, epoch=turn)
            yield []

    def rows(count):
        made = trials(count)
        assert execute_together(made, run, "stacked", [Surroundings(t.seed) for t in made]) == (
            [None] * count
        )
        return [trial.rows for trial in made]

    together = rows(3)
    assert together[0] == rows(1)[0]
    assert together[0] != together[1]
    assert [row[1] for row in together[2]] == ["py", "np", "auc", "py", "np", "auc_1"]


def test_trials_that_train_nothing_are_plain_functions():
    made = trials(2)
    assert execute_together(made, lambda trial: trial.record(a=trial.seed)) == [None, None]
    assert made[1].rows == [(None, "a", 1.0)]
    assert trial_module.train_each([], "stacked") == []


def test_stacked_on_tensorflow_is_one_sentence_and_exit_2(project):
    refused = project.run("toy", "--engine", "stacked", "--backend", "tensorflow")
    assert refused.returncode == 2
    assert refused.stderr == "ENGINE=stacked needs BACKEND=jax. Received: BACKEND=tensorflow.\n"
    assert not project.results.exists()


SWEPT = '''
"""Trains a little; one arm's seed 1 raises, another kills its worker."""
import os
from lab import Claim, Contrast, Experiment, Fit

ARMS = {name: {"does": name} for name in ("well", "raises", "dies")}
SCALES = {"smoke": {"seeds": 3, "train_size": 96, "validation_size": 32}}

def run(trial):
    import keras
    data = trial.data()
    model = trial.model(data, dropout=0.2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 12)
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9), loss, metrics=["accuracy"])
    history = yield Fit(model, data.train, 16, 2, validation=data.validation)
    if trial.seed == 1 and trial.arm["does"] == "raises":
        raise LookupError("seed 1")
    if trial.seed == 1 and trial.arm["does"] == "dies":
        os._exit(3)
    trial.record_history(history)
    trial.record(score=history.history["loss"][-1])

CLAIMS = [Claim(id="A1", says="s", contrast=Contrast("score", {"well": 1, "raises": -1}),
                margin=0.5, unit="score", literature="none")]
EXPERIMENT = Experiment(title="t", source="none", arms=ARMS, scales=SCALES, claims=CLAIMS,
                        run=run, model="mlp")
'''


@pytest.mark.slow
def test_a_stacked_sweep_writes_the_rows_of_a_fused_one(project):
    project.experiment("swept", SWEPT)
    rows = {}
    for engine in ("fused", "stacked"):
        words = ("--backend", "jax", "--engine", engine, "--results", engine)
        done = project.run("swept", *words, timeout=300)
        assert done.returncode == 1, done.stderr
        folder = project.folder / engine / "swept"
        rows[engine] = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("seed-*.csv")}
    kept = {(path.parent.name, path.stem) for path in rows["stacked"]}
    well = {("well", f"seed-{k}") for k in range(3)}
    others = {(arm, f"seed-{k}") for arm in ("raises", "dies") for k in (0, 2)}
    assert kept == well | others  # those that died with another are tried again by themselves
    assert {p: rows["fused"][p] for p in rows["stacked"]} == rows["stacked"]
    assert "dies, seed 1: The worker process ended with exit status 3" in done.stdout
    assert "raises, seed 1: LookupError: seed 1" in done.stdout
    manifest = json.loads(next(folder.rglob(os.path.join("well", "seed-0.json"))).read_text())
    assert manifest["engine"] == "stacked" and manifest["seconds"] > 0
    assert manifest["processor"] and manifest["examples"][0]["train"] > 0

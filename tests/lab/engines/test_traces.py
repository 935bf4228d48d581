"""What was traced for one model serves those that are alike, and changes no result."""

import gc
import itertools

import keras
import numpy as np
import pytest

from callbacks import CyclicLR, SnapshotEnsemble
from lab.engines.fit import Fit
from lab.engines.training import train

if keras.backend.backend() != "tensorflow":
    pytest.skip("the traces are of the TensorFlow engine", allow_module_level=True)

from lab.engines import on_tensorflow, traces

SGD, Schedules = keras.optimizers.SGD, keras.optimizers.schedules


@pytest.fixture
def traced(monkeypatch):
    """The models whose steps were traced, in order."""
    seen = []
    make = traces.Trace.__init__
    monkeypatch.setattr(
        traces.Trace,
        "__init__",
        lambda self, model, *a: seen.append(model) or make(self, model, *a),
    )
    monkeypatch.setattr(traces, "_traces", {})
    return seen


def examples(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 4)).astype("float32"), rng.integers(0, 3, n).astype("int32")


def network(seed=0, rate=0.1, loss=None, optimizer=SGD, layers=(), width=8):
    inputs = keras.Input((4,))
    x = keras.layers.Dense(width, kernel_initializer=keras.initializers.HeNormal(seed))(inputs)
    for layer in (*layers, keras.layers.Activation("relu"), keras.layers.Dense(3)):
        x = layer(x)
    model = keras.Model(inputs, x)
    model.layers[-1].kernel.assign(np.random.default_rng(seed).normal(size=(width, 3)))
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(rate), loss, metrics=["accuracy"])
    return model


def run(model, **more):
    asked = {"batch_size": 16, "epochs": 3, "validation": examples(20, 1), "seed": 3} | more
    return train(Fit(model, examples(), **asked)).history


def own(monkeypatch, model, **more):
    """The history of a trace of its own."""
    with monkeypatch.context() as without:
        without.setattr(traces, "_described", lambda *_: None)
        return run(model, **more)


def assert_equal(a, b):
    for x, y in zip(a.variables, b.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def cosine(rate):
    return SGD(Schedules.CosineDecay(rate, 9, warmup_target=2 * rate, warmup_steps=2), 0.9)


LAYERS = {
    "plain": lambda: (),
    "batch norm": lambda: [keras.layers.BatchNormalization()],
    "dropout": lambda: [keras.layers.Dropout(0.3, seed=5)],
}


@pytest.mark.parametrize(
    ("layers", "optimizer"),
    [
        ("batch norm", cosine),
        ("dropout", SGD),
        *[
            pytest.param(layers, optimizer, marks=pytest.mark.slow)
            for layers, optimizer in itertools.product(LAYERS, [SGD, keras.optimizers.Adam, cosine])
        ],
    ],
)
def test_models_that_differ_in_numbers_share_one_trace_to_the_bit(
    layers, optimizer, traced, monkeypatch
):
    for seed, rate in enumerate((0.1, 0.02)):
        model, twin = (
            network(seed, rate, optimizer=optimizer, layers=LAYERS[layers]()) for _ in range(2)
        )
        assert own(monkeypatch, model) == run(twin)
        gc.collect()  # a trace must not need the model that it was made for
        assert_equal(model, twin)
        assert_equal(model.optimizer, twin.optimizer)
        assert model.get_metrics_result() == twin.get_metrics_result()
    assert len(traces._traces) == 2  # to train and to test
    assert len(traced) == 2 * 2 + 2  # those of `own`, and the first that was shared


@pytest.mark.parametrize(
    "make",
    [
        lambda top: CyclicLR(top / 10, top, step_size=3),
        lambda top: SnapshotEnsemble(cycles=1, max_lr=top),
    ],
)
def test_the_rates_that_a_callback_lends_share_one_trace_to_the_bit(make, traced, monkeypatch):
    for seed, top in enumerate((0.1, 0.02)):
        model, twin = network(seed), network(seed)
        assert own(monkeypatch, model, callbacks=[make(top)]) == run(twin, callbacks=[make(top)])
        assert_equal(model, twin)
    assert len(traces._traces) == 2  # to train and to test


def test_what_computes_something_else_has_a_trace_of_its_own(traced):
    class Doubled(keras.losses.SparseCategoricalCrossentropy):
        """Not registered, so its configuration is no promise."""

        def call(self, *arguments):
            return 2 * super().call(*arguments)

    frozen = network()
    frozen.layers[1].trainable = False
    frozen.compile(SGD(0.1), frozen.loss, metrics=["accuracy"])
    plain = run(network())["loss"]
    for other in (
        network(width=9),
        network(optimizer=lambda rate: SGD(rate, momentum=0.5)),
        network(layers=[keras.layers.Activation("tanh")]),
        network(loss=Doubled(from_logits=True)),
        frozen,
    ):
        assert run(other)["loss"] != plain
    assert run(network())["loss"] == plain
    assert len({id(model) for model in traced}) == 6


def test_a_replaced_method_and_a_class_of_ones_own_are_trained_themselves(traced):
    class Mine(keras.Model):
        pass

    asked = network()
    mine = Mine(asked.inputs[0], asked.outputs[0])
    mine.compile(SGD(0.1), asked.loss)
    altered = network()
    apply = altered.optimizer.apply
    altered.optimizer.apply = lambda *arguments: apply(*arguments)
    for model in (mine, altered):
        run(model)
        assert traced[-1] is model


def test_with_callbacks_a_trace_is_shared_too(traced):
    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.seen = np.asarray(self.model.layers[1].kernel)

    for seed in (1, 2):
        model, watch = network(seed), Watch()
        run(model, callbacks=[watch])
        np.testing.assert_array_equal(watch.seen, np.asarray(model.layers[1].kernel))
    assert len(traced) == 2


def test_a_model_keeps_what_it_has_when_one_like_it_trains_on(traced):
    model = network(1)
    run(model)
    kernel = np.asarray(model.layers[1].kernel).copy()
    run(network(2))
    assert {id(one) for one in traced} == {id(model)}
    np.testing.assert_array_equal(np.asarray(model.layers[1].kernel), kernel)


def test_sharing_a_trace_draws_nothing_and_names_nothing(traced):
    def after(model):
        keras.utils.set_random_seed(1)
        before = keras.layers.Dense(1).name
        run(model)
        late = keras.layers.Dense(2)
        late.build((None, 4))
        return before, late.name.split("_")[0], np.asarray(late.kernel)

    first = after(network())  # is traced
    second = after(network())  # uses its trace
    np.testing.assert_array_equal(first[2], second[2])


def test_the_number_of_traces_is_bounded(traced, monkeypatch):
    monkeypatch.setattr(traces, "MOST_TRACES", 2)
    for width in (5, 6, 7):
        run(network(width=width), epochs=1, validation=None)
    assert len(traces._traces) == 2


XLA = {
    "dense, long": (network, {"epochs": 2000}, True),
    "dense, short": (network, {}, False),
    "asked for": (network, {"jit_compile": True}, True),
    "refused": (network, {"epochs": 2000, "jit_compile": False}, False),
    "dropout": (lambda: network(layers=[keras.layers.Dropout(0.5)]), {"epochs": 2000}, False),
}


@pytest.mark.parametrize("case", XLA)
def test_xla_is_used_where_it_pays(case, monkeypatch):
    make, more, expected = XLA[case]
    seen = []

    class Stop(BaseException):
        pass

    def compiled(model, kind, own, arguments, xla):
        seen.append(xla)
        raise Stop

    monkeypatch.setattr(on_tensorflow, "_compiled", compiled)
    with pytest.raises(Stop):
        run(make(), **more)
    assert seen == [expected]


def test_xla_gives_the_same_history():
    with_it = run(network(layers=LAYERS["batch norm"]()), jit_compile=True)
    without = run(network(layers=LAYERS["batch norm"]()), jit_compile=False)
    for name, values in without.items():
        np.testing.assert_allclose(with_it[name], values, rtol=2e-5, atol=1e-6)


FACTOR = 1.0


class ByGlobal(keras.layers.Layer):
    def call(self, x):
        return x * FACTOR


class ByClass(keras.layers.Layer):
    factor = 1.0

    def call(self, x):
        return x * self.factor


class ByHeld(keras.layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.held = {"factor": np.float32(factor)}

    def call(self, x):
        return x * self.held["factor"]


def by_global(factor, monkeypatch):
    monkeypatch.setitem(globals(), "FACTOR", factor)
    return ByGlobal()


def by_class(factor, monkeypatch):
    monkeypatch.setattr(ByClass, "factor", factor)
    return ByClass()


def by_closure(factor, monkeypatch):
    return keras.layers.Activation(lambda x: x * factor)


def by_attribute(factor, monkeypatch):
    return ByHeld(factor)


def by_replaced_method(factor, monkeypatch):
    layer = keras.layers.Activation("linear")
    call = layer.call
    layer.call = lambda x: call(x) * factor
    return layer


@pytest.mark.parametrize(
    "make", [by_global, by_class, by_closure, by_attribute, by_replaced_method]
)
def test_a_number_is_seen_wherever_it_is_kept(make, traced, monkeypatch):
    losses = []
    for factor in (1.0, 3.0, 1.0):
        with monkeypatch.context() as patched:
            losses.append(run(network(layers=[make(factor, patched)]), epochs=1)["loss"])
    assert losses[0] == losses[2] != losses[1]


def test_what_draws_from_tensorflow_itself_is_never_shared(traced):
    import tensorflow as tf

    class Noise(keras.layers.Layer):
        def call(self, x):
            return x + tf.random.normal(tf.shape(x))

    for seed in (0, 1):
        run(network(seed, layers=[Noise()]), epochs=1, validation=None)
    assert len(traced) == 2 and not traces._traces

"""Surgery on networks: what is taken over, what is frozen, what a frozen network computes."""

import keras
import numpy as np
import pytest

from models import convnet, mlp
from models.surgery import features, first_activation, freeze_all_but_last, part, take_over
from models.surgery import zero_head as make_zero_head

pytestmark = pytest.mark.both_backends

SHAPE, CLASSES = (8, 8, 1), 3
BUILDERS = {
    "mlp": lambda **kw: mlp(SHAPE, CLASSES, widths=(16, 12), **kw),
    "convnet": lambda **kw: convnet(SHAPE, CLASSES, widths=(4, 6), blocks=1, **kw),
}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(params=BUILDERS)
def build(request):
    return BUILDERS[request.param]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, *SHAPE)).astype("float32")
    return x, rng.integers(CLASSES, size=40)


def compiled(build, **options):
    model = build(**options)
    model.compile("sgd", LOSS, metrics=["accuracy"])
    return model


def parts_of(build, name, seed=3):
    """A network and its part; another network of that kind has another seed."""
    network = compiled(build, seed=seed)
    return network, part(network, name, lambda: compiled(build, seed=9))


def changed(before, after):
    return [bool((a != b).any()) for a, b in zip(before, after, strict=True)]


def train(model, data):
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), model.loss, metrics=["accuracy"])
    model.fit(*data, batch_size=8, verbose=0)


def test_all_but_the_head_is_taken_over(build):
    model, trained = build(seed=1), build(seed=2)
    head = model.layers[-1].get_weights()
    take_over(model, trained)
    for a, b in zip(model.get_weights()[:-2], trained.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.layers[-1].get_weights(), head, strict=True):
        np.testing.assert_array_equal(a, b)
    assert changed(model.get_weights(), trained.get_weights())[-2]


def test_statistics_are_taken_over_too():
    model, trained = (BUILDERS["mlp"](normalization="batch", seed=seed) for seed in (1, 2))
    trained.layers[3].moving_mean.assign(np.full(16, 7.0))
    take_over(model, trained)
    np.testing.assert_array_equal(model.layers[3].moving_mean, np.full(16, 7.0))


def test_networks_of_other_layers_are_not_taken_over():
    with pytest.raises(ValueError, match=r"shorter|longer"):
        take_over(mlp(SHAPE, 3, widths=(4, 4)), mlp(SHAPE, 3, widths=(4,)))
    with pytest.raises(ValueError, match="shape"):
        take_over(mlp(SHAPE, 3, widths=(4,)), mlp(SHAPE, 3, widths=(5,)))


@pytest.mark.parametrize("kernels", [1, 2, 3])
def test_only_the_last_layers_change_in_a_training(build, kernels, data):
    model = compiled(build)
    before = model.get_weights()
    freeze_all_but_last(model, kernels)
    train(model, data)
    expected = [False] * (6 - 2 * kernels) + [True] * 2 * kernels
    assert changed(before, model.get_weights()) == expected


def test_normalization_before_the_last_layers_is_frozen_and_that_after_it_is_not(data):
    model = compiled(BUILDERS["mlp"], normalization="batch")
    before = model.get_weights()
    freeze_all_but_last(model, 2)
    train(model, data)
    first = len(model.layers[2].weights) + len(model.layers[3].weights)
    assert changed(before, model.get_weights()) == [False] * first + [True] * (len(before) - first)


@pytest.mark.parametrize("kernels", [0, 4, -1])
def test_a_number_of_layers_that_is_not_there_is_refused(kernels):
    with pytest.raises(ValueError, match=f"from 1 to 3.*kernels={kernels}"):
        freeze_all_but_last(BUILDERS["mlp"](), kernels)


def test_what_the_head_sees_gives_its_logits(build, data):
    network = build(seed=4)
    top = features(network, network.layers[-1].input)(data[0])
    head = network.layers[-1]
    logits = top @ np.asarray(head.kernel) + np.asarray(head.bias)
    np.testing.assert_allclose(logits, np.asarray(network(data[0])), rtol=1e-4, atol=1e-5)


def test_the_earliest_features_are_the_first_kernel_and_a_relu(build, data):
    network, x = build(seed=4), data[0]
    early = features(network, first_activation(network))(x)
    first = next(layer for layer in network.layers if hasattr(layer, "kernel"))
    flat = x.reshape(len(x), -1) if network.name == "mlp" else x
    expected = np.maximum(np.asarray(first(flat)), 0).reshape(len(x), -1)
    np.testing.assert_allclose(early, expected, rtol=1e-4, atol=1e-5)


def test_features_are_those_of_inference_and_of_the_weights_at_the_time():
    network = mlp(SHAPE, 2, widths=(5,), dropout=0.5)
    view, x = features(network, network.layers[-1].input), np.ones((4, *SHAPE), "float32")
    before = view(x)
    np.testing.assert_array_equal(before, view(x))
    network.set_weights([2 * weight for weight in network.get_weights()])
    np.testing.assert_allclose(view(x), 2 * before, rtol=1e-6)


def test_features_come_in_batches_that_leave_no_example_out(monkeypatch, data):
    network = BUILDERS["mlp"]()
    whole = features(network, first_activation(network))(data[0])
    monkeypatch.setattr("models.surgery.BATCH", 7)
    np.testing.assert_allclose(
        features(network, first_activation(network))(data[0]), whole, rtol=1e-5, atol=1e-6
    )


def test_a_model_without_activations_has_no_first_one():
    with pytest.raises(ValueError, match="no `Activation`"):
        first_activation(mlp(SHAPE, 2, widths=()))


def test_a_zero_head_stays_where_examples_say_nothing():
    """Its reason: a direction that no example has keeps the weight it started with."""
    head = make_zero_head((2,), 2)
    assert not any(weight.any() for weight in head.get_weights())
    head.compile("sgd", LOSS)
    train(head, (np.array([[1.0, 0.0]] * 8, "float32"), np.zeros(8, int)))
    kernel = head.get_weights()[0]
    assert kernel[0].any() and not kernel[1].any()


@pytest.mark.parametrize("name", ["all", "last1", "last2"])
def test_a_part_of_the_layers_starts_from_the_network_and_leaves_it(build, name, data):
    network, trained = parts_of(build, name)
    start = network.get_weights()
    assert trained.view(data[0]) is data[0]
    one, other = trained.fresh(), trained.fresh()
    assert not any(changed(one.get_weights(), start))
    train(one, data)
    frozen = {"all": 0, "last1": 4, "last2": 2}[name]
    assert changed(one.get_weights(), start) == [False] * frozen + [True] * (6 - frozen)
    assert not any(changed(other.get_weights(), start) + changed(network.get_weights(), start))


@pytest.mark.parametrize("name", ["probe_top", "probe_early"])
def test_a_probe_is_a_linear_classifier_of_features(build, name, data):
    network, probe = parts_of(build, name)
    at = network.layers[-1].input if name == "probe_top" else first_activation(network)
    seen = probe.view(data[0])
    np.testing.assert_array_equal(seen, features(network, at)(data[0]))
    head = probe.fresh()
    assert [w.shape for w in head.get_weights()] == [(seen.shape[1], CLASSES), (CLASSES,)]
    assert not any(weight.any() for weight in head.get_weights())
    before = network.get_weights()
    train(head, (seen, data[1]))
    assert all(weight.any() for weight in head.get_weights())
    assert not any(changed(network.get_weights(), before))
    assert not any(weight.any() for weight in probe.fresh().get_weights())


@pytest.mark.parametrize("name", ["last", "last0", "first", "probe", "last-1"])
def test_an_unknown_part_is_refused(name):
    with pytest.raises(ValueError, match="Received: "):
        parts_of(BUILDERS["mlp"], name)[1].fresh()

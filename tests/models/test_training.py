"""Every model in every normalization learns something in a few steps, and can be saved."""

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import models

pytestmark = pytest.mark.both_backends

BUILDERS = {
    "mlp": lambda shape, **kw: models.mlp(shape, 10, widths=(32, 32), **kw),
    "convnet": lambda shape, **kw: models.convnet(shape, 10, **kw),
    "resnet": lambda shape, **kw: models.resnet(shape, 10, depth=8, width=8, **kw),
}


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return (x[:512].reshape(-1, 8, 8, 1) / 8 - 1).astype("float32"), y[:512].astype("int32")


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(
    "normalization",
    ["batch", *(pytest.param(n, marks=pytest.mark.slow) for n in ("none", "layer", "group"))],
)
def test_the_loss_falls(name, normalization, digits):
    model = BUILDERS[name]((8, 8, 1), normalization=normalization)
    assert set(models.__all__) == set(BUILDERS)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),  # less to compile than Adam
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    losses = model.fit(*digits, batch_size=32, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", BUILDERS)
def test_a_saved_model_comes_back(name, tmp_path):
    model = BUILDERS[name]((40,), normalization="batch")
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).normal(size=(3, 40)).astype("float32")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))

"""Keras's savers beside the engines: with one save an epoch, no epoch is taken apart for them."""

import keras
import numpy as np
import pytest

from lab.engines import saying
from tests.lab.engines.beside_fit import (
    ENGINES,
    assert_same_numbers,
    assert_same_weights,
    history_of,
)

pytestmark = [pytest.mark.both_backends, pytest.mark.usefixtures("in_order")]
rng = np.random.default_rng(0)
x, t = rng.normal(size=(40, 4)).astype("float32"), rng.normal(size=(40, 1)).astype("float32")


class Break(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.fixture
def said(monkeypatch):
    """What the engines said."""
    told = []
    monkeypatch.setattr(saying, "say_once", lambda how, reason: told.append(reason))
    return told


def resumed(how, folder, **saved):
    """History and saved models of a training that was broken off after two of four epochs."""

    def fit(*callbacks):
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones")]
        )
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        savers = [
            keras.callbacks.BackupAndRestore(folder / "backup"),
            keras.callbacks.ModelCheckpoint(folder / "{epoch}.keras", **saved),
        ]
        asked = {"batch_size": 16, "epochs": 4, "callbacks": [*savers, *callbacks]}
        return history_of(how, model, (x, t), (x[:20], t[:20]), **asked)

    with pytest.raises(KeyboardInterrupt):
        fit(Break())
    history = fit()
    files = sorted(folder.glob("*.keras"))
    return history, [one.name for one in files], [keras.models.load_model(one) for one in files]


@pytest.mark.parametrize("how", ENGINES[1:])
@pytest.mark.parametrize("saved", [{}, {"save_best_only": True, "monitor": "val_loss"}])
def test_a_training_goes_on_where_a_backup_was_made(how, saved, said, tmp_path):
    history, names, models = resumed("fit", tmp_path / "fit", **saved)
    seen, files, others = resumed(how, tmp_path / how, **saved)
    assert said == []
    assert_same_numbers(history, seen, 1e-5, 1e-6)
    assert len(seen["loss"]) == 2
    assert files == names
    for one, other in zip(models, others, strict=True):
        assert_same_weights(one.variables, other.variables, 1e-5, 1e-6)
        assert_same_weights(one.optimizer.variables, other.optimizer.variables, 1e-5, 1e-6)


class Own(keras.callbacks.ModelCheckpoint):
    """Its hooks may do anything."""


@pytest.mark.parametrize(
    "make",
    [
        lambda path: keras.callbacks.ModelCheckpoint(path / "of.keras", save_freq=2),
        lambda path: keras.callbacks.BackupAndRestore(path / "backup", save_freq=2),
        lambda path: Own(path / "of.keras"),
    ],
)
def test_savers_that_look_at_batches_get_them(make, said, tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history_of("fused", model, (x, t), batch_size=16, epochs=2, callbacks=[make(tmp_path)])
    assert len(said) == 1
    assert "needs every batch" in said[0]

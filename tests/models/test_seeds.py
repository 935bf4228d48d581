"""The weights depend on `seed` and on nothing else (trap 15)."""

import hashlib
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import models
from models.seeds import seeds

pytestmark = pytest.mark.both_backends

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (8, 8, 1)
BUILDERS = {name: getattr(models, name) for name in models.__all__}

ELSEWHERE = """
import hashlib, json, random, keras, models, numpy as np
keras.utils.set_random_seed(99)
np.random.rand(5); random.random(); keras.random.normal((2,))
keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dropout(0.5)])
def digest(model):
    return hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()
print(json.dumps({n: digest(getattr(models, n)((8, 8, 1), 10, seed=3)) for n in models.__all__}))
"""


def digest(model):
    return hashlib.sha256(b"".join(w.tobytes() for w in model.get_weights())).hexdigest()


def kernels(model):
    return [w.numpy() for w in model.trainable_variables if len(w.shape) > 1]


@pytest.mark.parametrize("name", BUILDERS)
def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before(name):
    expected = digest(BUILDERS[name](SHAPE, 10, seed=3))
    for disturb in (
        lambda: np.random.seed(1),
        lambda: random.seed(1),
        lambda: keras.utils.set_random_seed(1),
        lambda: keras.utils.clear_session(),
        lambda: BUILDERS[name](SHAPE, 10, seed=4),
    ):
        disturb()
        assert digest(BUILDERS[name](SHAPE, 10, seed=3)) == expected


def test_another_process_gives_the_same_weights():
    result = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    expected = {name: digest(build(SHAPE, 10, seed=3)) for name, build in BUILDERS.items()}
    assert json.loads(result.stdout) == expected


@pytest.mark.parametrize("name", BUILDERS)
def test_building_a_model_leaves_the_global_generators_alone(name):
    before = random.getstate(), np.random.get_state()[1].tolist()
    BUILDERS[name](SHAPE, 10)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


@pytest.mark.parametrize("name", BUILDERS)
def test_every_kernel_differs_from_every_other_and_from_another_seed(name):
    drawn = kernels(BUILDERS[name](SHAPE, 10, seed=0)) + kernels(BUILDERS[name](SHAPE, 10, seed=1))
    for a, b in itertools.combinations(drawn, 2):
        # Not merely unequal: with a shared seed two shapes would start with the same numbers.
        n = min(a.size, b.size)
        assert not np.isclose(a.ravel()[:n] / a.std(), b.ravel()[:n] / b.std()).mean() > 0.1


@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_dropout_masks_come_from_the_seed(name):
    x = np.random.default_rng(0).normal(size=(16, *SHAPE)).astype("float32")

    def masked(seed, disturb):
        model = BUILDERS[name](SHAPE, 10, dropout=0.5, seed=seed)
        keras.utils.set_random_seed(disturb)
        return keras.ops.convert_to_numpy(model(x, training=True))

    np.testing.assert_array_equal(masked(0, 1), masked(0, 2))
    assert np.abs(masked(0, 1) - masked(1, 1)).max() > 0


def test_he_normal_variance():
    """He et al. 2015: variance 2 / fan-in."""
    (first, second, _), (conv, *_) = (
        kernels(models.mlp((400,), 10, widths=(300, 200))),
        kernels(models.convnet((8, 8, 32), 10, widths=(64,), blocks=1)),
    )
    for kernel, fan_in in ((first, 400), (second, 300), (conv, 9 * 32)):
        assert kernel.var() == pytest.approx(2 / fan_in, rel=0.03)


def test_seeds_are_distinct_and_fixed():
    drawn = list(itertools.islice(seeds(7), 2000))
    assert len(set(drawn)) == 2000
    assert min(drawn) >= 0 and max(drawn) < 2**31
    # NumPy promises SeedSequence to be stable across versions and platforms.
    assert drawn[0] == int(np.random.SeedSequence([7, 0]).generate_state(1)[0]) // 2


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="Received: seed=-1"):
        models.mlp(SHAPE, 10, seed=-1)

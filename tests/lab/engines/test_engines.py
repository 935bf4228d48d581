"""Every engine against `plain`, over what a model can be made of.

Histories agree to 2e-5 and final weights to 2e-4 relative (1e-6 and 1e-5 absolute): float32 sums in
another order. `test_fit.py` holds what concerns `plain` and `fused` alone.
"""

import keras
import numpy as np
import pytest

from lab.engines.fit import Fit
from lab.engines.training import train
from tests.cases import first_of

pytestmark = pytest.mark.both_backends
JAX = keras.backend.backend() == "jax"
RATES = (0.05, 0.02)  # one for each of two fits
L = keras.layers
O = keras.optimizers  # noqa: E741


def examples(n=70, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 5)).astype("float32"), rng.integers(0, 3, n).astype("int32")


class DoubledInputs(keras.Model):
    """A model with a train step of its own, in words that both backends understand."""

    def train_step(self, *arguments):
        *state, (x, y) = arguments
        return super().train_step(*state, (2 * x, y))


def network(k, middle=(), optimizer=None, kind=keras.Model, l2=None, **compiled):
    """The `k`-th of models of one architecture: its own weights, dropout seed and rate."""

    def dense(units, seed):
        return L.Dense(units, kernel_initializer=keras.initializers.HeNormal(seed + 10 * k))

    inputs = keras.Input((5,))
    x = dense(8, 1)(inputs)
    for make in middle:
        x = make(k)(x)
    head = dense(3, 2)
    head.kernel_regularizer = l2 and keras.regularizers.L2(l2)
    model = kind(inputs, head(L.Activation("relu")(x)))
    model.compile(
        (optimizer or (lambda rate: O.SGD(rate, momentum=0.9)))(RATES[k]),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **({"metrics": ["accuracy"]} | compiled),
    )
    return model


def halve(epoch, rate):
    return rate * 0.5


def cosine(rate):
    return O.SGD(O.schedules.CosineDecay(rate, 15, warmup_target=2 * rate, warmup_steps=3))


def clipped(rate):
    return O.AdamW(rate, weight_decay=0.01, clipnorm=0.5)


x, y = examples()
# What the model is made of, and what its Fit asks for beside the usual.
CASES = {
    "momentum, uneven last batch": ({}, {}),
    "whole batches": ({}, {"data": examples(64)}),
    "batch norm": ({"middle": [lambda k: L.BatchNormalization()]}, {}),
    "dropout": ({"middle": [lambda k: L.Dropout(0.3, seed=k)]}, {}),
    "layer norm": ({"middle": [lambda k: L.LayerNormalization()]}, {}),
    "Adam": ({"optimizer": O.Adam}, {}),
    "AdamW with clipping": ({"optimizer": clipped}, {}),
    "cosine schedule with warmup": ({"optimizer": cosine}, {}),
    "exponential schedule": (
        {"optimizer": lambda rate: O.SGD(O.schedules.ExponentialDecay(rate, 5, 0.9))},
        {},
    ),
    "use_ema": ({"optimizer": lambda r: O.SGD(r, use_ema=True, ema_momentum=0.8)}, {}),
    "L2": ({"l2": 0.05}, {}),
    "sample weights": (
        {"weighted_metrics": ["accuracy"]},
        {"data": (x, y, np.arange(70, dtype="float32"))},
    ),
    "a train step of its own": ({"kind": DoubledInputs}, {}),
    "early stopping": (
        {},
        {"callbacks": lambda k: [keras.callbacks.EarlyStopping("loss", min_delta=0.05 * k + 0.05)]},
    ),
    "a learning-rate callback": (
        {},
        {"callbacks": lambda k: [keras.callbacks.LearningRateScheduler(halve)]},
    ),
    "the best weights restored": (
        {},
        {
            "callbacks": lambda k: [
                keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True)
            ]
        },
    ),
}


def fits(case, count):
    made, asked = CASES[case]
    asked = {"data": (x, y), "epochs": 4, "validation": examples(30, 1)} | asked
    callbacks = asked.pop("callbacks", lambda k: [])
    return [
        Fit(network(k, **made), batch_size=16, seed=k, callbacks=callbacks(k), **asked)
        for k in range(count)
    ]


def weights(model):
    return [np.asarray(w) for w in model.weights if "seed" not in w.path]


@pytest.mark.parametrize("case", first_of(CASES, 7))
def test_every_engine_gives_what_plain_fit_gives(case):
    reference = fits(case, 2 if JAX else 1)
    expected = train(reference, "plain")
    for engine, count in {"fused": 1, **({"stacked": 2} if JAX else {})}.items():
        trained = fits(case, count)
        for k, history in enumerate(train(trained, engine)):
            assert list(history.history) == list(expected[k].history)
            for name, values in history.history.items():
                np.testing.assert_allclose(
                    values, expected[k].history[name], rtol=2e-5, atol=1e-6, err_msg=name
                )
            for a, b in zip(weights(trained[k].model), weights(reference[k].model), strict=True):
                np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5)

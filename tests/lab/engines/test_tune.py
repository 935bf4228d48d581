"""Tuning chooses on validation data, by accuracy first."""

import math

import numpy as np
import pytest

from lab.engines.fit import Fit
from lab.engines.tune import tune

DATA, VALIDATION = (np.zeros((1, 1)), np.zeros(1)), (np.ones((1, 1)), np.ones(1))


class Model:
    def __init__(self, accuracy, loss):
        self.answer = {"accuracy": accuracy, "loss": loss}


@pytest.fixture(autouse=True)
def evaluated(monkeypatch):
    def evaluate(model, data):
        assert data is VALIDATION
        return model.answer

    monkeypatch.setitem(tune.__globals__, "evaluate", evaluate)


class History:
    def __init__(self, loss=1.0):
        self.history = {"loss": [loss]}


def choose(models, losses=None):
    candidates = list(range(len(models)))
    asked = tune(lambda c: Fit(models[c], DATA, 1), candidates, VALIDATION)
    fits = next(asked)
    assert all(fit.may_diverge for fit in fits)
    with pytest.raises(StopIteration) as stop:
        asked.send([History(loss) for loss in losses or [1.0] * len(models)])
    return stop.value.value


def test_the_best_accuracy_wins_even_with_the_worst_loss():
    best = choose([Model(0.1, 2.3), Model(0.8, 9.0), Model(0.7, 0.1)])
    assert best.choice == 1 and not best.at_edge and best.fit.model.answer["loss"] == 9.0


def test_ties_are_broken_by_loss():
    assert choose([Model(0.8, 3.0), Model(0.8, 1.0), Model(0.8, 2.0)]).choice == 1


def test_the_edge_is_told():
    assert choose([Model(0.9, 1.0), Model(0.8, 1.0)]).at_edge
    assert not choose([Model(0.9, 1.0)]).at_edge


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_candidate_that_diverged_is_never_chosen(bad):
    best = choose([Model(0.9, 0.1), Model(0.2, 2.0), Model(0.9, bad)], [bad, 1.0, 1.0])
    assert best.choice == 1


def test_if_all_diverge_it_says_so():
    asked = tune(lambda c: Fit(Model(0.5, 1.0), DATA, 1), [0.1, 1.0], VALIDATION)
    next(asked)
    with pytest.raises(ArithmeticError, match="every candidate"):
        asked.send([History(math.nan), History(math.inf)])


def test_a_candidate_may_be_an_ensemble_with_a_score_of_its_own():
    models = {c: [Model(c, 0), Model(2 * c, 0)] for c in (0.1, 0.3, 0.2)}

    def score(fits):
        return (sum(fit.model.answer["accuracy"] for fit in fits),)

    asked = tune(lambda c: [Fit(m, DATA, 1) for m in models[c]], list(models), VALIDATION, score)
    assert len(next(asked)) == 6
    histories = [History(i) for i in range(6)]
    with pytest.raises(StopIteration) as stop:
        asked.send(histories)
    best = stop.value.value
    assert best.choice == 0.3 and [fit.model for fit in best.fit] == models[0.3]
    assert best.history == histories[2:4] and len(best.fits) == 3
    assert [score for (score,) in best.scores] == pytest.approx([0.3, 0.9, 0.6])


def test_one_diverged_member_rules_its_candidate_out():
    asked = tune(lambda c: [Fit(None, DATA, 1)] * 2, [1, 2], VALIDATION, lambda fits: (1.0,))
    next(asked)
    with pytest.raises(StopIteration) as stop:
        asked.send([History(), History(math.nan), History(), History()])
    assert stop.value.value.choice == 2


def test_the_same_trainings_chosen_by_another_score_leave_out_what_diverged():
    made = {c: Fit(Model(0.9 - c, c), DATA, 1) for c in (0.1, 0.2, 0.3, 0.4)}
    asked = tune(lambda c: made[c], list(made), VALIDATION)
    next(asked)
    histories = [History(), History(), History(), History(math.nan)]
    with pytest.raises(StopIteration) as stop:
        asked.send(histories)
    best = stop.value.value
    assert best.choice == 0.1 and best.at_edge
    table = {0.1: 0.7, 0.2: 0.8, 0.3: 0.9, 0.4: 0.99}
    of = {id(fit): c for c, fit in made.items()}
    other = best.by(lambda fit: (table[of[id(fit)]], 0.0))
    assert (other.choice, other.fit, other.history) == (0.3, made[0.3], histories[2])
    assert not other.at_edge and other.by(lambda fit: (-table[of[id(fit)]],)).choice == 0.1
    table |= {0.1: math.nan, 0.3: math.inf}  # what it scores may overflow by itself
    assert best.by(lambda fit: (table[of[id(fit)]], 0.0)).choice == 0.2

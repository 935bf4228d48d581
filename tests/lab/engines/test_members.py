"""Members of an ensemble: which ones there are, how they are chosen, and what they predict."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from lab.engines import predictions
from lab.engines.fit import Fit
from lab.engines.members import TunedMembers, predicted, tune_members

X = np.linspace(-1, 1, 9)
VALIDATION = SimpleNamespace(x=X, y=(X > 0.3).astype(int))


class Model:
    """Two logits of a number; its only weight is their slope."""

    def __init__(self, weight=1.0, shift=0.0):
        self.weight, self.shift = weight, shift

    def __call__(self, x, training):
        assert training is False
        return np.stack([-self.weight * (x - self.shift), self.weight * (x - self.shift)], -1)


class Snapshots:
    """Kept weights of one model, which it gives back."""

    def __init__(self, model, kept):
        self.model, self.kept = model, kept

    def members(self):
        before = self.model.weight
        for weight in self.kept:
            self.model.weight = weight
            yield self.model
        self.model.weight = before


def fit_of(model, *callbacks):
    return Fit(model, (np.zeros((1, 1)), np.zeros(1)), 1, callbacks=callbacks)


class History:
    def __init__(self, loss=1.0):
        self.history = {"loss": [loss]}


def answered(asked, loss=lambda model: 1.0):
    """Run a generator to its end; gives what it returned and the rounds of `Fit`s it asked for."""
    rounds, histories = [], None
    try:
        while True:
            fits = asked.send(histories)
            rounds.append(fits)
            histories = [History(loss(fit.model)) for fit in fits]
    except StopIteration as end:
        return end.value, rounds


def made(setting, member, rate):
    """A setting is the rate that suits it: the boundary of the best is where the labels change."""
    model = Model(shift=0.3 + abs(math.log(rate / setting)))
    model.made = (setting, member, rate)
    return [fit_of(model)]


def who(fits):
    return [fit.model.made for fit in fits]


def test_members_are_the_snapshots_where_there_are_some_else_how_it_ended():
    several, ended, prepared = Model(), Model(5.0), []
    fits = [fit_of(several, object(), Snapshots(several, [2.0, 3.0])), fit_of(ended, object())]
    each = predicted(fits, X, prepare=lambda model: prepared.append((model, model.weight)))
    assert prepared == [(several, 2.0), (several, 3.0), (ended, 5.0)]
    expected = [1 / (1 + np.exp(-2 * weight * X)) for weight in (2.0, 3.0, 5.0)]
    np.testing.assert_allclose([p[:, 1] for p in each], expected)
    assert several.weight == 1.0


def test_each_member_predicts_after_it_was_prepared_and_before_the_next():
    model = Model()

    def prepare(member):
        member.shift = member.weight  # statistics that belong to these weights

    each = predicted([fit_of(model, Snapshots(model, [2.0, 3.0]))], X, prepare=prepare)
    expected = [predictions.probabilities(Model(w, w), X) for w in (2.0, 3.0)]
    np.testing.assert_allclose(each, expected)


def test_every_setting_is_searched_and_the_best_of_each_is_a_member():
    settings, rates = [0.1, 1.0, 3.0], [0.1, 0.3, 1.0]
    found, rounds = answered(tune_members(made, settings, rates, VALIDATION))
    assert [who(fits) for fits in rounds] == [
        [(s, k, rate) for rate in rates] for k, s in enumerate(settings)
    ]
    assert who(found.fits) == [(0.1, 0, 0.1), (1.0, 1, 1.0), (3.0, 2, 1.0)]
    assert found.choice == pytest.approx((0.1 * 1.0 * 1.0) ** (1 / 3)) and found.at_edge == 1.0


def test_the_best_setting_has_other_members_until_there_are_as_many_as_asked_for():
    settings, rates = [5.0, 0.3, 5.0], [0.1, 0.3, 1.0]
    found, rounds = answered(tune_members(made, settings, rates, VALIDATION, most=4))
    assert len(rounds) == 4 and who(rounds[3]) == [(0.3, k, 0.3) for k in (0, 2, 3)]
    assert who(found.fits) == [(0.3, k, 0.3) for k in (1, 0, 2, 3)]
    assert found.choice == 0.3 and found.at_edge == 0.0
    assert not any(fit.may_diverge for fit in rounds[3])


def test_a_rate_is_as_good_as_the_average_of_what_was_made_and_ties_go_by_likelihood():
    def make(setting, member, rate):
        models = {
            0.1: [Model(0.1, 0.3)] * 3,  # each right about all, and unsure
            0.2: [Model(9.0, 0.9), Model(9.0, 0.8), Model(9.0, 0.7)],  # wrong about the same
            0.3: [Model(9.0, 1.0), Model(9.0, 0.3), Model(9.0, -0.4)],  # two wrong, about others
            0.4: [Model(9.0, 0.3), Model(9.0, -3.0), Model(9.0, -3.0)],  # the first is the best
        }
        return [fit_of(model) for model in models[rate]]

    found, _ = answered(tune_members(make, [{}], [0.1, 0.2, 0.3, 0.4], VALIDATION))
    naive = []
    for rate in (0.1, 0.2, 0.3, 0.4):
        mean = np.mean(
            [predictions.probabilities(fit.model, X) for fit in make({}, 0, rate)], axis=0
        )
        right = np.mean(mean.argmax(-1) == VALIDATION.y)
        naive.append((right, np.mean(np.log(mean[np.arange(len(X)), VALIDATION.y]))))
    assert found.choice == 0.3 == [0.1, 0.2, 0.3, 0.4][naive.index(max(naive))]
    assert found.tuned[0].scores == [pytest.approx(each) for each in naive]
    assert naive[0][0] == naive[2][0] == 1.0  # a tie


def test_what_diverged_is_not_chosen():
    found, _ = answered(
        tune_members(made, [1.0], [0.1, 0.3, 1.0], VALIDATION, most=2),
        loss=lambda model: math.nan if model.made[2] == 1.0 and model.made[1] == 0 else 1.0,
    )
    assert found.choice == 0.3 and who(found.fits) == [(1.0, 0, 0.3), (1.0, 1, 0.3)]


def test_the_trial_records_rate_and_edges():
    tuned = [SimpleNamespace(choice=rate, at_edge=edge) for rate, edge in ((1, True), (4, False))]
    found = TunedMembers(tuned, [])
    assert found.choice == pytest.approx(2.0) and found.at_edge == 0.5

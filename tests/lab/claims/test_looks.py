"""Looks keep their promises in simulation: few false supports, intervals that cover."""

import math

import numpy as np
import pytest

from lab.claims.looks import ALPHA, UNTESTED, Member, next_look, standings
from lab.claims.stats import judge

LOOKS = (10, 20, 40)
MARGIN = 0.5  # of a standard deviation, as in the table of the design


def family(rng, claims, truth=0.0, correlation=0.0, seeds=40):
    """Primary contrasts of one experiment, with unit spread."""
    common = rng.normal(size=seeds) * math.sqrt(correlation)
    own = rng.normal(size=(claims, seeds)) * math.sqrt(1 - correlation)
    return [Member(dict(enumerate(truth + common + each)), MARGIN) for each in own]


def experiments(count, claims, **more):
    rng = np.random.default_rng(0)
    return [standings(family(rng, claims, **more), LOOKS) for _ in range(count)]


def rejected_falsely(made):
    """The share of experiments that say of any claim that it is there, either way."""
    return np.mean([any(one.p < ALPHA for one in every) for every in made])


@pytest.mark.parametrize(("claims", "correlation"), [(1, 0.0), (4, 0.0), (4, 0.8), (9, 0.8)])
def test_a_family_without_effects_is_rarely_rejected_at_any_look(claims, correlation):
    made = experiments(300, claims, correlation=correlation)
    assert rejected_falsely(made) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.slow
@pytest.mark.parametrize("claims", [1, 4, 9])
@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_a_family_without_effects_is_rarely_rejected_in_many_experiments(claims, correlation):
    assert rejected_falsely(experiments(4000, claims, correlation=correlation)) <= 0.056


def test_peeking_without_the_correction_would_fail_that():
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        (one,) = family(rng, 1)
        found.append(any(judge(one.first(n), MARGIN).p < ALPHA for n in LOOKS))
    assert np.mean(found) > 0.05 + 2 * math.sqrt(0.05 * 0.95 / 300)


# Truth in standard deviations: supported, refuted, seeds on average, coverage.
TABLE = {
    0.0: (0.005, 0.76, 30, 0.98),
    0.25: (0.08, 0.24, 36, 0.97),
    0.5: (0.53, 0.02, 35, 0.97),
    0.75: (0.95, 0.00, 26, 0.98),
    1.0: (1.00, 0.00, 16, 0.99),
}


@pytest.mark.parametrize("truth", TABLE)
def test_it_buys_what_the_design_says(truth):
    count = 400
    found = [one for (one,) in experiments(count, 1, truth=truth)]
    words = [one.judgement.verdict for one in found]
    seeds = np.mean([one.judgement.n for one in found])
    covered = np.mean([one.judgement.low <= truth <= one.judgement.high for one in found])
    supported, refuted, n, coverage = TABLE[truth]
    for word, expected in (("supported", supported), ("refuted", refuted)):
        off = 3 * math.sqrt(max(expected * (1 - expected), 0.01) / count)
        assert words.count(word) / count == pytest.approx(expected, abs=off)
    assert seeds == pytest.approx(n, abs=2)
    assert covered >= coverage - 3 * math.sqrt(coverage * (1 - coverage) / count)


def values(mean, spread=0.1, n=40):
    """Of this mean at every look, however many there are."""
    return {k: mean + spread * (-1) ** k for k in range(n)}


def test_what_is_decided_stays_decided_and_leaves_the_family():
    clear, turned = values(2.0), values(2.0)
    turned |= {k: -5.0 for k in range(10, 40)}
    found = standings([Member(clear, MARGIN), Member(turned, MARGIN)], LOOKS)
    for one in found:
        assert (one.judgement.verdict, one.look, one.judgement.n, one.closed) == (
            *("supported", 1, 10),
            True,
        )
    open_one = Member(values(0.45, 0.9), MARGIN)
    alone, beside = (
        standings([open_one], LOOKS),
        standings([open_one, Member(clear, 0.5)], LOOKS),
    )
    assert alone[0].level == beside[0].level == ALPHA / 3


def test_what_was_refuted_as_too_small_keeps_counting():
    small, open_one = Member(values(0.0), MARGIN), Member(values(0.45, 0.9), MARGIN)
    found = standings([open_one, small], LOOKS)
    assert found[1].judgement.verdict == "refuted" and found[1].look == 1
    assert found[0].look == 3 and found[0].level == pytest.approx(ALPHA / 3 / 2)
    assert standings([open_one], LOOKS, others=1)[0] == found[0]


def test_before_the_last_look_support_wants_more_than_the_margin():
    just = Member(values(1.2 * MARGIN), MARGIN)
    (found,) = standings([just], LOOKS)
    assert found.judgement.verdict == "supported" and found.look == 3
    (found,) = standings([Member(values(1.2 * MARGIN, n=39), MARGIN)], LOOKS)
    assert found.judgement.verdict == "inconclusive" and not found.closed


def test_what_is_open_after_the_last_look_is_closed():
    (found,) = standings([Member(values(0.45, 0.9), MARGIN)], LOOKS)
    assert (found.judgement.verdict, found.look, found.closed) == ("inconclusive", 3, True)


def test_other_contrasts_of_a_claim_wait_for_the_one_before():
    effects = [2.0, 2.0, 0.0, 2.0]
    chain = [
        Member(values(mean), MARGIN, None if i == 0 else i - 1) for i, mean in enumerate(effects)
    ]
    found = standings(chain, LOOKS)
    words = [one.judgement.verdict for one in found]
    assert words == ["supported", "supported", "refuted", "untested"]
    assert found[3].judgement.reason == UNTESTED and math.isnan(found[3].p)
    assert found[1].level == found[0].level == ALPHA / 3
    assert all(next_look(i, chain, found) is None for i in range(4))


def test_a_contrast_follows_one_that_was_decided_elsewhere():
    (before,) = standings([Member(values(2.0, n=10), MARGIN)], (10,))
    (after,) = standings([Member(values(2.0), MARGIN, before)], LOOKS)
    assert after.judgement.verdict == "supported"
    assert after.level == before.level / 3


def test_a_look_waits_for_its_seeds():
    one = Member(values(0.45, 0.9, n=19), MARGIN)
    (found,) = standings([one], LOOKS)
    assert (found.look, found.judgement.n, found.closed) == (1, 10, False)
    assert next_look(0, [one], [found]) == 2
    few = Member(values(1.0, n=7), MARGIN)
    (found,) = standings([few], LOOKS)
    assert (found.judgement.verdict, found.judgement.reason) == ("incomplete", "7 of 10 seeds")
    assert found.level == ALPHA / 3
    assert next_look(0, [few], [found]) == 1


def test_a_missing_seed_is_not_made_up_for_by_a_later_one():
    gap = values(2.0)
    del gap[3]
    (found,) = standings([Member(gap, MARGIN)], LOOKS)
    assert found.judgement.reason == "9 of 10 seeds"


def test_a_claim_that_lacks_seeds_counts_as_one_that_is_not_rejected():
    there, lacking = Member(values(0.45, 0.9, n=10), MARGIN), Member(values(2.0, n=9), MARGIN)
    found = standings([there, lacking], LOOKS)
    assert found[0].level == pytest.approx(ALPHA / 3 / 2)


def test_what_cannot_be_judged_is_closed_and_counts():
    bad = Member(values(2.0), MARGIN, failure=lambda n: "gate failed")
    dead = Member(values(2.0, n=3), MARGIN, broken=lambda n: "diverged")
    other = Member(values(0.45, 0.9), MARGIN)
    found = standings([bad, dead, other], LOOKS)
    assert [one.judgement.verdict for one in found] == ["invalid", "invalid", "inconclusive"]
    assert [one.judgement.reason for one in found[:2]] == ["gate failed", "diverged"]
    assert found[0].closed and found[2].level == pytest.approx(ALPHA / 3 / 3)


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan, math.inf])
def test_values_that_allow_no_answer_are_a_verdict_and_count(value):
    """Trap 19, and no p of 0 from a constant."""
    flat, other = Member(dict.fromkeys(range(40), value), MARGIN), Member(values(0.45, 0.9), MARGIN)
    found = standings([flat, other], LOOKS)
    assert found[0].judgement.verdict == "invalid" and found[0].closed and found[0].p == 1
    assert found[1].level == pytest.approx(ALPHA / 3 / 2)

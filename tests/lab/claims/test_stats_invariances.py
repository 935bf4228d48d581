"""What a verdict must not depend on: units, signs, shifts and the order of claims."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lab.claims.stats import holm_adjusted, holm_levels, judge
from tests.lab.claims.test_stats import cheap_collections  # noqa: F401  (used by every test)

quietly = settings(deadline=None, database=None, derandomize=True, max_examples=100)
seeds = st.lists(st.integers(-1000, 1000).map(lambda k: k / 8), min_size=2, max_size=12)
margins = st.integers(0, 800).map(lambda k: k / 8)
p_values = st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=9)


def spread(values):
    assume(len(set(values)) > 1)
    return values


def numbers(found):
    return found.effect, found.low, found.high, found.p


@quietly
@given(seeds, margins)
def test_the_other_direction_is_the_mirror_image(values, margin):
    there = judge(spread(values), margin)
    back = judge([-value for value in values], margin)
    assert numbers(back) == pytest.approx((-there.effect, -there.high, -there.low, there.p))
    if back.verdict == "supported":
        assert there.reason.startswith("reversed") or there.effect == 0


@quietly
@given(seeds, margins, st.integers(-1000, 1000).map(lambda k: k / 8))
def test_a_shift_moves_the_interval_and_nothing_else(values, margin, shift):
    found = judge(spread(values), margin)
    moved = judge([value + shift for value in values], margin)
    expected = (found.effect + shift, found.low + shift, found.high + shift)
    assert numbers(moved)[:3] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@quietly
@given(seeds, st.lists(margins, min_size=2, max_size=5), st.sampled_from([0.01, 0.05, 0.2]))
def test_a_larger_margin_never_makes_a_claim_easier(values, asked, alpha):
    order = ["supported", "inconclusive", "refuted"]
    found = [judge(spread(values), margin, alpha) for margin in sorted(asked)]
    ranks = [order.index(one.verdict) for one in found]
    if found[0].high >= 0:  # what is reversed is refuted at any margin
        assert ranks == sorted(ranks)
    assert len({numbers(one) for one in found}) == 1  # it moves no number


@quietly
@given(seeds, st.floats(1e-6, 0.4), st.floats(1.1, 2))
def test_more_confidence_is_a_wider_interval_around_the_same_mean(values, alpha, factor):
    wide, narrow = judge(spread(values), 0, alpha), judge(values, 0, alpha * factor)
    assert wide.low <= narrow.low <= narrow.effect <= narrow.high <= wide.high
    assert (wide.effect, wide.p) == (narrow.effect, narrow.p) and 0 <= wide.p <= 1
    assert (wide.low > 0 or wide.high < 0) <= (wide.p <= alpha * (1 + 1e-9))


@quietly
@given(seeds, st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 11), margins)
def test_one_value_that_is_not_finite_is_never_averaged_or_dropped(values, odd, at, margin):
    values.insert(min(at, len(values)), odd)
    found = judge(values, margin)
    assert (found.verdict, found.n) == ("invalid", len(values))
    assert np.isnan(numbers(found)).all()


@quietly
@given(p_values, st.randoms(use_true_random=False))
def test_the_order_of_claims_does_not_matter(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    for function in (holm_levels, holm_adjusted):
        shuffled, straight = function([p[i] for i in order]), function(p)
        np.testing.assert_equal(shuffled, [straight[i] for i in order])


@quietly
@given(p_values, st.floats(0, 1))
def test_one_more_claim_never_helps_the_others(p, more):
    for before, after in zip(holm_adjusted(p), holm_adjusted([*p, more]), strict=False):
        assert math.isnan(before) == math.isnan(after)
        assert math.isnan(before) or 0 <= before <= after <= 1


@quietly
@given(p_values, st.sampled_from([0.01, 0.05]))
def test_a_claim_that_is_rejected_stays_so_at_a_larger_alpha(p, alpha):
    def rejected(alpha):
        levels = holm_levels(p, alpha)
        return [value <= level for value, level in zip(p, levels, strict=True)]

    assert np.all(np.array(rejected(alpha)) <= rejected(4 * alpha))

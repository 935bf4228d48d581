"""Looks: the numbers of seeds at which verdicts may be made, declared before the first one ran.

Adding seeds until the answer pleases supports what is not there: at 10, 20 and 40 seeds, each at
level .05, 11.6 % of true nulls. So each look tests at alpha / (number of looks), and within a look
Holm (1979) runs over the primary contrasts of the experiment's claims. What was decided stays
decided. The further contrasts of a claim are tested after its primary one, in a declared order, at
the level that decided it, and only while the one before was supported (fixed-sequence gatekeeping).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lab.claims.stats import Judgement, holm_adjusted, holm_levels, judge

ALPHA = 0.05
# Before the last look, support wants more than the margin: a truth below it would otherwise have
# several chances to exceed it.
EARLY = 1.5
UNTESTED = "not tested: the contrast before it is not supported"


@dataclass(frozen=True)
class Standing:
    """Where a contrast stands after the looks so far.

    Attributes:
        judgement: That of the look that decided, else of the last one made. What is inconclusive
            has no reason.
        p: Two-sided, adjusted for the family and for the looks: below ALPHA exactly where the
            interval excludes 0.
        level: Of the interval.
        look: The number of the look, from 1; 0 before the first.
        closed: Whether no further look can change it.
    """

    judgement: Judgement
    p: float
    level: float
    look: int
    closed: bool

    @property
    def supported(self) -> bool:
        """Whether it was decided for the claim."""
        return self.judgement.verdict == "supported"

    @property
    def rejected(self) -> bool:
        """Whether its own test has rejected a mean of 0: supported or reversed, for good."""
        reversed_ = self.judgement.reason.startswith("reversed")
        return self.closed and (self.supported or reversed_)


@dataclass(frozen=True)
class Member:
    """One contrast of a claim as the looks see it.

    Attributes:
        values: One number per seed, by the place of the seed among those that count.
        margin: The smallest effect that matters.
        follows: The place of the contrast after which it is tested, or where that one stands, if
            it was decided before; None for a primary one.
        broken: Why there is no verdict whatever the first n seeds say, or nothing.
        failure: Why the comparison is invalid at its first n seeds, if all are there, or nothing.
    """

    values: Mapping[int, float]
    margin: float
    follows: int | Standing | None = None
    broken: Callable[[int], str | None] = lambda n: None
    failure: Callable[[int], str | None] = lambda n: None

    def first(self, n: int) -> list[float]:
        """The values of the first n seeds, as far as they are there."""
        return [value for place, value in sorted(self.values.items()) if place < n]

    def has(self, n: int) -> bool:
        """Whether the first n seeds say something, be it that there is no verdict."""
        return len(self.first(n)) == n or bool(self.broken(n))

    def obstacle(self, n: int) -> str | None:
        """Why the first n seeds, which it has, make it invalid, or nothing."""
        return self.broken(n) or self.failure(n)

    def p(self, n: int) -> float:
        """Of a mean of 0, two-sided; 1 where there is no answer."""
        p = math.nan if self.obstacle(n) else judge(self.first(n), self.margin, plan=False).p
        return 1.0 if math.isnan(p) else p


def standings(
    family: Sequence[Member], looks: Sequence[int], alpha: float = ALPHA, others: int = 0
) -> list[Standing]:
    """Replay the looks, as far as there are seeds for them.

    A claim that lacks seeds for a look, or cannot be judged at it, counts in the family as one that
    is not rejected.

    Args:
        family: The contrasts of an experiment; one that follows another stands behind it.
        looks: Numbers of seeds, growing.
        alpha: Of all looks and claims together.
        others: Claims that are not among these, but count in the family.
    """
    found = [_before(one, looks[0], alpha / len(looks)) for one in family]
    for number, n in enumerate(looks, start=1):
        look = _Look(number, n, len(looks), alpha)
        _test_primaries(family, found, look, others)
        _test_followers(family, found, look)
    return found


@dataclass(frozen=True)
class _Look:
    number: int
    n: int
    of: int
    alpha: float

    def judged(self, one: Member, level: float, p: float) -> Standing:
        final = self.number == self.of
        wanted = 1.0 if final else EARLY
        judgement = judge(one.first(self.n), one.margin, level, wanted=wanted, plan=False)
        if obstacle := one.obstacle(self.n):
            judgement = replace(judgement, verdict="invalid", reason=obstacle)
        closed = final or judgement.verdict != "inconclusive"
        return Standing(judgement, min(1.0, p), level, self.number, closed)


def _test_primaries(family, found: list[Standing], look: _Look, others: int) -> None:
    primaries = [i for i, one in enumerate(family) if one.follows is None]
    counted = [i for i in primaries if not found[i].rejected]
    tried = [i for i in counted if not found[i].closed and family[i].has(look.n)]
    p = [family[i].p(look.n) if i in tried else 1.0 for i in counted] + [1.0] * others
    levels, adjusted = holm_levels(p, look.alpha / look.of), holm_adjusted(p)
    for i, level, smaller in zip(counted, levels, adjusted, strict=False):
        if i in tried:
            found[i] = look.judged(family[i], level, smaller * look.of)


def _test_followers(family, found: list[Standing], look: _Look) -> None:
    for i, one in enumerate(family):
        if one.follows is None or found[i].closed or not one.has(look.n):
            continue
        if isinstance(one.follows, Standing):  # its looks share the level that decided
            before, level = one.follows, one.follows.level / look.of
        else:
            before = found[one.follows]
            level = before.level
        if before.supported:
            found[i] = look.judged(one, level, one.p(look.n) * look.alpha / level)
        else:
            judgement = judge(one.first(look.n), one.margin, look.alpha / look.of, plan=False)
            judgement = replace(judgement, verdict="untested", reason=UNTESTED)
            found[i] = Standing(judgement, math.nan, look.alpha / look.of, 0, before.closed)


def _before(one: Member, n: int, level: float) -> Standing:
    """Of a claim that has had no look: what there is, and no verdict."""
    values = one.first(n)
    judgement = judge(values, one.margin, level, plan=False)
    reason = f"{len(values)} of {n} seeds"
    judgement = replace(judgement, verdict="incomplete", reason=reason)
    return Standing(judgement, judgement.p, level, 0, False)


def next_look(place: int, family: Sequence[Member], found: Sequence[Standing]) -> int | None:
    """The number of the look that a contrast waits for, from 1; None if it waits for none."""
    standing, before = found[place], family[place].follows
    if standing.closed:
        return None
    if before is None:
        return standing.look + 1
    if isinstance(before, Standing):
        return standing.look + 1 if before.supported else None
    return max(standing.look + 1, found[before].look) if found[before].supported else None

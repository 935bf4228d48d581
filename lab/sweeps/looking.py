"""Which further trials the claims that are still open wait for, and what these would cost."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from lab.claims import wording
from lab.records import measured, store
from lab.records.measured import Measured
from lab.records.verdicts import Verdict, judge_all
from lab.report.terminal import Terminal
from lab.sweeps.plan import Planned

Trials = tuple[tuple[str, int], ...]  # arm and seed


def already(order) -> Trials:
    """The trials beyond the seeds of every arm that an earlier look has left."""
    keys = [k for k in _keys(order) if k.seed >= order.seeds and k.arm in order.experiment.arms]
    return tuple((key.arm, key.seed) for key in keys)


def needed(order) -> Trials:
    """What the next look needs: the arms of the claims that are open, and of their naive figures.

    Claims that share a training share its looks: the first that any of them waits for.
    """
    found, verdicts = _judged(order)
    until, waiting = _next(verdicts)
    first = min((v.looked.after for v in waiting), default=0)
    arms = {arm for v in waiting for arm in _arms(v)}
    return tuple(
        (arm, seed)
        for seed in range(first, until)
        for arm in order.experiment.arms
        if arm in arms and (arm, seed) not in found.manifests
    )


def say(order) -> None:
    """Say which claims are open."""
    found, verdicts = _judged(order)
    _, waiting = _next(verdicts)
    names = ", ".join(dict.fromkeys(v.claim.id for v in waiting))
    seeds = max(seed for _, seed in found.manifests) + 1
    Terminal(highlight=False).print(f"\nAfter {seeds} seeds still open: {names}", markup=False)


def suggest(order) -> None:
    """Tell the command of an order that goes on, if claims are open."""
    waiting = _next(_judged(order)[1])[1]
    names = ", ".join(dict.fromkeys(v.claim.id for v in waiting))
    if names:
        said = f"\nOpen: {names}. On to more seeds, at declared looks: {order.command}"
        Terminal(highlight=False).print(said, markup=False, soft_wrap=True)


def announce(order, plan: Sequence[Planned], workers: Callable[[int], int | None]) -> None:
    """Say what the next look costs, and which claims it could decide.

    Args:
        order: What was asked for.
        plan: What there is of it.
        workers: How many processes so many trials are worth.
    """
    terminal = Terminal(highlight=False)
    if any(not planned.there for planned in plan):
        terminal.print("The next look comes after these trials.")
        return
    found, verdicts = _judged(order)
    until, waiting = _next(verdicts)
    if not waiting:
        terminal.print("Nothing is open: every claim is decided, or had its last look.")
        return
    trials = needed(order)
    jobs = workers(len(trials)) or 1
    seconds = sum(_seconds(found, arm) for arm, _ in trials) / jobs
    terminal.print(
        f"The next look, after {until} seeds: {len(trials)} trials of "
        f"{len({arm for arm, _ in trials})} arms, about {wording.duration(seconds)} with "
        f"{jobs} worker{'s' * (jobs > 1)}. It can decide:"
    )
    for v in waiting:
        effect = wording.effect(v.claim, v.judgement)
        terminal.print(
            f"  {v.claim.id} {v.claim.metric}: {effect}; {v.judgement.reason}", markup=False
        )


def _keys(order) -> list[store.Key]:
    trials = store.trials(order.results)
    return [k for k in trials if (k.experiment, k.setting) == (order.name, order.setting)]


def _judged(order) -> tuple[Measured, list[Verdict]]:
    for found in measured.load(order.results, _keys(order)):
        return found, judge_all(order.name, order.experiment, found)
    return Measured(order.name, order.setting), []


def _next(verdicts: Sequence[Verdict]) -> tuple[int, list[Verdict]]:
    """How many seeds the next look wants, and which claims wait for it."""
    waiting = [v for v in verdicts if v.looked.next is not None]
    until = min((v.looked.next or 0 for v in waiting), default=0)
    return until, [v for v in waiting if v.looked.next == until]


def _arms(v: Verdict) -> list[str]:
    naive = v.claim.beside.get("naive")
    return [*v.claim.arms, *(naive.arms if naive else ())]


def _seconds(found: Measured, arm: str) -> float:
    """What a trial of an arm took, on average."""
    told = [float(m.get("seconds", math.nan)) for (a, _), m in found.manifests.items() if a == arm]
    known = [seconds for seconds in told if math.isfinite(seconds)]
    return fmean(known) if known else 0.0

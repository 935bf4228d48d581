"""The stacked engine: many models of one architecture train as one JAX program.

Each has its own data, batch order, initial weights and learning rate, and its callbacks see it
alone: it is written back to its model before they are called and read again if they changed it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lab.engines import program, saying, steps
from lab.engines.building import build
from lab.engines.epochs import convolves, course, cut, first_batch, indices, is_watched, last_pass
from lab.engines.fused import live
from lab.engines.program import compiled, group_key, traced, variables

log = logging.getLogger(__name__)
INSTEAD = "Trained with the fused engine instead of stacked"


def train_each(fits: Sequence, order: Callable[[int, int, int], np.ndarray]) -> list:
    """Train `Fit`s together where they can be; what goes wrong in one stays in that one.

    Args:
        fits: `lab.Fit`s for which `lab.engines.fused.obstacle` is empty.
        order: The batch order as a function of seed, epoch and number of examples.

    Returns:
        For each a `keras.callbacks.History`, or the exception that ended it. None for one that
        must be trained after the others because it shares variables or callbacks with one.
    """
    members: list[_Member] = []
    results: list[Any] = [None] * len(fits)
    groups: dict[Any, list[_Member]] = {}
    taken: set[int] = set()
    for i, fit in enumerate(fits):
        try:
            build(fit.model, first_batch(fit))
            own = {*_identities(fit.model), *map(id, fit.callbacks)}
            if not own & taken:
                member = _Member(fit, i, order)
                members.append(member)
                groups.setdefault(member.key, []).append(member)
            taken |= own
        except Exception as error:
            results[i] = error
    for group in groups.values():
        _together(group)
    for member in members:
        results[member.place] = member.result
    return results


def obstacle(fit) -> str:
    """Why a `Fit` that can be fused is better not stacked, or nothing."""
    if program.way() == "map" and convolves(fit.model):
        return "XLA's loops on a CPU run convolutions on a slow path"
    return ""


class _Member:
    """One `Fit` of a stack: what it wants computed next, and in the end its result."""

    def __init__(self, fit, place: int, order):
        self.fit, self.place, self.order = fit, place, order
        self.life = course(fit)
        # First of all: callbacks may add variables to the optimizer or replace its schedule.
        self.wants: Any = next(self.life)  # ("train" or "test", epoch), or None at the end
        self.watched, self.last = is_watched(fit), last_pass(fit)
        self.result: Any = None
        self.key: tuple | None = None
        self.numbers: dict = {}
        self.look()

    def look(self) -> None:
        """See which variables the model has and what its step is. `key` is None if it has none."""
        self.variables = variables(self.fit.model)
        self.identities = _identities(self.fit.model)
        self.unused_metrics = [v.value for v in self.variables[3]]
        try:
            self.key, self.numbers = group_key(self.fit)
        except Exception as error:
            why = f"its step cannot be traced alone ({steps.first_line(error)})"
            saying.say_once(steps.INSTEAD, why)
            self.key, self.numbers = None, {}

    def by_steps(self) -> None:
        """Train it to its end as `fit` does."""
        run = steps.passes(self.fit)
        try:
            self.result = live(self.fit, self.life, run, self.order, self.wants)
        except Exception as error:
            self.result = error
        self.wants = None

    def go_on(self, logs) -> None:
        """Hand over the logs that it wanted; afterwards it wants others, or has its result."""
        try:
            self.wants = self.life.send(logs)
        except StopIteration as end:
            self.wants, self.result = None, end.value
        except Exception as error:
            self.wants, self.result = None, error

    def has_moved(self) -> bool:
        """Whether a callback changed which variables the model has."""
        return _identities(self.fit.model) != self.identities

    def fail(self, error: Exception) -> None:
        """End with an error, as `fit` would."""
        try:
            self.life.throw(error)
        except Exception as last:
            self.wants, self.result = None, last

    def batches(self):
        """The examples' indices in batches, as `lab.engines.epochs.cut` gives them."""
        return cut(indices(self.fit, self.wants, self.order), self.fit.batch_size)

    def write(self, state) -> None:
        """Put values into the model's variables, group by group."""
        for group, values in zip(self.variables, state, strict=False):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        self.written = [v.value for group in self.variables[:3] for v in group]

    def touched(self) -> bool:
        """Whether a callback changed a variable since `write`."""
        now = [v.value for group in self.variables[:3] for v in group]
        return any(a is not b for a, b in zip(now, self.written, strict=True))


def _together(members: list[_Member]) -> None:
    """Train members of one group to their ends; out of memory, one half after the other."""
    if not members:
        return
    if members[0].key is None:
        for member in members:
            member.by_steps()
        return
    try:
        _Stack(members).run()
        return
    except Exception as error:
        going = [member for member in members if member.wants]
        if len(going) < 2 or "RESOURCE_EXHAUSTED" not in str(error):
            for member in going:
                member.fail(error)
            return
    # Outside the `except`, whose traceback would keep the large stack alive.
    half = len(going) // 2
    log.warning("Out of memory with %d models in a stack: going on with %d.", len(going), half)
    _together(going[:half])
    _together(going[half:])


def _apart(members: list[_Member]) -> None:
    """Train members of what was one group to their ends, each with those that are like it now."""
    groups: dict[Any, list[_Member]] = {}
    for member in members:
        groups.setdefault((member.key, _shapes(member)), []).append(member)
    for group in groups.values():
        _together(group)


def _shapes(member) -> str:
    return str([None if part is None else part.shape for part in member.batches()])


class _Stack:
    """Members of one group that want the same now, their state stacked along the first axis."""

    def __init__(self, members: list[_Member]):
        import jax

        self.members = members
        states = [[[v.value for v in g] for g in member.variables[:3]] for member in members]
        self.state = jax.device_put(_stacked(states))
        self.metrics = jax.device_put(_stacked([member.unused_metrics for member in members]))
        self.numbers = _stacked([member.numbers for member in members])
        self.data = {"train": _pooled([m.fit.data for m in members])}
        if members[0].fit.validation is not None:
            self.data["test"] = _pooled([m.fit.validation for m in members])

    def run(self) -> None:
        """Compute what the members want until none wants anything."""
        import jax

        while live := [member for member in self.members if member.wants]:
            alike = len({(m.key, _shapes(m)) for m in live}) == 1
            if not alike or 2 * len(live) <= len(self.members):  # a stopped one costs its share
                self._write([member for member in live if not member.watched])
                self.state = []
                return _apart(live)
            try:
                logs, metrics = self._compute(live[0].wants[0])
            except Exception:
                self._write(live)
                raise
            if any(m.watched or m.wants == m.last for m in live):
                host = jax.device_get([*self.state, metrics])
            touched = {}
            for i, member in enumerate(self.members):
                if not member.wants:
                    continue
                shown = member.watched or member.wants == member.last
                if shown:
                    member.write(_row(host, i))
                member.go_on(_row(logs, i))
                if member.wants and member.has_moved():
                    member.look()
                elif shown and member.wants and member.touched():
                    touched[i] = [[v.value for v in g] for g in member.variables[:3]]
            if touched:
                rows = [touched.get(i) or _row(host[:3], i) for i in range(len(self.members))]
                self.state = jax.device_put(_stacked(rows))

    def _compute(self, kind: str):
        import jax

        member = next(m for m in self.members if m.wants)
        cut = [(m if m.wants else member).batches() for m in self.members]
        arrays, which = self.data[kind]
        arguments = ((*self.state, self.metrics), self.numbers, which, _stacked(cut), arrays)
        sizes = [0 if part is None else part.shape[-1] * bool(len(part)) for part in cut[0]]
        program = compiled(
            [traced(member.fit, kind, member.numbers, size) for size in sizes], arguments
        )
        logs, state = program(*arguments)
        logs = jax.device_get(logs)  # an error of the computation is raised here at the latest
        self.state = list(state[:3])
        return logs, state[3]

    def _write(self, live) -> None:
        import jax

        host = jax.device_get(self.state)
        for i, member in enumerate(self.members):
            if member in live:
                member.write(_row(host, i))


def _identities(model) -> list[int]:
    return [id(variable) for group in variables(model) for variable in group]


def _stacked(trees: Sequence):
    import jax

    # On the host: a stack on the device would compile a program for every number of members.
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(leaf) for leaf in leaves]), *trees)


def _row(tree, i: int):
    import jax

    return jax.tree.map(lambda leaf: leaf[i], tree)


def _pooled(data: Sequence[tuple]):
    """Every array once, stacked, and for each member which of them is its own."""
    import jax

    leaves, structure = zip(*(jax.tree.flatten(parts) for parts in data), strict=True)
    arrays, which = [], []
    for parts in zip(*leaves, strict=True):
        unique = {id(part): part for part in parts}
        places = {key: i for i, key in enumerate(unique)}
        arrays.append(jax.device_put(_stacked(list(unique.values()))))
        which.append(np.array([places[id(part)] for part in parts], "int32"))
    return jax.tree.unflatten(structure[0], arrays), jax.tree.unflatten(structure[0], which)

"""The program that a stack of models runs, and which models may share one.

Two `Fit`s whose training steps trace to the same JAX expression over the same shapes differ in
nothing but the numbers put in; no comparison of configurations could promise that for losses,
layers and schedules of a user's own.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np

from lab.engines.epochs import length, taken

MOST_PROGRAMS = 32  # compiled functions kept; an arm needs two, one to train and one to validate
_programs: dict[tuple, Callable] = {}


def variables(model) -> list[list]:
    """A model's variables in the groups that Keras's stateless `train_step` takes."""
    optimizer = model.optimizer.variables
    lists = (model.trainable_variables, model.non_trainable_variables, optimizer)
    return [*map(list, lists), list(model.metrics_variables)]


def way() -> str:
    """How one program goes through its members.

    An accelerator computes them at once. A CPU gains nothing from that (`vmap` makes grouped
    convolutions that are slower), and one after the other gives each the same bits in any company.
    """
    import jax

    return "map" if jax.default_backend() == "cpu" else "vmap"


def _step(model, kind: str) -> Callable:
    """`(state, numbers, batch) -> logs, state`: the model's own step, with a schedule's numbers."""

    def step(state, numbers, batch):
        with _as_inputs(model, numbers):
            if kind == "train":
                logs, state = model.train_step(tuple(state), batch)
                return logs, tuple(state)
            trainable, other, optimizer, metrics = state
            logs, (trainable, other, metrics) = model.test_step((trainable, other, metrics), batch)
            return logs, (trainable, other, optimizer, metrics)

    return step


def compiled(model, key: tuple, kind: str, arguments: Sequence) -> Callable:
    """The compiled epoch of a group; kept, because the next trials of an arm need it again.

    `arguments` are those that it will be called with: for other shapes, such as of another number
    of members, it would be traced again, and by then with a model whose training is over.
    """
    import jax

    how = way()
    shapes = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tuple(arguments))
    name = (key, kind, how, str(shapes))
    if name in _programs:
        return _programs[name]
    step = _step(model, kind)

    @jax.jit
    def program(state, numbers, which, cut, arrays):
        def one_member(own):
            state, numbers, which, (head, tail) = own

            def one(state, index):
                batch = jax.tree.map(lambda part, w: part[w, index], arrays, which)
                logs, state = step(state, numbers, batch)
                return state, logs

            logs = None
            if len(head):
                state, every = jax.lax.scan(one, state, head)
                logs = jax.tree.map(lambda values: values[-1], every)
            if tail is not None:
                state, logs = one(state, tail)
            return logs, state

        each = (state, numbers, which, cut)
        return jax.lax.map(one_member, each) if how == "map" else jax.vmap(one_member)(each)

    while len(_programs) >= MOST_PROGRAMS:
        _programs.pop(next(iter(_programs)))
    _programs[name] = program
    return program


def _rate(model):
    optimizer = model.optimizer
    return getattr(optimizer, "inner_optimizer", optimizer)._learning_rate


def _schedule_numbers(model) -> dict[str, np.float32]:
    """The floats of a learning-rate schedule, which a program takes as inputs."""
    import keras

    schedule = _rate(model)
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return {}  # a plain rate is a variable of the optimizer
    with contextlib.suppress(NotImplementedError):
        named = {name: getattr(schedule, name, None) for name in sorted(schedule.get_config())}
        return {k: np.float32(v) for k, v in named.items() if isinstance(v, float)}
    return {}


@contextlib.contextmanager
def _as_inputs(model, numbers: dict):
    schedule = _rate(model)
    before = {name: getattr(schedule, name) for name in numbers}
    try:
        for name, value in numbers.items():
            setattr(schedule, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(schedule, name, value)


def group_key(fit) -> tuple[tuple, dict]:
    """What members of a group have in common, and the numbers in which they may differ."""
    import jax

    numbers = _schedule_numbers(fit.model)
    try:
        traced = _traced(fit, numbers)
    except (TypeError, jax.errors.ConcretizationTypeError):
        if not numbers:
            raise
        numbers = {}  # a schedule that computes with Python floats groups by its values
        traced = _traced(fit, numbers)
    sizes = [fit.size, length(fit.validation) if fit.validation is not None else 0]
    structure = str(jax.tree.structure((fit.data, fit.validation)))
    return (fit.batch_size, fit.epochs, *sizes, structure, *traced), numbers


def _traced(fit, numbers) -> list[str]:
    """The model's steps as JAX expressions: text without addresses, digests of constants."""
    import jax

    state = tuple([v.value for v in group] for group in variables(fit.model))
    texts = []
    for kind, data in (("train", fit.data), ("test", fit.validation)):
        if data is None:
            continue
        batch = jax.tree.map(jax.numpy.asarray, taken(data, slice(fit.batch_size)))
        made, (logs, _) = jax.make_jaxpr(_step(fit.model, kind), return_shape=True)(
            state, numbers, batch
        )
        digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", str(made)).encode())
        for constant in _constants(made):
            digest.update(np.asarray(constant).tobytes())
        texts.append(f"{digest.hexdigest()} {sorted(logs)}")
    return texts


def _constants(closed) -> Generator[Any, None, None]:
    """Arrays that an expression refers to but does not print."""
    yield from getattr(closed, "consts", ())
    for equation in getattr(closed, "jaxpr", closed).eqns:
        yield from (v.val for v in equation.invars if hasattr(v, "val") and np.ndim(v.val))
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns"):
                    yield from _constants(inner)

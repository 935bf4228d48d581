"""The program that a stack of models runs, and which models may share one.

Two `Fit`s whose training steps trace to the same JAX expression over the same shapes differ in
nothing but the numbers put in; no comparison of configurations could promise that for losses,
layers and schedules of a user's own.
"""

import hashlib
import re
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
from jax.extend.core import jaxpr_as_fun

from lab.engines import schedules
from lab.engines.arrays import length, taken
from lab.engines.building import has_own_step
from lab.engines.code import Same
from lab.engines.compiled import kept

MOST_PROGRAMS = 32  # compiled functions kept; an arm needs two, one to train and one to validate
# Parameters that say how to differentiate, which has been done when a step is traced.
DERIVATIVES = {
    "jvp_jaxpr_fun",
    "jvp_jaxpr_thunk",
    "fwd_jaxpr_thunk",
    "bwd",
    "fwd",
    "jvp",
    "out_trees",
}
_programs: dict[tuple, Callable] = {}


def variables(model) -> list[list]:
    """A model's variables in the groups that Keras's stateless `train_step` takes."""
    optimizer = model.optimizer.variables if model.optimizer is not None else []
    lists = (model.trainable_variables, model.non_trainable_variables, optimizer)
    return [*map(list, lists), list(model.metrics_variables)]


def way() -> str:
    """How one program goes through its members.

    An accelerator computes them at once. A CPU gains nothing from that (`vmap` makes grouped
    convolutions that are slower), and one after the other gives each the same bits in any company.
    """
    import jax

    return "map" if jax.default_backend() == "cpu" else "vmap"


def step_of(model, kind: str, own: bool) -> Callable:
    """`(state, numbers, batch) -> logs, state`: the model's own step, with a schedule's numbers."""
    import keras

    def step(state, numbers, batch):
        trainable, other, optimizer, metrics = state
        with schedules.lent(model, numbers):
            if kind == "train":
                logs, state = model.train_step(tuple(state), batch)
                trainable, other, optimizer, metrics = state
            else:
                logs, state = model.test_step((trainable, other, metrics), batch)
                trainable, other, metrics = state
        if own:
            mapping = list(zip(model.metrics_variables, metrics, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                logs = model._get_metrics_result_or_logs(logs)  # which of them `fit` shows
        return logs, (list(trainable), list(other), list(optimizer), list(metrics))

    return step


class Traced:
    """A model's step as a JAX expression.

    Attributes:
        key: Equal for expressions that compute the same.
    """

    def __init__(self, model, kind: str, state, numbers, batch):
        import jax

        step = step_of(model, kind, has_own_step(model, kind))
        arguments = jax.tree.map(_shaped, (state, numbers, batch))
        self._made, shown = jax.make_jaxpr(step, return_shape=True)(*arguments)
        self._out = jax.tree.structure(shown)
        before, after = (jax.tree.map(_shape, one) for one in (arguments[0], shown[1]))
        if before != after:
            raise TypeError("a step changes the shape or the type of what it computes with")
        text = [str(self._made), str(self._out), str(jax.tree.structure(arguments))]
        digest = hashlib.sha256(re.sub(r"0x[0-9a-f]+", "", "".join(text)).encode())
        for constant in _constants(self._made):
            digest.update(f"{constant.dtype} {constant.shape}".encode())
            digest.update(np.asarray(constant).tobytes())
        self.key = (kind, digest.hexdigest(), *map(Same, _unsaid(self._made)))

    def __call__(self, state, numbers, batch):
        """Logs and the new state, as of the step that was traced."""
        import jax

        flat = jax.tree.leaves((state, numbers, batch))
        return jax.tree.unflatten(self._out, jaxpr_as_fun(self._made)(*flat))


def _shaped(leaf):
    import jax

    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _shape(leaf) -> tuple:
    return tuple(leaf.shape), str(leaf.dtype)


def equations(closed) -> Generator[Any, None, None]:
    """Those of an expression and of all inside of it."""
    for equation in getattr(closed, "jaxpr", closed).eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def _unsaid(closed) -> Generator[Any, None, None]:
    """What an expression calls, such as functions outside of JAX, and its text does not show."""
    for equation in equations(closed):
        for name, value in equation.params.items():
            if name not in DERIVATIVES and "0x" in repr_of(value):
                yield value


def repr_of(value) -> str:
    """How a parameter reads, but for expressions, which are looked at by themselves."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(repr_of, value))
    return "" if hasattr(value, "eqns") else repr(value)


def compiled(traced: Sequence, arguments: Sequence) -> Callable:
    """The compiled epoch of a group; kept, because the next trials of an arm need it again.

    Args:
        traced: The `Traced` step of a whole batch and that of the last one, None where there is
            no such batch.
        arguments: Those that it will be called with.
    """
    import jax

    how = way()
    shapes = jax.tree.map(_shape, tuple(arguments))
    name = (*(one and one.key for one in traced), how, str(shapes))
    if name in _programs:
        return _programs[name]
    step, last = traced

    @jax.jit
    def program(state, numbers, which, cut, arrays):
        def one_member(own):
            state, numbers, which, (head, tail) = own

            def one(state, index, step=step):
                batch = jax.tree.map(lambda part, w: part[w, index], arrays, which)
                logs, state = step(state, numbers, batch)
                return state, logs

            logs = None
            if len(head):
                state, every = jax.lax.scan(one, state, head)
                logs = jax.tree.map(lambda values: values[-1], every)
            if tail is not None:
                state, logs = one(state, tail, last)
            return logs, state

        each = (state, numbers, which, cut)
        return jax.lax.map(one_member, each) if how == "map" else jax.vmap(one_member)(each)

    while len(_programs) >= MOST_PROGRAMS:
        _programs.pop(next(iter(_programs)))
    _programs[name] = program
    return program


def traced(fit, kind: str, numbers: dict, size: int) -> Traced | None:
    """A model's step for batches of so many examples; as `fit`, traced once for every shape."""
    import jax

    if not size:
        return None
    state = tuple([v.value for v in group] for group in variables(fit.model))
    batch = taken(fit.data if kind == "train" else fit.validation, slice(size))
    key = str(jax.tree.map(_shape, (state, batch)))
    return kept(fit.model, kind, key, lambda: Traced(fit.model, kind, state, numbers, batch))


def group_key(fit) -> tuple[tuple, dict]:
    """What members of a group have in common, and the numbers in which they may differ."""
    import jax

    numbers = {k: np.float32(v) for k, v in schedules.numbers(fit.model).items()}
    sizes = {"train": fit.size, "test": 0 if fit.validation is None else length(fit.validation)}
    keys = []
    for kind, size in sizes.items():
        for part in (fit.batch_size if size >= fit.batch_size else 0, size % fit.batch_size):
            keys.append(getattr(traced(fit, kind, numbers, part), "key", None))
    structure = str(jax.tree.structure((fit.data, fit.validation)))
    return (fit.batch_size, fit.epochs, *sizes.values(), structure, *keys), numbers


def _constants(closed) -> Generator[Any, None, None]:
    """Arrays that an expression refers to but does not print."""
    yield from getattr(closed, "consts", ())
    for equation in equations(closed):
        yield from (v.val for v in equation.invars if hasattr(v, "val") and np.ndim(v.val))
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                yield from getattr(inner, "consts", ())
                if isinstance(inner, np.ndarray):
                    yield inner

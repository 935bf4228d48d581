"""A pass over the data on JAX as one program a step, the loop in Python.

For convolutions on a CPU, which XLA's loops run on a slow path: 5.8 s a step for a small network
that takes 0.2 s outside of one. All else is a stack of one (`lab.engines.stacked`).
"""

import jax

from lab.engines.building import has_own_step
from lab.engines.compiled import Passes, kept
from lab.engines.epochs import cut
from lab.engines.program import step_of


def passes(fit) -> Passes:
    """Yields the logs of the passes that it is sent, with `fit.model` as callbacks expect it."""
    model = fit.model
    data = {"train": jax.tree.map(jax.numpy.asarray, tuple(fit.data))}
    if fit.validation is not None:
        data["test"] = jax.tree.map(jax.numpy.asarray, tuple(fit.validation))
    logs = None
    while True:
        (kind, _), order = yield logs
        run = kept(model, kind, "one step", lambda kind=kind: _compiled(model, kind))
        head, tail = cut(order, fit.batch_size)
        groups = _groups(model)
        state = tuple([v.value for v in group] for group in groups)
        for index in [*head, *([] if tail is None else [tail])]:
            logs, state = run(state, data[kind], index)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        logs = jax.device_get(logs)


def _groups(model) -> list:
    variables = [model.trainable_variables, model.non_trainable_variables]
    return [*variables, model.optimizer.variables, model.metrics_variables]


def _compiled(model, kind: str):
    step = step_of(model, kind, has_own_step(model, kind))

    @jax.jit
    def one(state, arrays, index):
        return step(state, {}, jax.tree.map(lambda part: part[index], arrays))

    return one

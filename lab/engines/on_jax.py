"""A pass over the data on JAX as one program a step, the loop in Python.

For convolutions on a CPU, which XLA's loops run on a slow path: 5.8 s a step for a small network
that takes 0.2 s outside of one. All else is a stack of one (`lab.engines.stacked`).
"""

import functools

import jax

from lab.engines.compiled import Passes, once_per_compile
from lab.engines.epochs import cut, numbers


def passes(fit) -> Passes:
    """Yields the logs of the passes that it is sent, with `fit.model` as callbacks expect it."""
    model = fit.model
    data = {"train": jax.tree.map(jax.numpy.asarray, tuple(fit.data))}
    if fit.validation is not None:
        data["test"] = jax.tree.map(jax.numpy.asarray, tuple(fit.validation))
    logs = None
    compiled: dict = {}
    while True:
        (kind, _), order = yield logs
        if kind not in compiled:
            make = functools.partial(_compiled, model, kind == "train")
            compiled[kind] = once_per_compile(model, kind, make)
        head, tail = cut(order, fit.batch_size)
        groups = _groups(model, kind == "train")
        state = tuple([v.value for v in group] for group in groups)
        logs, state = compiled[kind](state, data[kind], head, tail)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        logs = numbers(jax.device_get(logs))


def _groups(model, training: bool) -> list:
    optimizer = [model.optimizer.variables] if training else []
    variables = [model.trainable_variables, model.non_trainable_variables]
    return [*variables, *optimizer, model.metrics_variables]


def _compiled(model, training: bool):
    step = model.train_step if training else model.test_step

    @jax.jit
    def one(state, arrays, index):
        return step(state, jax.tree.map(lambda part: part[index], arrays))

    def run(state, arrays, head, tail):
        for index in [*head, *([] if tail is None else [tail])]:
            logs, state = one(state, arrays, index)
        return logs, state

    return run

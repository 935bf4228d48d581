"""Traces of TensorFlow that serve every model that is shown to be alike.

Tracing a small network takes TensorFlow as long as some thousand training steps. Trials of an arm,
and the rates that a trial tries, build the same network over and over with other numbers in it. A
traced function reads and writes numbers where its captured variables say. So what was traced for
one model is handed the variables of another, if two things are shown: that nothing a trace could
see differs (`lab.engines.alike`), and that the function touches nothing but these variables.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from lab.engines import schedules
from lab.engines.alike import Description, describe
from lab.engines.building import is_built
from lab.engines.code import Unlike

MOST_TRACES = 96
MOST_PARAMETERS = 2_000_000  # of larger models, memory is worth more than the time to trace
# Operations that have state, and have it in captured variables alone.
HARMLESS = frozenset(
    """
    ReadVariableOp AssignVariableOp AssignAddVariableOp AssignSubVariableOp VariableShape
    VarIsInitializedOp ResourceGather ResourceGatherNd While If Case
    StatefulPartitionedCall PartitionedCall Assert StatelessWhile StatelessIf
    """.split()  # noqa: SIM905
)
HARMLESS_BEGINNINGS = ("ResourceScatter", "ResourceApply", "ResourceSparseApply")
_traces: dict[tuple, tuple["Trace", list]] = {}


class Trace:
    """A traced function, and what each of its captures is.

    Attributes:
        draws: Whether it draws random numbers.
        failed: Whether XLA could not compile it.
    """

    def __init__(self, model, function: Callable, arguments: tuple, xla: bool):
        self.numbers = _variables(schedules.numbers(model))
        traced = tf.function(function, jit_compile=xla or None)
        with schedules.lent(model, self.numbers):
            self.function = traced.get_concrete_function(*arguments)
        self.captures = list(self.function.captured_inputs)
        found = self.function.graph.as_graph_def()
        functions = [one.node_def for one in found.library.function]
        self.kinds = {node.op for nodes in (found.node, *functions) for node in nodes}
        self.draws = any("Random" in kind for kind in self.kinds)
        self.failed = False

    def places(self, description: Description) -> list | None:
        """What each capture is in models that are alike; None if that is unknown for one."""
        if any(map(_has_state, self.kinds)):
            return None
        known: dict[int, Any] = {id(one): one for one in description.constants}
        known |= {id(one.handle): place for place, one in enumerate(description.variables)}
        known |= {id(one.handle): name for name, one in self.numbers.items()}
        places = [known.get(id(one)) for one in self.captures]
        return None if any(place is None for place in places) else places


class Bound:
    """A trace with the variables of one model. Called like the function that was traced."""

    def __init__(self, trace: Trace, places: list | None = None, description=None):
        self.trace = trace
        self._captures = trace.captures
        self._held: Any = (description, trace.numbers)  # handles do not keep variables alive
        if places is not None:
            numbers = _variables(description.numbers)
            self._held = (description, numbers)
            self._captures = [_capture(one, description.variables, numbers) for one in places]

    def __call__(self, *arguments):
        """What the traced function returns; it has read and written this model's variables."""
        self.trace.function.set_external_captures(self._captures)
        return self.trace.function(*arguments)


def traced(model, key: tuple, function: Callable, arguments: tuple, xla: bool) -> Bound:
    """A model's function, traced for it or for one that is alike.

    Args:
        model: A `keras.Model` that is compiled.
        key: What else the trace depends on.
        function: What to trace.
        arguments: `tf.TensorSpec`s.
        xla: Whether XLA compiles it.
    """
    description = _described(model)
    name = (description and description.key, key, xla)
    shared = _traces.get(name) if description else None
    if shared is not None:
        return Bound(*shared, description)
    trace = Trace(model, function, arguments, xla)
    if description is None:
        return Bound(trace)
    places = trace.places(description)
    if places is None:
        return Bound(trace)
    while len(_traces) >= MOST_TRACES:
        _traces.pop(next(iter(_traces)))
    _traces[name] = (trace, places)
    return Bound(trace, places, description)


def _variables(numbers: dict[str, float]) -> dict[str, tf.Variable]:
    return {name: tf.Variable(one, False, dtype=tf.float32) for name, one in numbers.items()}


def _described(model) -> Description | None:
    if not is_built(model) or model.count_params() > MOST_PARAMETERS:
        return None
    try:
        return describe(model)
    except Unlike:
        return None
    except Exception:  # an attribute that cannot be looked at
        return None


def _has_state(kind: str) -> bool:
    """Whether an operation may keep something to itself, or touch what no variable holds."""
    from tensorflow.python.framework import op_def_registry

    if kind in HARMLESS or kind.startswith(HARMLESS_BEGINNINGS):
        return False
    definition = op_def_registry.get(kind)
    return definition is None or definition.is_stateful


def _capture(place, variables: list, numbers: dict):
    if isinstance(place, int):
        return variables[place].handle
    return numbers[place].handle if isinstance(place, str) else place

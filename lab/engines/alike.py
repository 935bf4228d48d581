"""What a trace of a model can see, as a key: models with equal keys trace to equal functions.

All that can be reached from the model is walked: its layers, losses, metrics, optimizer, schedule,
with every attribute, by value. Variables count by place, shape, type and flags, for their values
are inputs of a trace; names that Keras numbers count by place. What nothing is known of makes the
model `Unlike` any other. So does nothing else: a configuration is not asked.
"""

import struct
import types
from typing import Any

from lab.engines import names, schedules, values
from lab.engines.code import Same, Unlike, is_trusted, of_module

MOST_PARTS = 200_000
HEAP_TYPE = 1 << 9  # of a class's flags: made by a class statement, or by a library that says so
FLAGS = ("_trainable", "_autocast", "_overwrite_with_gradient", "_aggregation", "_synchronization")
# What the classes of Keras keep for themselves and never read in a step. A step of a user's own
# that reads it (a layer's path, say) finds in it nothing but names that are not of its own making.
UNREAD = frozenset(
    """
    _auto_config _build_shapes_dict _inbound_nodes _outbound_nodes _parent_path _path
    _tracked _tracker _called _call_signature call_signature_parameters
    _saved_model_inputs_spec _saved_model_arg_spec _loss_ids build quantize
    _compile_config _compiled_trainable_state train_function test_function
    predict_function history stop_training stop_evaluating stop_predicting
    _eval_epoch_iterator _operations_by_depth _nodes _distribution_strategy
    _exclude_from_weight_decay_cache _initial_epoch _jax_state _jax_state_synced
    _lab_traces
    """.split()  # noqa: SIM905
)
_TRACKING = ("keras.src.utils.tracking", "tensorflow.python.trackable.data_structures")
UNREAD_OF_SEEDS = frozenset(("seed", "_initial_seed", "name"))


class Description:
    """A model's key, and what it has of one's own.

    Attributes:
        key: Hashable; equal for models that trace alike.
        variables: The backend's variables by place.
        constants: Arrays whose contents are in the key.
        numbers: The numbers of the learning-rate schedule that are not in the key.
    """

    def __init__(self, model):
        walk = _Walk(model)
        self.numbers = schedules.numbers(model)
        self.key = (_surroundings(), walk(model))
        self.variables, self.constants = walk.variables, walk.constants


def describe(model) -> Description:
    """What a trace of a model can see.

    Args:
        model: A `keras.Model` that is built and compiled, with its metrics and its optimizer.

    Raises:
        Unlike: If part of it cannot be known.
    """
    return Description(model)


def _surroundings() -> tuple:
    """Settings of the process that a trace depends on."""
    import keras

    config = keras.config
    seen = [config.backend(), config.floatx(), config.epsilon(), config.image_data_format()]
    seen += [str(config.dtype_policy()), config.is_flash_attention_enabled()]
    if config.backend() == "tensorflow":
        import tensorflow as tf

        optimizer = tf.config.optimizer
        seen += [optimizer.get_jit(), str(sorted(optimizer.get_experimental_options().items()))]
        seen.append(tf.config.experimental.tensor_float_32_execution_enabled())
        seen.append(str(tf.config.list_logical_devices()))
    return tuple(seen)


class _Walk:
    """Makes keys of objects; each is described once and referred to by its place after that."""

    def __init__(self, model):
        import keras

        self.keras, self.model = keras, model
        self.seen: dict[int, int] = {}
        self.alive: list = []
        self.parts = 0
        self.variables: list = []
        self.constants: list = []
        self.schedule = schedules.own(model)
        outputs = list(getattr(model, "output_names", None) or ())
        self.shown = outputs if len(outputs) > 1 else []  # these are names of logs
        self.names = names.of_model(model, self.shown)
        self.optimizers = names.of_optimizer(model)

    def __call__(self, thing: Any, mentioned: frozenset = frozenset()):
        """The key of anything. `mentioned`: what the code that refers to it mentions."""
        self.parts += 1
        if self.parts > MOST_PARTS:
            raise Unlike("it has too many parts")
        kind = type(thing)
        if kind is str:
            return self.names.get(thing, thing)
        if thing is None or kind in (int, bool, bytes, complex, type(...), range, types.CodeType):
            return (kind, thing)
        if kind is float:
            return struct.pack("d", thing)
        if kind in (tuple, list):
            return (kind, *map(self, thing))
        if isinstance(thing, types.ModuleType):
            return of_module(self, thing, mentioned)
        if kind is self.keras.DTypePolicy:  # a value: whether layers share one makes no difference
            return ("policy", *map(self, vars(thing).values()))
        if kind.__module__ in _TRACKING:  # lists and such, wrapped to notice what is put in
            return (kind.__name__, *values.contents(self, getattr(thing, "__wrapped__", thing)))
        if id(thing) in self.seen:
            return ("seen", self.seen[id(thing)])
        if kind is not types.MethodType:  # those are made anew whenever one asks
            self.seen[id(thing)] = len(self.seen)
            self.alive.append(thing)
        return self._part(thing, kind)

    def _part(self, thing, kind):
        if kind is object:
            return Same(thing)
        for one, describe in values.KINDS.items():
            if issubclass(kind, one):
                return describe(self, thing)
        if isinstance(thing, self.keras.Variable):
            return self._variable(thing)
        if isinstance(thing, self.keras.KerasTensor):
            return ("symbol", thing.shape, thing.dtype, thing.sparse, getattr(thing, "ragged", 0))
        return values.of_array(self, thing) or self.of_object(thing, kind)

    def _variable(self, variable):
        own = vars(variable)
        self.variables.append(variable.value)
        regularizer = own.get("_regularizer"), own.get("_constraint"), own.get("_layout")
        flags = tuple(own.get(flag) for flag in FLAGS)
        name = "" if id(variable) in self.optimizers else variable.name
        shape = tuple(variable.shape), variable.dtype, type(variable)
        return ("variable", *shape, self(name), flags, self(list(regularizer)))

    def of_object(self, thing, kind):
        known = any(_is_builtin(base) for base in kind.__mro__ if base not in values.CONTAINERS)
        named = [n for base in kind.__mro__ for n in vars(base).get("__slots__", ())]
        shown = hasattr(thing, "__dict__") or named or isinstance(thing, values.CONTAINERS[1:])
        if known or not shown:
            raise Unlike(f"nothing is known of {kind.__module__}.{kind.__qualname__}")
        state = {n: getattr(thing, n) for n in named if n != "__weakref__" and hasattr(thing, n)}
        state |= getattr(thing, "__dict__", {})
        skipped = self._unread(thing, kind)
        held = sorted(
            name
            for name in state
            if name not in skipped
            and not name.startswith(("_self_", "_obj_reference_counts"))
            and not getattr(type(state[name]), "read_in_no_step", False)
        )
        if is_trusted(kind) and isinstance(thing, self.keras.Layer):
            held = [name for name in held if not name.endswith("_initializer")]
        numbers = schedules.free(thing) if thing is self.schedule else ()
        if isinstance(thing, (self.keras.Operation, self.keras.optimizers.Optimizer)):
            name = state.get("name")
            if isinstance(name, str) and names.counts_up(thing, name) and name not in self.shown:
                state = {**state, "name": self.names.get(name, ("counted",))}
        parts = [(n, "free" if n in numbers else self(state[n])) for n in held]
        return ("object", self(kind), *parts, *values.contents(self, thing))

    def _unread(self, thing, kind) -> frozenset:
        keras = self.keras
        kinds = (keras.Layer, keras.Operation, keras.Metric, keras.Loss, keras.optimizers.Optimizer)
        if isinstance(thing, kinds):
            seeded = is_trusted(kind) and getattr(thing, "_seed_generators", None)
            return UNREAD | {"seed"} if seeded else UNREAD
        if kind is keras.random.SeedGenerator:
            return UNREAD_OF_SEEDS | {"_tracker"}
        return frozenset(("_tracker",)) if is_trusted(kind) else frozenset()


def _is_builtin(kind: type) -> bool:
    """Whether instances may hold more than Python shows."""
    made_elsewhere = type(kind).__name__ == "pybind11_type"
    return made_elsewhere or not kind.__flags__ & HEAP_TYPE

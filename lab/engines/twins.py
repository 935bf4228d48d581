"""Models kept for what was compiled for them: what is traced for one serves all that are alike.

Tracing a small network takes TensorFlow as long as some thousand training steps. Trials of an arm,
and the rates that a trial tries, build the same network over and over with other numbers in it. So
the numbers are lent to a twin, a copy that is kept with its compiled functions, and fetched back.
"""

import json
from collections.abc import Sequence
from typing import Any

from lab.engines.epochs import build, taken
from lab.machine.isolation import Surroundings

MOST_TWINS = 48
MOST_PARAMETERS = 2_000_000  # of larger models, memory is worth more than the time to trace
# Keras itself wraps others, such as `build`, on every instance.
METHODS = ("call", "train_step", "test_step", "compute_loss", "compute_metrics", "apply",
           "apply_gradients", "update_step", "get_config")  # fmt: skip
# Where a configuration has names of layers. Elsewhere the same word may mean an activation.
NAMES = ("name", "keras_history", "input_layers", "output_layers")
_twins: dict[str, "Twin | None"] = {}


class Twin:
    """A copy of a model, and the way between the two.

    Attributes:
        model: The copy, compiled alike, with variables of its own.
    """

    def __init__(self, model, batch: Sequence):
        import keras

        with Surroundings():  # what the copy draws and names must not be missing elsewhere
            self.model = keras.models.clone_model(model)
            self.model.compile_from_config(_compiled_with(model))
            build(self.model, batch)
        self.rates = _as_variables(self.model)

    def read(self, model) -> None:
        """Take the values of `model`'s variables, and of its schedule's numbers."""
        for own, other in zip(_variables(self.model), _variables(model), strict=True):
            own.assign(other.value)
        for name, rate in self.rates.items():
            rate.assign(_numbers(model)[name])

    def write(self, model) -> None:
        """Give the values back to `model`'s variables."""
        for own, other in zip(_variables(self.model), _variables(model), strict=True):
            other.assign(own.value)


def stand_in(model, data: Sequence):
    """A kept model like `model`, with its values now: what was compiled for others serves it.

    For measurements that compile something (`callbacks.SharpnessProbe`, `gradient_noise`) in many
    trials of one worker. It holds until the next call for a model that is alike; what is done to
    its weights is not done to `model`.

    Args:
        model: A `keras.Model` that is built and compiled.
        data: `(x, y)`, such as it is trained on.

    Returns:
        The kept model, or `model` itself if its configuration does not say all of it.
    """
    batch = taken(data, slice(2))
    if not model.optimizer.built:  # as the copy is
        build(model, batch)
    twin = of(model, batch, "measured")
    if twin is None:
        return model
    twin.read(model)
    return twin.model


def of(model, batch: Sequence, use: Any) -> Twin | None:
    """The twin of a model that is built and compiled, or None if there can be none.

    Only models of which Keras promises that their configuration says all: functional and
    sequential ones of layers, losses, metrics and optimizers that are Keras's own or registered
    with `keras.saving.register_keras_serializable`, none of their methods replaced.

    Args:
        model: A `keras.Model` that is built and compiled.
        batch: `(x, y)` to build the copy with.
        use: What it is for (whether by XLA, ...), JSON-able; each use has a twin of its own.
    """
    key = _key(model, use)
    if key is None:
        return None
    if key not in _twins:
        while len(_twins) >= MOST_TWINS:
            _twins.pop(next(iter(_twins)))
        try:
            _twins[key] = Twin(model, batch)
        except Exception:  # a configuration that does not build what it describes
            _twins[key] = None
    twin = _twins[key]
    return twin if twin is not None and _parts(twin.model) == _parts(model) else None


def _key(model, use: Any) -> str | None:
    import keras

    layers = list(model._flatten_layers())
    named = [model, *layers]
    if len(getattr(model, "outputs", None) or ()) > 1:  # names of outputs become names of logs
        outputs = {tensor._keras_history[0].name for tensor in model.outputs}
        named = [one for one in named if one.name not in outputs]
    own = [model, *layers, model.optimizer, _inner(model)]
    if (
        not type(model).__module__.startswith("keras.")
        or model.count_params() > MOST_PARAMETERS
        or any(map(_altered, own))
        or not (isinstance(_inner(model)._learning_rate, keras.Variable) or _schedule(model))
    ):
        return None
    names = {one.name: f"#{i}" for i, one in enumerate(named)}
    try:
        parts = [_canonical(model.get_config(), names)]
        parts += [_canonical(_compiled_with(model, numbers=False), {}), use]
        return json.dumps(parts, sort_keys=True)
    except (TypeError, ValueError, NotImplementedError):
        return None  # something has no configuration


def _canonical(part: Any, names: dict, is_name: bool = False) -> Any:
    """A configuration without initial values, and with layers' names that do not count up."""
    if isinstance(part, dict):
        if part.get("class_name") == "function" or not _says_all(part):
            raise ValueError("a part of the user's own")
        return {
            key: _canonical(value, names, key in NAMES)
            for key, value in part.items()
            if not key.endswith("_initializer") and key != "seed"
        }
    if isinstance(part, (list, tuple)):
        return [_canonical(value, names, is_name) for value in part]
    return names.get(part, part) if is_name and isinstance(part, str) else part


def _says_all(part: dict) -> bool:
    module, registered = part.get("module"), part.get("registered_name")
    return not module or module.split(".")[0] == "keras" or ">" in (registered or "")


def _altered(thing) -> bool:
    """Whether an object has a method that its class does not have so."""
    return any(method in vars(thing) for method in METHODS)


def _compiled_with(model, numbers: bool = True) -> dict:
    """The compile configuration with the optimizer as it is now; the rates' numbers left out."""
    import keras

    optimizer = keras.saving.serialize_keras_object(model.optimizer)
    if not numbers:
        optimizer["config"]["name"] = None  # counts up
        schedule = optimizer["config"].get("learning_rate")
        if isinstance(schedule, dict):
            free = _numbers(model)
            schedule["config"] = {k: v for k, v in schedule["config"].items() if k not in free}
        else:
            optimizer["config"]["learning_rate"] = None
    return {**model.get_compile_config(), "optimizer": optimizer}


def _inner(model):
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def _schedule(model):
    """The learning-rate schedule, if it is one of Keras's own."""
    import keras

    rate = _inner(model)._learning_rate
    known = isinstance(rate, keras.optimizers.schedules.LearningRateSchedule)
    return rate if known and type(rate).__module__.startswith("keras.") else None


def _numbers(model) -> dict[str, float]:
    """The floats of one of Keras's schedules: what a twin can be lent."""
    schedule = _schedule(model)
    if schedule is None:
        return {}
    named = {name: getattr(schedule, name, None) for name in schedule.get_config()}
    return {name: value for name, value in named.items() if isinstance(value, float)}


def _as_variables(model) -> dict[str, Any]:
    """The numbers of the schedule as variables, which compiled epochs read anew each time."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return {}  # only TensorFlow's twins are trained
    import tensorflow as tf

    variables = {name: tf.Variable(value, tf.float32) for name, value in _numbers(model).items()}
    for name, variable in variables.items():
        setattr(_schedule(model), name, variable)
    return variables


def _variables(model) -> list:
    return [*model.variables, *model.optimizer.variables, *model.metrics_variables]


def _parts(model) -> list:
    """What two models that are alike have in common beside their configuration."""
    kinds = [type(layer) for layer in model._flatten_layers()]
    frozen = [id(v) for v in model.trainable_variables]
    return [kinds, [(tuple(v.shape), str(v.dtype), id(v) in frozen) for v in _variables(model)]]

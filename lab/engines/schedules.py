"""Learning-rate schedules of Keras, whose numbers are inputs of what is compiled.

So the rates that a trial tries share one trace. Others' schedules keep theirs, for what they
compute with Python's floats would be rounded otherwise with a backend's, unless they say that it
would not: by an attribute `floats_may_be_traced`.
"""

import contextlib
from collections.abc import Generator, Mapping
from typing import Any


def rate(model):
    """The optimizer's rate, a `keras.Variable` or a schedule; None if there is no optimizer."""
    optimizer = getattr(model, "optimizer", None)
    return getattr(getattr(optimizer, "inner_optimizer", optimizer), "_learning_rate", None)


def own(model):
    """The learning-rate schedule of a model whose floats may be traced, or None."""
    import keras

    schedule = rate(model)
    if not isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return None
    known = type(schedule).__module__.startswith("keras.")
    return schedule if known or getattr(schedule, "floats_may_be_traced", False) else None


def free(schedule) -> dict[str, float]:
    """The floats of one of Keras's schedules by name."""
    named = {name: vars(schedule).get(name) for name in sorted(schedule.get_config())}
    return {name: value for name, value in named.items() if type(value) is float}


def numbers(model) -> dict[str, float]:
    """The floats of the model's schedule; none if it is not one of Keras's."""
    schedule = own(model)
    return {} if schedule is None else free(schedule)


@contextlib.contextmanager
def lent(model, values: Mapping[str, Any]) -> Generator[None, None, None]:
    """Put other values, such as a trace's inputs, in the place of the numbers for a while."""
    schedule = own(model)
    before = {name: getattr(schedule, name) for name in values}
    try:
        for name, value in values.items():
            setattr(schedule, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(schedule, name, value)

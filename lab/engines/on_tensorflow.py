"""A pass over the data as one `tf.function`, by XLA where that pays."""

import functools

import tensorflow as tf

from lab.engines import twins
from lab.engines.compiled import Passes, once_per_compile
from lab.engines.epochs import convolves, cut, first_batch, is_watched, last_pass, numbers

# XLA takes 0.3 to 0.6 s longer to compile a dense network and saves 60 to 200 microseconds a step.
XLA_PAYS_FROM = 4_000  # steps


def passes(fit) -> Passes:
    """Yields the logs of the passes that it is sent, with `fit.model` as callbacks expect it."""
    import keras

    steps = fit.epochs * -(-fit.size // fit.batch_size)
    xla = uses_xla(fit.model, steps) if fit.jit_compile is None else fit.jit_compile
    # Callbacks would want every epoch's values fetched back, which takes longer than tracing.
    twin = None if is_watched(fit) else twins.of(fit.model, first_batch(fit), xla)
    model = fit.model if twin is None else twin.model
    data = {"train": keras.tree.map_structure(tf.convert_to_tensor, fit.data)}
    if fit.validation is not None:
        data["test"] = keras.tree.map_structure(tf.convert_to_tensor, fit.validation)
    compiled: dict = {}
    logs = None
    if twin is not None:
        twin.read(fit.model)
    while True:
        wanted, order = yield logs
        kind = wanted[0]
        model.reset_metrics()
        # A step of the user's own may log what is no metric: its last batch then speaks for all.
        own = getattr(type(model), f"{kind}_step") is not getattr(keras.Model, f"{kind}_step")
        if kind not in compiled:
            make = functools.partial(_compiled, model, f"{kind}_step", own, xla)
            compiled[kind] = once_per_compile(model, (kind, xla), make)
        head, tail = cut(order, fit.batch_size, whole_tail=own)
        tail = None if tail is None else tf.convert_to_tensor(tail)
        logs = numbers(compiled[kind](data[kind], tf.convert_to_tensor(head), tail))
        if twin is not None and wanted == last_pass(fit):
            twin.write(fit.model)


def _compiled(model, step: str, own: bool, xla: bool):
    call = getattr(model, step)

    @tf.function(reduce_retracing=True, jit_compile=xla or None)
    def run(arrays, head, tail):
        for i in tf.range(tf.shape(head)[0]):
            call(_gathered(arrays, head[i]))
        logs = None
        if tail is not None:
            logs = call(_gathered(arrays, tail))
        return logs if own else model.get_metrics_result()

    return run


def _gathered(arrays, index):
    import keras

    return keras.tree.map_structure(lambda part: tf.gather(part, index), arrays)


def uses_xla(model, steps: int) -> bool:
    """Whether a training of so many steps runs as one XLA program.

    On a GPU what Keras has chosen. On a CPU dense networks that train for long enough: XLA makes
    these faster and convolutions slower (`make bench` shows both). Not with dropout, whose masks
    XLA draws otherwise. It depends on the training alone, never on what was compiled before.
    """
    if model.jit_compile or tf.config.list_physical_devices("GPU"):
        return bool(model.jit_compile)  # on a CPU Keras never chooses it by itself
    layers = list(model._flatten_layers())
    able = all(getattr(layer, "supports_jit", True) for layer in layers)
    random = any(getattr(layer, "_seed_generators", ()) for layer in layers)
    return able and not random and not convolves(model) and steps >= XLA_PAYS_FROM

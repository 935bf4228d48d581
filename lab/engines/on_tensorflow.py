"""A pass over the data as one `tf.function`, by XLA where that pays."""

import contextlib

import tensorflow as tf

from lab.engines import saying, traces
from lab.engines.building import build, has_own_step
from lab.engines.compiled import Passes, kept
from lab.engines.epochs import convolves, cut, first_batch
from lab.engines.steps import INSTEAD, by_step, first_line

# XLA takes 0.3 to 0.6 s longer to compile a dense network and saves 60 to 200 microseconds a step.
XLA_PAYS_FROM = 4_000  # steps


def passes(fit) -> Passes:
    """Yields the logs of the passes that it is sent, with `fit.model` as callbacks expect it."""
    import keras

    model = fit.model
    data = {"train": keras.tree.map_structure(_tensor, fit.data)}
    if fit.validation is not None:
        data["test"] = keras.tree.map_structure(_tensor, fit.validation)
    (kind, _), order = yield None
    with contextlib.suppress(Exception):  # the step can do without, or says it in `fit`'s words
        build(model, first_batch(fit))
    xla = uses_xla(model, fit.steps) if fit.jit_compile is None else fit.jit_compile
    while True:
        logs = _pass(model, kind, data[kind], order, fit.batch_size, xla)
        (kind, _), order = yield logs


def _pass(model, kind: str, data, order, batch_size: int, xla: bool):
    own = has_own_step(model, kind)
    # A step of the user's own may log what is no metric: its last batch then speaks for all.
    head, tail = cut(order, batch_size, whole_tail=own)
    arguments = (data, _tensor(head), _tensor(tail))
    for by_xla in (True, False) if xla else (False,):
        try:
            run = _compiled(model, kind, own, arguments, by_xla)
        except Exception as error:
            saying.say_once(INSTEAD, f"a whole epoch of it cannot be traced ({first_line(error)})")
            break
        if by_xla and not model.jit_compile and (run.trace.draws or run.trace.failed):
            continue  # XLA would draw other numbers
        try:
            logs = run(*arguments)
        except tf.errors.OpError as error:
            if not by_xla:
                raise
            # Nothing has happened: a program of XLA is compiled first, and writes when it is done.
            run.trace.failed = True
            saying.say_once(
                "Trained without XLA", f"it cannot compile the epoch ({first_line(error)})"
            )
            continue
        return model._get_metrics_result_or_logs(logs) if own else logs
    return by_step(model, kind, data, [*head, *([] if tail is None else [tail])])


def _tensor(part):
    return None if part is None else tf.convert_to_tensor(part)


def _compiled(model, kind: str, own: bool, arguments: tuple, xla: bool) -> traces.Bound:
    import keras

    data, _, tail = arguments
    # Batches of unknown size, as under `fit`: Keras weighs the losses of several outputs by it.
    some = tf.TensorSpec((None,), tf.int32)
    rows = tf.TensorSpec((None, None), tf.int32)
    specs = (keras.tree.map_structure(_any_number, data), rows, None if tail is None else some)
    key = (kind, own, repr(specs))
    run = _epoch(model, f"{kind}_step", own)
    return kept(model, kind, (key, xla), lambda: traces.traced(model, key, run, specs, xla))


def _any_number(part):
    return None if part is None else tf.TensorSpec((None, *part.shape[1:]), part.dtype)


def _epoch(model, step: str, own: bool):
    # As `fit` does; so it is traced once, for whole batches and the last one.
    call = tf.function(tf.autograph.experimental.do_not_convert(getattr(model, step)))

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

    def gathered(part):
        return None if part is None else tf.gather(part, index)

    return keras.tree.map_structure(gathered, arrays)


def uses_xla(model, steps: int) -> bool:
    """Whether a training of so many steps is to run as one XLA program, if that compiles.

    On a GPU what Keras has chosen. On a CPU dense networks that train for long enough: XLA makes
    these faster and convolutions slower (`make bench` shows both). Not where random numbers are
    drawn, such as with dropout, whose masks XLA draws otherwise. It depends on the training alone,
    never on what was compiled before.
    """
    if model.jit_compile or tf.config.list_physical_devices("GPU"):
        return bool(model.jit_compile)  # on a CPU Keras never chooses it by itself
    layers = list(model._flatten_layers())
    able = all(getattr(layer, "supports_jit", True) for layer in layers)
    random = any(getattr(layer, "_seed_generators", ()) for layer in layers)
    return able and not random and not convolves(model) and steps >= XLA_PAYS_FROM

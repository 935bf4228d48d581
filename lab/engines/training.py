"""The way from a `Fit` to an engine, and the plain one: `model.fit` as anyone would call it.

Every engine gives the same history for a `Fit`; `plain` is the reference for the others.
"""

from collections.abc import Sequence
from types import NoneType

from lab.engines import saying
from lab.engines.arrays import taken
from lab.engines.fit import Fit, batch_order

ENGINES = ("fused", "plain", "stacked")  # the first is the default


def train(fits, engine: str = "fused"):
    """Train one `Fit`, or a list of independent ones.

    Args:
        fits: A `Fit` or a list of them.
        engine: Which way to train; all give the same history. "plain" is `model.fit`; "fused" runs
            each epoch as one compiled function, and falls back to "plain", saying so once, for
            callbacks that want every batch; "stacked" (JAX) trains those of a list that have one
            architecture as one program, each with its own data, weights, order and rate.

    Returns:
        A `keras.callbacks.History`, or a list of them.

    Raises:
        ValueError: If the engine is unknown, or "stacked" on another backend than JAX; if a model
            is not compiled, or labels are no classes of its output.

    Example:
    ```python
    history = lab.train(Fit(model, (x, y), batch_size=32, epochs=5, seed=0))
    ```
    """
    if isinstance(fits, Fit):
        return train([fits], engine)[0]
    _check_engine(engine)
    for fit in fits:
        check(fit)
    if engine != "stacked":
        return [_fused(fit) if engine == "fused" else _plain(fit) for fit in fits]
    results = train_each(fits, engine)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def train_each(fits: Sequence[Fit], engine: str = "stacked") -> list:
    """Train independent `Fit`s; what goes wrong in one ends that one alone.

    Args:
        fits: As for `train`.
        engine: As for `train`.

    Returns:
        For each its history, or the `Exception` that ended it.

    Raises:
        ValueError: As `train`.
    """
    _check_engine(engine)
    if engine != "stacked":
        return [_caught(train, fit, engine) for fit in fits]
    from lab.engines import fused, stacked

    def why_not(fit):
        check(fit)
        if reason := fused.obstacle(fit):
            return reason  # `_fused` says it
        if reason := stacked.obstacle(fit):
            saying.say_once(stacked.INSTEAD, reason)
        return reason

    obstacles = [_caught(why_not, fit) for fit in fits]
    free = [fit for fit, obstacle in zip(fits, obstacles, strict=True) if not obstacle]
    stack = iter(stacked.train_each(free, batch_order))
    results = [obstacle or next(stack) for obstacle in obstacles]
    for i, fit in enumerate(fits):
        if not results[i]:
            why = "it shares variables or callbacks with another of its list"
            saying.say_once(stacked.INSTEAD, why)
        if not results[i] or isinstance(results[i], str):
            results[i] = _caught(_fused, fit)
    return results


def check(fit: Fit) -> None:
    """Refuse what would train to nonsense, or fail deep inside of a backend.

    Raises:
        ValueError: If the model is not compiled, or a label is not a class of its output, which
            TensorFlow's loss answers with NaN and XLA with any number.
    """
    import keras

    model = fit.model
    if not model.compiled:
        raise ValueError(
            f"`model` must be compiled before it is trained. Received: model={model.name!r}"
        )
    loss = model.loss
    sparse = isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
    if not (sparse and loss.ignore_class is None) and loss != "sparse_categorical_crossentropy":
        return
    shape = getattr(model, "output_shape", None) if model.built else None
    if not isinstance(shape, tuple) or not all(isinstance(n, (int, NoneType)) for n in shape):
        return
    classes = shape[-1]
    for name, data in (("data", fit.data), ("validation", fit.validation or ())):
        targets = keras.tree.flatten(data[1:2])
        if len(targets) != 1 or targets[0] is None or classes is None:
            continue
        (y,) = targets
        if not 0 <= y.min() <= y.max() < classes:
            raise ValueError(
                f"labels in `{name}` must be in 0 to {classes - 1}, the classes of the "
                f"model's output. Received: {y.min()} to {y.max()}"
            )


def _check_engine(engine: str) -> None:
    if engine not in ENGINES:
        raise ValueError(f"`engine` must be one of {ENGINES}. Received: engine={engine!r}")
    if engine == "stacked":
        import keras

        if (backend := keras.backend.backend()) != "jax":
            raise ValueError(
                f"The stacked engine needs the JAX backend; this is {backend}. "
                "Received: engine='stacked'"
            )


def _caught(function, *arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return error


def _fused(fit: Fit):
    import keras

    from lab.engines import fused

    if reason := fused.obstacle(fit):
        saying.say_once(fused.INSTEAD, reason)
        return _plain(fit)
    if keras.backend.backend() == "jax":
        from lab.engines import stacked

        if not stacked.obstacle(fit):
            (history,) = stacked.train_each([fit], batch_order)  # a stack of one
            if isinstance(history, Exception):
                raise history
            return history
    return fused.train(fit, batch_order)


def _plain(fit: Fit):
    import keras

    class FreshOrder(keras.utils.PyDataset):
        """The training data in batches, in the order of the epoch that `follow` announced."""

        def __init__(self):
            super().__init__()
            self.follow(0)

        def follow(self, epoch):
            self.order = batch_order(fit.seed or 0, epoch, fit.size)

        def __len__(self):
            return -(-fit.size // fit.batch_size)

        def __getitem__(self, step):
            batch = self.order[step * fit.batch_size : (step + 1) * fit.batch_size]
            given = taken(fit.data, batch)
            while given[-1] is None:  # a generator of TensorFlow's has no word for that
                given = given[:-1]
            return given

    data = FreshOrder()
    # `fit` tells callbacks of a new epoch before it opens the iterator on that epoch's batches.
    announce = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: data.follow(epoch))
    return fit.model.fit(
        data,
        epochs=fit.epochs,
        validation_data=fit.validation,
        validation_batch_size=fit.batch_size,
        callbacks=[announce, *fit.callbacks],
        shuffle=False,
        verbose=0,
    )

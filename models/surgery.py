"""What is done to a trained network: its layers taken over, a part of it trained alone."""

import math
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from models.mlp import mlp

BATCH = 1000  # examples at a time, for the memory of wide layers


class Part(NamedTuple):
    """A part of a network, to be trained while the rest stays as it is.

    Attributes:
        view: What the part sees: a function from examples `(n, *shape)` to inputs `(n, ...)`.
        fresh: Makes the part; as often as it is called, from the same start. It is compiled
            for the network's loss and for accuracy, and to be compiled anew with an optimizer.
    """

    view: Callable[[np.ndarray], np.ndarray]
    fresh: Callable[[], keras.Model]


def part(network: keras.Model, name: str, another: Callable[[], keras.Model]) -> Part:
    """A part of a network by name.

    | name | what is trained | its start |
    | --- | --- | --- |
    | `all` | every layer | the network's weights |
    | `last1`, `last2`, ... | as many of the last layers: `freeze_all_but_last` | the same |
    | `probe_top` | a linear classifier on what the head sees | zero: `zero_head` |
    | `probe_early` | a linear classifier on the first activation | the same |

    Args:
        network: A functional model, compiled; it is not changed.
        name: One of the above.
        another: Makes a model of the same architecture, compiled alike.

    Returns:
        A `Part`.

    Raises:
        ValueError: If there is no such part.

    Example:
    >>> def another():
    ...     model = mlp((8, 8, 1), 10, widths=(32,))
    ...     model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    ...     return model
    >>> probe = part(another(), "probe_top", another)
    >>> probe.view(np.zeros((5, 8, 8, 1))).shape, probe.fresh().input_shape
    ((5, 32), (None, 32))
    """
    if name == "probe_top":
        return _probe(network, network.layers[-1].input)
    if name == "probe_early":
        return _probe(network, first_activation(network))
    if name != "all" and not (name.startswith("last") and name[4:].isdecimal()):
        raise ValueError(
            f"A part is `all`, `last1`, ..., `probe_top` or `probe_early`. Received: {name!r}"
        )

    def fresh():
        model = another()
        model.set_weights(network.get_weights())
        if name != "all":
            freeze_all_but_last(model, int(name[4:]))
        return model

    return Part(lambda x: x, fresh)


def _probe(network: keras.Model, at) -> Part:
    size = math.prod(at.shape[1:])

    def fresh():
        head = zero_head((size,), network.output_shape[-1])
        head.compile(loss=network.loss, metrics=["accuracy"])
        return head

    return Part(features(network, at), fresh)


def take_over(model: keras.Model, trained: keras.Model) -> None:
    """Copies all layers but the last: what a new head is put on.

    Args:
        model: Its own last layer, the head, stays as it is; it may have other classes.
        trained: A model of the same layers.

    Raises:
        ValueError: If layers differ in number or in shape.

    Example:
    >>> old, new = mlp((4,), 5, widths=(3,), seed=0), mlp((4,), 2, widths=(3,), seed=1)
    >>> take_over(new, old)
    >>> [bool((a == b).all()) for a, b in zip(new.get_weights()[:2], old.get_weights())]
    [True, True]
    """
    for own, theirs in zip(model.layers[:-1], trained.layers[:-1], strict=True):
        own.set_weights(theirs.get_weights())


def freeze_all_but_last(model: keras.Model, kernels: int) -> None:
    """Leaves only the last layers trainable, counted by those that have a kernel.

    To be called before the first step of a training: that is when an optimizer makes its slots.

    Args:
        model: A model whose layers follow each other.
        kernels: How many dense or convolution layers are trained, with all that follows the first
            of them. Layers without a kernel (normalization) before it are frozen too.

    Raises:
        ValueError: If there are not as many.

    Example:
    >>> model = mlp((4,), 2, widths=(3, 3))
    >>> freeze_all_but_last(model, 1)
    >>> [tuple(variable.shape) for variable in model.trainable_variables]
    [(3, 2), (2,)]
    """
    at = [i for i, layer in enumerate(model.layers) if hasattr(layer, "kernel")]
    if not 1 <= kernels <= len(at):
        raise ValueError(f"`kernels` must be from 1 to {len(at)}. Received: kernels={kernels}")
    for layer in model.layers[: at[-kernels]]:
        layer.trainable = False


def first_activation(model: keras.Model):
    """The output of the first activation: the earliest features that are not linear.

    Returns:
        A tensor of the model, as `features` takes it.

    Raises:
        ValueError: If it has no `keras.layers.Activation`.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.Activation):
            return layer.output
    raise ValueError(f"There is no `Activation` layer. Received: {model.name}")


def features(model: keras.Model, at) -> Callable[[np.ndarray], np.ndarray]:
    """A frozen network as a function from examples to what it has computed at one place.

    In inference mode, with the weights that the model has when the function is called.

    Args:
        model: A functional model.
        at: A tensor of it, such as `model.layers[-1].input`: what its head sees.

    Returns:
        A function from arrays `(n, *shape)` to arrays `(n, features)`, flattened.

    Example:
    >>> model = mlp((8, 8, 1), 10, widths=(32,))
    >>> features(model, model.layers[-1].input)(np.zeros((5, 8, 8, 1))).shape
    (5, 32)
    """
    below = keras.Model(model.input, keras.layers.Flatten()(at))

    def view(x: np.ndarray) -> np.ndarray:
        starts = range(0, len(x), BATCH)
        parts = [np.asarray(below(x[i : i + BATCH], training=False)) for i in starts]
        return np.concatenate(parts)

    return view


def zero_head(shape: tuple[int, ...], classes: int) -> keras.Model:
    """A linear classifier whose weights are zero: a probe, to be trained on features.

    A random start would stay in all directions that a few examples do not span.

    Args:
        shape: Shape of one example.
        classes: Number of logits.

    Returns:
        An uncompiled model, `(batch, *shape)` to logits `(batch, classes)`.

    Example:
    >>> [float(abs(weight).max()) for weight in zero_head((32,), 10).get_weights()]
    [0.0, 0.0]
    """
    head = mlp(shape, classes, widths=())
    head.set_weights([0 * weight for weight in head.get_weights()])
    return head

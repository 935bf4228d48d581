"""Keys of values: containers, arrays, functions and what else Python and backends have."""

import functools
import hashlib
import re
import sys
import types
from collections import OrderedDict, defaultdict, deque
from typing import Any

import numpy as np

from lab.engines.code import Same, Unlike, is_trusted, of_class, of_function


def _dictionary(walk, thing):
    # An optimizer finds its variables by paths or, on JAX, by addresses.
    keys = (walk.names.get(key) if type(key) is int else None for key in thing)
    parts = zip(keys, thing.items(), strict=True)
    return (type(thing), *((known or walk(key), walk(value)) for known, (key, value) in parts))


def _set(walk, thing):
    try:
        return (type(thing), *sorted((walk(one) for one in thing), key=repr))
    except TypeError as error:
        raise Unlike("a set of what has no order") from error


def _array(walk, thing):
    if thing.dtype.hasobject:
        raise Unlike("an array of objects")
    walk.constants.append(thing)
    digest = hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest()
    return ("array", thing.dtype.str, thing.shape, digest)


def of_array(walk, thing):
    """The key of an array or a variable of a backend, or nothing."""
    tf, jax = sys.modules.get("tensorflow"), sys.modules.get("jax")
    if tf is not None and hasattr(tf, "Variable"):
        if isinstance(thing, tf.Variable):
            walk.variables.append(thing)
            return ("tf variable", tuple(thing.shape), thing.dtype.name, thing.trainable)
        if isinstance(thing, (tf.DType, tf.TensorShape)):
            return (str(type(thing)), str(thing))
        if tf.is_tensor(thing):
            if not hasattr(thing, "numpy") or not hasattr(thing, "_handle_data"):
                raise Unlike("it holds a tensor that has no value")
            walk.constants.append(thing)
            return ("tensor", _array(walk, np.asarray(thing)))
    if jax is not None and isinstance(thing, jax.Array):
        if isinstance(thing, jax.core.Tracer) or not jax.numpy.issubdtype(thing.dtype, np.generic):
            raise Unlike("it holds a value of JAX that is not known")
        return ("jax", _array(walk, np.asarray(thing)), bool(getattr(thing, "weak_type", False)))
    return None


def _method(walk, thing):
    return ("method", walk(thing.__func__), walk(thing.__self__))


def _builtin(walk, thing):
    owner = getattr(thing, "__self__", None)
    if owner is None or isinstance(owner, types.ModuleType):
        if not is_trusted(thing) and not is_trusted(type(thing)):
            raise Unlike(f"nothing is known of {thing!r}")
        return Same(thing)
    return ("builtin", thing.__name__, walk(owner))


def _partial(walk, thing):
    return ("partial", walk(thing.func), walk(thing.args), walk(thing.keywords))


def _wrapped(walk, thing):
    return (type(thing), walk(thing.__func__))


def _property(walk, thing):
    return ("property", walk(thing.fget), walk(thing.fset), walk(thing.fdel))


def _itself(walk, thing):
    return Same(thing)


def _value(walk, thing):
    return (type(thing), str(thing), thing.tobytes() if isinstance(thing, np.generic) else None)


def _pattern(walk, thing):
    return ("pattern", thing.pattern, thing.flags)


KINDS: dict[type, Any] = {
    dict: lambda walk, thing: (
        _dictionary(walk, thing)
        if type(thing) in (dict, OrderedDict, defaultdict)
        else walk.of_object(thing, type(thing))
    ),
    types.MappingProxyType: _dictionary,
    set: lambda walk, thing: (
        _set(walk, thing) if type(thing) is set else walk.of_object(thing, type(thing))
    ),
    frozenset: _set,
    np.ndarray: _array,
    np.generic: _value,
    np.dtype: _value,
    type: of_class,
    types.FunctionType: of_function,
    types.MethodType: _method,
    types.BuiltinFunctionType: _builtin,
    np.ufunc: _itself,
    functools.partial: _partial,
    staticmethod: _wrapped,
    classmethod: _wrapped,
    property: _property,
    types.MemberDescriptorType: _itself,
    types.GetSetDescriptorType: _itself,
    types.WrapperDescriptorType: _itself,
    types.MethodDescriptorType: _itself,
    re.Pattern: _pattern,
}
CONTAINERS = (object, list, tuple, dict, set, frozenset, str, int, float, deque, OrderedDict,
               defaultdict)  # fmt: skip


def contents(walk, thing) -> list:
    """What an object holds that is a container too."""
    if isinstance(thing, dict):
        return [_dictionary(walk, thing)]
    if isinstance(thing, (set, frozenset)):
        return [_set(walk, thing)]
    if isinstance(thing, (list, tuple, deque)):
        return [tuple(map(walk, thing))]
    if isinstance(thing, (str, int, float)):
        return [repr(thing)]
    return []

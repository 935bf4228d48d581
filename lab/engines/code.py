"""Functions, classes and modules as keys: what they would compute, as far as that can be seen.

What is Keras's, TensorFlow's, JAX's or NumPy's own is itself. What somebody else wrote is its
byte code with all that this refers to: defaults, closures, and globals by name, as deep as it goes.
"""

import dis
import functools
import sys
import types
from typing import Any

TRUSTED = frozenset(
    """
    keras tensorflow jax jaxlib numpy ml_dtypes optree scipy builtins math functools
    itertools operator collections _collections _collections_abc _operator _functools
    typing abc re inspect enum dataclasses contextlib warnings numbers types copy copyreg
    string
    """.split()  # noqa: SIM905
)
# What these find depends on more than their code shows.
OPAQUE = frozenset(
    """
    globals locals eval exec open input __import__ compile breakpoint
    """.split()  # noqa: SIM905
)
BY_NAME = frozenset(
    """
    getattr vars __dict__ dir
    """.split()  # noqa: SIM905
)
UNSEEN = frozenset(
    """
    __dict__ __weakref__ __doc__ __module__ __annotations__ __firstlineno__ __qualname__
    __static_attributes__ __parameters__ __orig_bases__ __abstractmethods__ _abc_impl
    __annotate__ __annotate_func__ __annotations_cache__ __match_args__ __slots__
    _keras_api_export_path _keras_api_export_symbol_id _tf_api_names _tf_api_names_v1
    """.split()  # noqa: SIM905
)


class Unlike(Exception):
    """Nothing can be shown to be like this."""


class Same:
    """One object and no other, whatever it calls equal; alive as long as a key has it."""

    def __init__(self, thing: Any):
        self.thing = thing

    def __eq__(self, other):
        return isinstance(other, Same) and self.thing is other.thing

    def __hash__(self):
        return id(self.thing)


def is_trusted(thing: Any) -> bool:
    """Whether a class, function or module belongs to a library that is taken to stay as it is."""
    name = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__
    return isinstance(name, str) and name.split(".")[0] in TRUSTED


def of_module(walk, module, names: frozenset):
    """A module as a function sees it that mentions these names."""
    if is_trusted(module):
        if module.__name__.startswith("numpy") and "random" in names:
            raise Unlike("it draws from NumPy's global generator")
        return Same(module)
    if module.__name__.split(".")[0] in sys.stdlib_module_names:
        raise Unlike(f"its code uses the module {module.__name__}")
    if names & BY_NAME:
        raise Unlike(f"its code reads {module.__name__} in a way that does not show")
    found = sorted(name for name in names if name in vars(module))
    return ("module", module.__name__, *((n, walk(vars(module)[n], names)) for n in found))


def of_function(walk, function):
    """A Python function."""
    cells = function.__closure__ or ()
    if is_trusted(function) and not cells and "<locals>" not in function.__qualname__:
        return Same(function)
    code = function.__code__
    parts: list = [code, walk(function.__defaults__), walk(function.__kwdefaults__)]
    for cell in cells:
        try:
            parts.append(walk(cell.cell_contents))
        except ValueError:
            parts.append("empty")
    if not is_trusted(function):
        parts.append(_globals(walk, function))
        parts.append(walk({k: v for k, v in vars(function).items() if k not in UNSEEN}))
    return ("function", *parts)


def _globals(walk, function):
    names, imported = _mentioned(function.__code__)
    if OPAQUE & names - function.__globals__.keys():
        raise Unlike(f"its code calls {', '.join(OPAQUE & names)}")
    parts: list = []
    for name in sorted(names & function.__globals__.keys()):
        parts.append((name, walk(function.__globals__[name], names)))
    for name in sorted(imported):
        if name not in sys.modules:
            raise Unlike(f"its code imports {name or 'a neighbour'}")
        parts.append(("import", name, of_module(walk, sys.modules[name], names)))
    return tuple(parts)


@functools.lru_cache(maxsize=4096)
def _mentioned(code) -> tuple[frozenset, frozenset]:
    """The names in some code and in the functions inside of it, and the modules it imports."""
    names, imported = set(code.co_names), set()
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            imported.add(step.argval)
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            more, further = _mentioned(inner)
            names |= more
            imported |= further
    return frozenset(names), frozenset(imported)


def of_class(walk, kind: type):
    """A class: itself, and what it and its bases hold now, for either may be replaced."""
    parts: list = []
    for base in kind.__mro__:
        if base is object:
            continue
        # Python adds to the unseen ones when somebody asks for them, as for `__annotations__`.
        own = {k: v for k, v in vars(base).items() if k not in UNSEEN}
        if is_trusted(base):
            # Their methods may have been replaced, but not what these refer to.
            parts.append((Same(base), tuple(map(Same, own.values()))))
            continue
        parts.append((Same(base), *((name, walk(own[name])) for name in sorted(own))))
    return ("class", *parts)

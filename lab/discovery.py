"""Finds experiments and models in their folders, and the name that was probably meant.

Dropping a file into `experiments/` or `models/` registers it; a broken one raises and is never
skipped.
"""

import ast
import difflib
import importlib
from collections.abc import Callable, Iterable
from pathlib import Path

from lab.vocabulary import NAME, Experiment

ROOT = Path(__file__).resolve().parent.parent


class UsageError(Exception):
    """The command line asks for something that does not exist: one sentence, exit status 2."""


def nearest(what: str, value: str, known: Iterable[str]) -> UsageError:
    """The error for an unknown name, with the nearest known one.

    >>> str(nearest("SCALE", "quik", ["smoke", "quick"]))
    "SCALE='quik' is unknown: did you mean 'quick'?"
    """
    known = sorted(known)
    close = difflib.get_close_matches(value[:100].lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}."
    shown = value if len(value) <= 60 else value[:57] + "..."
    return UsageError(f"{what}={shown!r} is unknown: {hint}")


def _modules(folder: str) -> list[str]:
    return sorted(p.stem for p in (ROOT / folder).glob("*.py") if NAME.fullmatch(p.stem))


def experiment_names() -> list[str]:
    """Every file of `experiments/` that does not begin with an underscore."""
    return _modules("experiments")


def load_experiment(name: str) -> Experiment:
    """Import `experiments/<name>.py` and return its `EXPERIMENT`.

    Raises:
        UsageError: If there is no such file.
        TypeError: If the file defines no `EXPERIMENT`.
    """
    if name not in experiment_names():
        raise nearest("NAME", name, experiment_names())
    module = importlib.import_module(f"experiments.{name}")
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise TypeError(f"experiments/{name}.py must define EXPERIMENT = Experiment(...)")
    return experiment


def model_names() -> list[str]:
    """Files of `models/` that define a function of their own name taking `shape` and `classes`.

    Read from the syntax tree: importing a model would import Keras.
    """
    found = []
    for name in _modules("models"):
        for node in ast.parse((ROOT / "models" / f"{name}.py").read_text("utf-8")).body:
            if not isinstance(node, ast.FunctionDef) or node.name != name:
                continue
            if [arg.arg for arg in node.args.args[:2]] == ["shape", "classes"]:
                found.append(name)
    return found


def load_model(name: str) -> Callable:
    """The function `models/<name>.py` is named after; imports Keras."""
    if name not in model_names():
        raise nearest("MODEL", name, model_names())
    return getattr(importlib.import_module(f"models.{name}"), name)

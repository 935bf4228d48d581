"""Finds experiments and models in their folders, and the name that was probably meant.

Dropping a file into `experiments/` or `models/` registers it; a broken one raises and is never
skipped.
"""

import ast
import difflib
import importlib
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from lab.claims.vocabulary import NAME, Experiment

ROOT = Path(__file__).resolve().parents[2]


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


class Unusable(UsageError):
    """A file of `experiments/` that is no experiment; says which, and why."""


def experiment_names() -> list[str]:
    """Every file of `experiments/` and its folders that does not begin with an underscore.

    In the order of folders, which are parts of the lecture, then of names.
    """
    return list(_experiments())


def part_of(name: str) -> str:
    """The folder that an experiment lies in, below `experiments/`; empty if in none.

    >>> part_of("batch_size")
    'generalization'
    """
    return "/".join(_experiments()[name][0].relative_to(ROOT / "experiments").parts[:-1])


def load_experiment(name: str) -> Experiment:
    """Import the file of `experiments/` that has this name and return its `EXPERIMENT`.

    Raises:
        UsageError: If there is no such file.
        Unusable: If there are two, a folder has that name too, the file does not import, or it
            defines no `EXPERIMENT`.
    """
    found = _experiments()
    if name not in found:
        raise nearest("NAME", name, found)
    files = [path.relative_to(ROOT).as_posix() for path in found[name]]
    if len(files) > 1:
        raise Unusable(f"NAME={name!r} is not one experiment but {len(files)}: {', '.join(files)}.")
    folders = [path.parts[-1] for path in (ROOT / "experiments").rglob(name) if path.is_dir()]
    if folders:
        raise Unusable(f"{files[0]} has the name of a folder of experiments/: rename one of them.")
    try:
        module = importlib.import_module(files[0].removesuffix(".py").replace("/", "."))
        return _declared(module)
    except Exception as error:
        where = _line(error, found[name][0])
        raise Unusable(f"{files[0]}{where}: {type(error).__name__}: {error}") from error


def load_usable() -> tuple[dict[str, Experiment], list[str]]:
    """Every experiment that can be loaded, and a sentence about each file that cannot."""
    usable, wrong = {}, []
    for name in experiment_names():
        try:
            usable[name] = load_experiment(name)
        except Unusable as error:
            wrong.append(str(error))
    return usable, wrong


def _experiments() -> dict[str, list[Path]]:
    """Names with the files that have them."""
    found: dict[str, list[Path]] = {}
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        if NAME.fullmatch(path.stem):
            found.setdefault(path.stem, []).append(path)
    return found


def _declared(module) -> Experiment:
    experiment = getattr(module, "EXPERIMENT", None)
    if not isinstance(experiment, Experiment):
        raise TypeError("it must define EXPERIMENT = Experiment(...)")
    return experiment


def _line(error: BaseException, path: Path) -> str:
    """The line of a file at which an exception was raised, as ", line 7"."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f", line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def model_names() -> list[str]:
    """Files of `models/` that define a function of their own name taking `shape` and `classes`.

    Read from the syntax tree: importing a model would import Keras.
    """
    found = []
    for path in sorted((ROOT / "models").glob("*.py")):
        name = path.stem
        for node in ast.parse(path.read_text("utf-8")).body:
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

"""What a trial's rows depend on, so that a changed source, setting or library makes it stale.

Sources are followed through `import` statements, from the experiment, the model and the trial
machinery. Of each file counts what it does: comments, docstrings and layout do not, and neither do
constants of an experiment that its functions never read (claims and figures; arms and scales are
compared value by value instead).
"""

import ast
import hashlib
import json
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lab import data_tfds, discovery
from lab.vocabulary import Experiment, Setting

PACKAGES = ("callbacks", "experiments", "lab", "models")
# These declare and judge; no row depends on them.
FIGURES = "lab.vocabulary_figures"
NOT_IN_ROWS = ("lab", "lab.vocabulary", FIGURES, "lab.stats", "lab.discovery")
DATA_PACKAGE = {"digits": "scikit-learn", "mnist1d": "mnist1d"}
THREADS = 1  # of every worker: results depend on it (trap 16)


def describe(name: str, experiment: Experiment, arm: str, setting: Setting) -> dict:
    """Everything that a trial's rows depend on but its seed, as JSON-able nested mappings."""
    scale = {k: v for k, v in experiment.scales[setting.scale].items() if k != "seeds"}
    return {
        "sources": _sources((f"experiments.{name}", f"models.{setting.model}", "lab.trial")),
        "arm": _plain(experiment.arms[arm]),
        "scale": _plain(scale),
        "versions": _versions(setting),
        "threads": THREADS,
    }


def digest(described: dict) -> str:
    """The fingerprint: SHA-256 of the description."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def what_changed(before: dict, now: dict) -> str:
    """The differences of two descriptions, as a short phrase.

    >>> what_changed({"arm": {"lr": 1}, "threads": 1}, {"arm": {"lr": 2}, "threads": 1})
    'arm lr: 1 -> 2'
    """
    changes = []
    for part in sorted(now.keys() | before.keys()):
        old, new = before.get(part), now.get(part)
        if old == new:
            continue
        if not (isinstance(old, dict) and isinstance(new, dict)):
            changes.append(f"{part}: {old} -> {new}")
            continue
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                how = "" if part == "sources" else f": {old.get(key)} -> {new.get(key)}"
                changes.append(f"{key} changed" if not how else f"{part} {key}{how}")
    return ", ".join(changes)


@cache
def git_commit() -> str:
    """The commit of the checkout, "-dirty" if it was changed, "" without git."""
    git = ["git", "-C", str(discovery.ROOT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", *PACKAGES], capture_output=True, text=True, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}-dirty" if changed else commit


def _plain(settings) -> dict:
    return json.loads(json.dumps(dict(settings), default=str))


def _versions(setting: Setting) -> dict[str, str]:
    names = ["keras", setting.backend, "numpy", "scipy"]
    names.append(DATA_PACKAGE.get(setting.data, "tensorflow-datasets"))
    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    versions |= {name: _version(name) for name in names}
    if setting.data not in DATA_PACKAGE:
        versions[f"data {setting.data}"] = _prepared(setting.data)
    return versions


def _prepared(data: str) -> str:
    """Version of a TFDS data set on this machine, and a digest of what TFDS wrote down of it."""
    folder = data_tfds.find(data)
    if folder is None:
        return "absent"
    told = hashlib.sha256((folder / "dataset_info.json").read_bytes()).hexdigest()
    return f"{folder.name} {told[:16]}"


@cache
def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


@cache
def _sources(roots: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    todo = list(roots)
    while todo:
        module = todo.pop()
        path = _path(module)
        if path is None or module in NOT_IN_ROWS:
            continue
        name = path.relative_to(discovery.ROOT).as_posix()
        if name not in found:
            tree = ast.parse(path.read_text("utf-8"))
            todo += _imports(tree)
            code = _code(tree, leaf=module == roots[0])
            found[name] = hashlib.sha256(code.encode()).hexdigest()[:16]
    return dict(sorted(found.items()))


def _path(module: str) -> Path | None:
    if module.split(".")[0] not in PACKAGES:
        return None
    base = discovery.ROOT / module.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _imports(tree: ast.AST) -> list[str]:
    modules = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and _path(node.module):
            modules += [_home(node.module, alias.name) for alias in node.names]
    return modules


def _home(package: str, name: str) -> str:
    """The module that `from package import name` gets `name` from."""
    if _path(f"{package}.{name}"):
        return f"{package}.{name}"
    path = _path(package)
    if path is not None and path.name == "__init__.py":
        for node in ast.parse(path.read_text("utf-8")).body:
            if not isinstance(node, ast.ImportFrom) or not node.module:
                continue
            if name in {alias.asname or alias.name for alias in node.names}:
                return node.module
    return package


def _code(tree: ast.Module, leaf: bool) -> str:
    """The code without docstrings, comments and layout.

    Of a `leaf`, which no other module imports, also without constants its functions do not read,
    and without the import of figures.
    """
    body = tree.body
    if leaf:
        # Claims, figures and the scales' numbers; what a trial needs of those comes in by value.
        read = _names(n for n in body if not isinstance(n, ast.Assign))
        while kept := {n for n in body if isinstance(n, ast.Assign) and _targets(n) & read}:
            if _names(kept) <= read:
                break
            read |= _names(kept)
        body = [n for n in body if not isinstance(n, ast.Assign) or _targets(n) & read]
        # Nor is a kind of figure that the experiment begins to use.
        body = [n for n in body if not (isinstance(n, ast.ImportFrom) and n.module == FIGURES)]
    tree = ast.Module(body=body, type_ignores=[])
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            documented = node.body and ast.get_docstring(node, clean=False) is not None
            node.body = (node.body[1:] if documented else node.body) or [ast.Pass()]
    return ast.unparse(tree)


def _names(nodes) -> set[str]:
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)}


def _targets(node: ast.Assign) -> set[str]:
    return _names(node.targets)

"""What a trial's rows depend on, so that a changed source, setting or library makes it stale.

Code counts by its content (`lab.records.reached`): what the experiment's `run`, the model's
function and the trial's machinery reach, wherever it stands. Claims and figures are not reached;
arms and scales are compared value by value.
"""

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from lab.claims import discovery
from lab.claims.vocabulary import Experiment, Setting
from lab.data import tfds
from lab.records.reached import Sources

PACKAGES = ("callbacks", "experiments", "lab", "models")
TRIAL = ("lab.sweeps.trial", "*")
DATA_PACKAGE = {"digits": "scikit-learn", "mnist1d": "mnist1d"}
THREADS = 1  # of every worker: results depend on it (trap 16)


def describe(name: str, experiment: Experiment, arm: str, setting: Setting) -> dict:
    """Everything that a trial's rows depend on but its seed, as JSON-able nested mappings."""
    scale = {k: v for k, v in experiment.scales[setting.scale].items() if k != "seeds"}
    build = () if setting.model == "none" else ((f"models.{setting.model}", setting.model),)
    run = (experiment.run.__module__, experiment.run.__name__)
    code, files = _reached((run, *build, TRIAL))
    return {
        "code": code,
        "sources": files,
        "arm": _plain(experiment.arms[arm]),
        "scale": _plain(scale),
        "versions": _versions(setting),
        "threads": THREADS,
    }


def digest(described: dict) -> str:
    """The fingerprint: SHA-256 of the description, but for the names of files."""
    told = {part: value for part, value in described.items() if part != "sources"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def what_changed(before: dict, now: dict) -> str:
    """The differences of two descriptions, as a short phrase.

    >>> what_changed({"arm": {"lr": 1}, "threads": 1}, {"arm": {"lr": 2}, "threads": 1})
    'arm lr: 1 -> 2'
    """
    changes = []
    for part in sorted(now.keys() | before.keys()):
        old, new = (one.get(part, {} if part == "sources" else None) for one in (before, now))
        if old == new or (part == "sources" and same_code(before, now)):
            continue
        if part == "code" and before.get("sources", {}) != now.get("sources", {}):
            continue  # the files that changed are named
        if not (isinstance(old, dict) and isinstance(new, dict)):
            changes.append(f"{part}: {old} -> {new}")
            continue
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                how = "" if part == "sources" else f": {old.get(key)} -> {new.get(key)}"
                changes.append(f"{key} changed" if not how else f"{part} {key}{how}")
    return ", ".join(changes)


def same_code(one: dict, other: dict) -> bool:
    """Whether two descriptions are of the same code, in whatever files it stood."""
    return "code" in one and one["code"] == other.get("code")


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
    folder = tfds.find(data)
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
def _reached(roots: tuple[tuple[str, str], ...]) -> tuple[str, dict[str, str]]:
    """A digest of all code that is reached, and one for each file, by which changes are named."""
    sources = Sources(discovery.ROOT, PACKAGES)
    files: dict[str, set[str]] = {}
    for (module, _), digest in (found := sources.reached_from(roots)).items():
        path = sources.path(module)
        assert path is not None
        files.setdefault(path.relative_to(discovery.ROOT).as_posix(), set()).add(digest)
    each = {name: _digest(files[name])[:12] for name in sorted(files)}
    return _digest(found.values()), each


def _digest(digests: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(set(digests))).encode()).hexdigest()

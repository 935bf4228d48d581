"""Image classification sets of TensorFlow Datasets (TFDS): found on this machine, or prepared.

Only `prepare` uses the network. TFDS itself, asked for what is not prepared, retries for minutes
without one; so the folder is looked up here and TFDS is handed its path.
"""

from __future__ import annotations

import difflib
import os
import re
from importlib.metadata import version
from pathlib import Path


class DataError(RuntimeError):
    """A data set cannot be had; the message says why and what to do."""


class UnknownData(DataError):
    """Nobody knows an image classification set of this name."""


class NotPrepared(DataError):
    """TFDS knows the data set, and this machine does not have it."""

    def __init__(self, name: str, where: str | None = None):
        super().__init__(name, where or described_folder())

    def __str__(self) -> str:
        name, where = self.args
        return f"{name} is not prepared in {where}: `make data DATA={name}` downloads it."


class Damaged(DataError):
    """The files of a prepared data set cannot be read."""

    def __init__(self, name: str, path: str, cause: str):
        super().__init__(name, path, cause)

    def __str__(self) -> str:
        name, path, cause = self.args
        again = f"Delete that folder; `make data DATA={name}` prepares it again."
        return f"{name} is damaged in {path}: {cause} {again}"


def cause(error: Exception) -> str:
    """What an error is and says, in one line, without the names of TensorFlow's nodes around it.

    >>> cause(ValueError("{{function_node __wrapped__}} corrupted record at 12 [Op:Next] name: x"))
    'ValueError: corrupted record at 12.'
    """
    said = re.sub(r"\{\{.*?\}\}|\[\[.*?\]\]|\[Op:.*", " ", str(error), flags=re.DOTALL)
    said = " ".join(said.split())[:300].rstrip(". ")
    return f"{type(error).__name__}: {said}." if said else f"{type(error).__name__}."


class NotImageClassification(UnknownData):
    """The data set has no image with one label, or no labelled training split."""


def folder() -> Path:
    """Where TFDS keeps data sets: `TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def described_folder() -> str:
    """The folder and where it comes from."""
    given = "TFDS_DATA_DIR" if os.environ.get("TFDS_DATA_DIR") else "TFDS_DATA_DIR is not set"
    return f"{folder()} ({given})"


def _versions(name: str) -> dict[str, Path]:
    """Configurations (`""` where there are none) and the folder of the highest version of each."""
    found: dict[str, Path] = {}
    if not re.fullmatch(r"\w{1,100}", name, re.ASCII):
        return found
    infos = [*folder().glob(f"{name}/*/dataset_info.json")]
    infos += folder().glob(f"{name}/*/*/dataset_info.json")

    def number(path):
        return tuple(map(int, path.parent.name.split(".")))

    # While TFDS prepares, the folder is called `incomplete.XYZ_1.0.0`.
    complete = [path for path in infos if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)]
    for path in sorted(complete, key=number):
        config = path.parent.parent.name if len(path.relative_to(folder()).parts) == 4 else ""
        found[config] = path.parent
    return found


def names() -> list[str]:
    """Names of all that is prepared here; does not import TFDS."""
    here = folder()
    return sorted(p.name for p in here.iterdir() if is_prepared(p.name)) if here.is_dir() else []


def is_prepared(name: str) -> bool:
    """Whether `name` is among `names()`."""
    return bool(_versions(name))


def find(name: str) -> Path | None:
    """The folder of a prepared data set: of its highest version, or `None`.

    Of several configurations the one that TFDS takes by default; one alone is taken as it is.

    Raises:
        UnknownData: If there are several configurations and TFDS does not know the data set.
    """
    found = _versions(name)
    if len(found) < 2 or "" in found:
        return found.get("", next(iter(found.values()), None))
    _check_name(name)
    import tensorflow_datasets as tfds

    return found.get(tfds.builder_cls(name).default_builder_config.name)


def _check_name(name: str) -> None:
    """Raises UnknownData, with the nearest names, unless TFDS knows the name."""
    known = _known()
    if name not in known:
        near = difflib.get_close_matches(
            name[:100].lower(), {*known, *names(), "digits", "mnist1d"}
        )
        hint = f"Did you mean {', '.join(near)}?" if near else "Nothing has a similar name."
        raise UnknownData(f"Nobody knows a data set {name[:100]!r}. {hint}")


def _known() -> list[str]:
    """Every name that TFDS knows; of the pinned version from a list, for TFDS imports for 0.4 s."""
    listed = Path(__file__).with_name(f"tfds-{version('tensorflow-datasets')}.txt")
    if listed.is_file():
        return listed.read_text("utf-8").split()
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def check(name: str) -> Path:
    """The folder of a prepared image classification set.

    Raises:
        NotPrepared: If TFDS knows it and this machine does not have it.
        UnknownData: If TFDS does not know it either.
        NotImageClassification: If it is something else.
    """
    path = find(name)
    if path is None:
        _check_name(name)
        raise NotPrepared(name)
    import tensorflow_datasets as tfds

    try:
        info = tfds.builder_from_directory(str(path)).info
    except Exception as error:  # whatever a description may hold that is none
        raise Damaged(name, str(path), cause(error)) from error
    columns(name, info.features)
    if "train" not in info.splits:
        raise NotImageClassification(f"{name} has no split called train.")
    return path


def columns(name: str, features) -> tuple[str, str]:
    """The names of the image and of its class: `image` and `label`, or the only ones there are.

    Raises:
        NotImageClassification: If there is none or more than one.
    """
    import tensorflow_datasets as tfds

    found = []
    for usual, kind in (("image", tfds.features.Image), ("label", tfds.features.ClassLabel)):
        items = dict(features or {}) if hasattr(features, "items") else {}
        keys = [key for key, feature in items.items() if type(feature) is kind]
        if usual not in keys and len(keys) != 1:
            raise NotImageClassification(
                f"{name} is no image classification set: {len(keys) or 'no'} features of kind "
                f"{kind.__name__} and none called {usual}."
            )
        found.append(usual if usual in keys else keys[0])
    return found[0], found[1]


def prepare(name: str) -> Path:
    """Downloads and prepares a data set with TFDS. Nothing else here uses the network.

    Returns:
        The folder it lies in.

    Raises:
        UnknownData: If TFDS does not know it.
        NotImageClassification: If it is something else; nothing is downloaded then.
        DataError: If downloading or preparing fails.
    """
    path = find(name)
    if path is not None:
        return path
    _check_name(name)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=str(folder()))
        columns(name, builder.info.features)
        builder.download_and_prepare()
    except DataError:
        raise
    except Exception as error:  # whatever a download, a disk or a manual step may raise
        raise DataError(
            f"{name} could not be prepared in {described_folder()}. {type(error).__name__}: {error}"
        ) from error
    return check(name)

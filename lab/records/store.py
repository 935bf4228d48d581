"""One immutable CSV file per trial with its manifest beside it; written whole or not at all.

A trial counts only if its manifest names the checksum of its CSV file, so a kill between the two
writes leaves a trial that is missing, never one that is half there.
"""

import csv
import gzip
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.claims.vocabulary import NAME, Setting
from lab.machine import locks
from lab.machine.files import Broken, content, remove, write_atomically

COLUMNS = (
    *("experiment", "arm", "seed", "scale", "data", "model", "backend"),
    *("epoch", "metric", "value"),
)
SEED_FILE = re.compile(r"seed-(0|[1-9]\d{0,8})\.(json|csv)(\.gz)?")
MANIFEST: dict[str, Any] = {
    "trial": dict,
    "rows": int,
    "sha256": str,
    "status": str,
    "described": dict,
    "fingerprint": str,
    "seal": str,
    "declared_seeds": int,
    "engine": str,
    "device": str,
    "seconds": (int, float),
}


class Missing(Broken):
    """A trial without manifest: it was never finished."""


@dataclass(frozen=True)
class Key:
    """Which trial: experiment, setting, arm and seed."""

    experiment: str
    setting: Setting
    arm: str
    seed: int

    @property
    def path(self) -> str:
        """Its file below the results folder, without ending."""
        return f"{self.experiment}/{self.setting.folder}/{self.arm}/seed-{self.seed}"

    @property
    def cells(self) -> tuple[str, ...]:
        """The first seven columns of its rows."""
        s = self.setting
        return (self.experiment, self.arm, str(self.seed), s.scale, s.data, s.model, s.backend)


def encode(key: Key, rows) -> bytes:
    """Rows `(epoch or None, metric, value)` as the bytes of a trial's CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for epoch, metric, value in rows:
        writer.writerow([*key.cells, "" if epoch is None else epoch, metric, repr(float(value))])
    return text.getvalue().encode()


def save(results: Path, key: Key, rows, manifest: dict) -> None:
    """Write a trial: first its rows, then the manifest that makes them count."""
    content = encode(key, rows)
    manifest = manifest | {
        "trial": dict(zip(COLUMNS, key.cells, strict=False)),
        "rows": len(rows),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    manifest |= {"seal": _seal(manifest)}
    write_atomically(results / f"{key.path}.csv", content)
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    write_atomically(results / f"{key.path}.json", text.encode())


def read(results: Path, key: Key) -> tuple[dict, list[tuple[int | None, str, float]]]:
    """Manifest and rows of a trial, after checking that they were written together.

    Raises:
        Missing: If there is no manifest.
        Broken: If they must not be believed: unreadable, incomplete, edited, or another trial's.
    """
    return read_with_text(results, key)[:2]


def read_with_text(results: Path, key: Key) -> tuple[dict, list, str]:
    """Manifest, rows and the text of the CSV file they were read from; raises as `read`."""
    manifest, content = _load(results, key)
    intact = hashlib.sha256(content).hexdigest() == manifest.get("sha256")
    touched = "" if intact else ": not the file that was written (checksum differs)"
    try:
        text, rows = _rows(key, content)
    except _Wrong as error:
        raise Broken(f"{key.path}.csv {error}{touched}") from error
    if len(rows) != manifest.get("rows"):
        told = f"{len(rows)} rows, manifest says {manifest.get('rows')}"
        raise Broken(f"{key.path}.csv: {told}{touched}")
    if touched:
        raise Broken(f"{key.path}.csv{touched}")
    return manifest, rows, text


def trials(results: Path, experiment: str | None = None) -> Iterator[Key]:
    """Every trial of which there is a file, ordered by experiment, setting, arm and seed."""
    paths = results.glob(f"{experiment or '*'}/*/*/seed-*")
    found = {key for path in paths if (key := _key(path.relative_to(results)))}
    yield from sorted(found, key=lambda key: (key.experiment, key.setting, key.arm, key.seed))


def strangers(results: Path) -> list[str]:
    """A sentence for each file that has a trial's ending where no trial can be."""
    paths = [path.relative_to(results) for path in results.glob("*/*/*/seed-*")]
    return [
        f"{path.as_posix()}: not where a trial can be; its folders or its name are no trial's"
        for path in sorted(paths)
        if path.suffix in (".csv", ".json", ".gz") and not _key(path)
    ]


def compact(results: Path) -> int:
    """Compress the files of every trial, to a fifth; they are read as before.

    Each is written whole before the plain one goes, which counts as long as it is there: as long
    as its manifest is, which goes first.

    Returns:
        How many trials were compressed.
    """
    count = 0
    for key in list(trials(results)):
        with locks.trials(results, key.experiment, key.setting), locks.derived(results):
            count += _compact(results, key)
    return count


def _compact(results: Path, key: Key) -> bool:
    rows, manifest = (results / f"{key.path}.{ending}" for ending in ("csv", "json"))
    plain = rows.is_file() and manifest.is_file()
    if plain:
        read(results, key)  # not what is broken
        for path in (rows, manifest):
            write_atomically(_compressed(path), gzip.compress(path.read_bytes(), mtime=0))
        remove(manifest)
    if rows.is_file() and not os.path.lexists(manifest) and _compressed(manifest).is_file():
        remove(rows)
    return plain


def paths(results: Path, key: Key) -> tuple[Path, Path]:
    """Manifest and rows of a trial: plain, or both compressed where there is no plain manifest."""
    rows, manifest = (results / f"{key.path}.{ending}" for ending in ("csv", "json"))
    if not os.path.lexists(manifest) and os.path.lexists(_compressed(manifest)):
        return _compressed(manifest), _compressed(rows)
    return manifest, rows


def linked(results: Path, key: Key) -> str:
    """The first of a trial's folders that is a link, which is not followed; or nothing."""
    folders = [results / Path(*Path(key.path).parts[:depth]) for depth in (1, 2, 3)]
    return next((folder.as_posix() for folder in folders if folder.is_symlink()), "")


def _compressed(path: Path) -> Path:
    return path.with_name(path.name + ".gz")


class _Wrong(ValueError):
    """A line of a CSV file that a trial cannot have; begins with which."""


def _key(path: Path) -> Key | None:
    """The trial that a file belongs to, by its path below the results."""
    name, folder, arm, file = path.parts
    seed, parts = SEED_FILE.fullmatch(file), folder.split("-")
    if not (seed and len(parts) == 4 and all(map(NAME.fullmatch, (name, *parts, arm)))):
        return None
    return Key(name, Setting(*parts), arm, int(seed[1]))


def _seal(manifest: dict) -> str:
    told = {field: value for field, value in manifest.items() if field != "seal"}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _load(results: Path, key: Key) -> tuple[dict, bytes]:
    """The manifest, checked, and the bytes of the rows, which are not yet."""
    if link := linked(results, key):
        raise Broken(f"{key.path}: lies behind a link ({link})")
    manifest_path, rows_path = paths(results, key)
    if not os.path.lexists(manifest_path):
        raise Missing(f"{key.path}.json: missing")
    try:
        manifest = json.loads(content(manifest_path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Broken(f"{key.path}.json: not a manifest ({error})") from error
    if not isinstance(manifest, dict):
        raise Broken(f"{key.path}.json: not a manifest")
    for field, kind in MANIFEST.items():
        value = manifest.get(field)
        if field in manifest and (not isinstance(value, kind) or isinstance(value, bool)):
            raise Broken(f"{key.path}.json: {field} cannot be {str(value)[:40]!r}")
    if manifest.get("trial") != dict(zip(COLUMNS, key.cells, strict=False)):
        raise Broken(f"{key.path}.json: the manifest of another trial")
    seal = _seal(manifest)
    if manifest.get("seal", seal) != seal:  # the first trials had none
        raise Broken(f"{key.path}.json: not the manifest that was written (seal differs)")
    return manifest, content(rows_path)


def _rows(key: Key, held: bytes) -> tuple[str, list[tuple[int | None, str, float]]]:
    """The text of a CSV file and its rows.

    Raises:
        _Wrong: At the first line that this trial cannot have.
    """
    rows = []
    lines_of: dict[tuple[str, str], int] = {}
    number, cells = 1, list(key.cells)
    try:
        text = held.decode("utf-8")
        lines = csv.reader(io.StringIO(text, newline=""))
        if next(lines, list(COLUMNS)) != list(COLUMNS):
            raise ValueError("not the columns of a trial")
        for number, line in enumerate(lines, start=2):
            if line[:-3] != cells:
                raise ValueError("not a row of this trial")
            epoch, metric, value = line[-3:]
            first = lines_of.setdefault((epoch, metric), number)
            if first != number:
                raise ValueError(f"says again what line {first} says")
            rows.append((int(epoch) if epoch else None, metric, float(value)))
    except (ValueError, csv.Error) as error:
        raise _Wrong(f"line {number}: {error}") from error
    return text, rows

"""One immutable CSV file per trial with its manifest beside it; written whole or not at all.

A trial counts only if its manifest names the checksum of its CSV file, so a kill between the two
writes leaves a trial that is missing, never one that is half there.
"""

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import re
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.vocabulary import NAME, Setting

COLUMNS = (
    *("experiment", "arm", "seed", "scale", "data", "model", "backend"),
    *("epoch", "metric", "value"),
)
SEED_FILE = re.compile(r"seed-(0|[1-9]\d{0,8})\.json(\.gz)?")
MANIFEST: dict[str, Any] = {
    "trial": dict,
    "rows": int,
    "sha256": str,
    "status": str,
    "described": dict,
    "fingerprint": str,
    "declared_seeds": int,
    "engine": str,
    "device": str,
    "seconds": (int, float),
}
LARGEST = 64 * 2**20  # bytes; a trial has thousands of rows, not millions


class Broken(Exception):
    """A trial's files that must not be believed; the message says which and why."""


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


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, so that a reader or a crash sees the old file or the new one.

    Raises:
        OSError: With the path, if it cannot be written; the old file is then still there.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(path)) from error
    with contextlib.suppress(OSError):  # not every file system can sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


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
    write_atomically(results / f"{key.path}.csv", content)
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    write_atomically(results / f"{key.path}.json", text.encode())


def read_manifest(results: Path, key: Key) -> dict | None:
    """The manifest of a trial or None, after checking that the rows are those it was written for.

    Raises:
        Broken: If manifest or rows are unreadable, incomplete, edited, or of another trial.
    """
    return _load(results, key)[0]


def read(results: Path, key: Key) -> tuple[dict, list[tuple[int | None, str, float]]]:
    """Manifest and rows of a trial.

    Raises:
        Broken: If they are missing or must not be believed.
    """
    return read_with_text(results, key)[:2]


def read_with_text(results: Path, key: Key) -> tuple[dict, list, str]:
    """Manifest, rows and the text of the CSV file they were read from.

    Raises:
        Broken: If they are missing or must not be believed.
    """
    manifest, content = _load(results, key)
    if manifest is None:
        raise Broken(f"{key.path}.json: missing")
    rows = []
    number, cells = 1, list(key.cells)
    try:
        text = content.decode("utf-8")
        lines = csv.reader(io.StringIO(text, newline=""))
        if next(lines, list(COLUMNS)) != list(COLUMNS):
            raise ValueError("not a row of this trial")
        for number, line in enumerate(lines, start=2):  # noqa: B007  (the error names it)
            if line[:-3] != cells:
                raise ValueError("not a row of this trial")
            epoch, metric, value = line[-3:]
            rows.append((int(epoch) if epoch else None, metric, float(value)))
    except (ValueError, csv.Error) as error:
        raise Broken(f"{key.path}.csv line {number}: {error}") from error
    if len(rows) != manifest.get("rows"):
        raise Broken(f"{key.path}.csv: {len(rows)} rows, manifest says {manifest.get('rows')}")
    return manifest, rows, text


def trials(results: Path, experiment: str | None = None) -> Iterator[Key]:
    """Every trial that has a manifest, ordered by experiment, setting, arm and seed."""
    pattern = f"{experiment or '*'}/*/*/seed-*.json*"
    found = set()
    for path in results.glob(pattern):
        name, folder, arm, _ = path.relative_to(results).parts
        seed, parts = SEED_FILE.fullmatch(path.name), folder.split("-")
        if seed and len(parts) == 4 and all(NAME.fullmatch(part) for part in (name, *parts, arm)):
            found.add(Key(name, Setting(*parts), arm, int(seed[1])))
    yield from sorted(found, key=lambda key: (key.experiment, key.setting, key.arm, key.seed))


def compact(results: Path) -> int:
    """Compress the files of every trial, to a fifth; they are read as before.

    Each is written whole before the plain one goes, which counts as long as it is there.

    Returns:
        How many trials were compressed.
    """
    count = 0
    for key in list(trials(results)):
        plain = [results / f"{key.path}.{ending}" for ending in ("csv", "json")]
        if not all(path.is_file() for path in plain):
            continue
        _load(results, key)  # not what is broken
        for path in plain:
            write_atomically(_compressed(path), gzip.compress(path.read_bytes(), mtime=0))
        for path in plain:
            path.unlink()
        count += 1
    return count


def present(path: Path) -> Path:
    """The file of a trial, or its compressed form if there is only that."""
    packed = _compressed(path)
    return packed if not os.path.lexists(path) and os.path.lexists(packed) else path


def _compressed(path: Path) -> Path:
    return path.with_name(path.name + ".gz")


def _load(results: Path, key: Key) -> tuple[dict | None, bytes]:
    manifest_path, rows_path = (results / f"{key.path}.{ending}" for ending in ("json", "csv"))
    if present(manifest_path) != manifest_path:  # never one of each
        manifest_path, rows_path = _compressed(manifest_path), _compressed(rows_path)
    if not os.path.lexists(manifest_path):
        return None, b""
    try:
        manifest = json.loads(_bytes(manifest_path))
    except ValueError as error:
        raise Broken(f"{key.path}.json: not a manifest ({error})") from error
    if not isinstance(manifest, dict):
        raise Broken(f"{key.path}.json: not a manifest")
    for field, kind in MANIFEST.items():
        value = manifest.get(field)
        if field in manifest and (not isinstance(value, kind) or isinstance(value, bool)):
            raise Broken(f"{key.path}.json: {field} cannot be {str(value)[:40]!r}")
    if manifest.get("trial") != dict(zip(COLUMNS, key.cells, strict=False)):
        raise Broken(f"{key.path}.json: the manifest of another trial")
    content = _bytes(rows_path)
    if hashlib.sha256(content).hexdigest() != manifest.get("sha256"):
        raise Broken(f"{key.path}.csv: not the file that was written (checksum differs)")
    return manifest, content


def _bytes(path: Path) -> bytes:
    short = "/".join(path.parts[-4:])
    try:
        if path.is_symlink() or not path.is_file():
            raise Broken(f"{short}: {'not a plain file' if path.exists() else 'missing'}")
        if path.stat().st_size > LARGEST:
            raise Broken(f"{short}: larger than {LARGEST >> 20} MiB")
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as file:
            content = file.read(LARGEST + 1)  # a small file may hold terabytes
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Broken(f"{short}: cannot be decompressed ({error})") from error
    except OSError as error:
        raise Broken(f"{short}: {error.strerror}") from error
    if len(content) > LARGEST:
        raise Broken(f"{short}: larger than {LARGEST >> 20} MiB")
    return content

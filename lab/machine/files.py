"""Files that are written whole or not at all, and read only where they are plain files."""

import contextlib
import gzip
import os
import re
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

LARGEST = 64 * 2**20  # bytes; a trial has thousands of rows, not millions
TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")  # as `write_atomically` names them


class Broken(Exception):
    """Files that must not be believed; the message says which and why."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, so that a reader or a crash sees the old file or the new one.

    Raises:
        OSError: With the path, if it cannot be written; the old file is then still there.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C too leaves nothing behind
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        raise OSError(error.errno, f"cannot write: {error.strerror}", str(path)) from error
    with contextlib.suppress(OSError):  # not every file system can sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove(path: Path) -> None:
    """Remove a file, if it is there.

    Raises:
        OSError: With the path, if it cannot be removed.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    except OSError as error:
        raise OSError(error.errno, f"cannot remove: {error.strerror}", str(path)) from error


def remove_orphans(paths: Iterable[Path]) -> None:
    """Remove temporary files of writers that were killed.

    The caller holds the lock of the folder (`lab.machine.locks`): no writer is at work there.
    """
    for path in paths:
        if TEMPORARY.fullmatch(path.name) and not path.is_dir():
            with contextlib.suppress(OSError):  # it does no harm where it is
                path.unlink()


def content(path: Path) -> bytes:
    """What a file holds, decompressed; only of a plain one, and not more than `LARGEST`.

    Raises:
        Broken: If it cannot be had: a link, a pipe, a giant, absent, cut.
    """
    short = "/".join(path.parts[-4:])
    try:
        if path.is_symlink() or not path.is_file():
            raise Broken(f"{short}: {'not a plain file' if os.path.lexists(path) else 'missing'}")
        if path.stat().st_size > LARGEST:
            raise Broken(f"{short}: larger than {LARGEST >> 20} MiB")
        if path.suffix != ".gz":
            return path.read_bytes()
        with gzip.open(path) as file:
            held = file.read(LARGEST + 1)  # a small file may hold terabytes
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Broken(f"{short}: cannot be decompressed ({error})") from error
    except OSError as error:
        raise Broken(f"{short}: {error.strerror}") from error
    if len(held) > LARGEST:
        raise Broken(f"{short}: larger than {LARGEST >> 20} MiB")
    return held

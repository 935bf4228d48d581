"""Locks between commands: one computes the trials of a setting, one writes the derived files.

A lock is `flock` on an empty file `.lock`, so it ends with the process that holds it, however that
ends, and a file that is left behind locks nothing. Workers do not inherit it. Who takes both takes
the setting's first.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from lab.claims.vocabulary import Setting

FILE = ".lock"
Say = Callable[[str], object]


def _tell(text: str) -> None:
    print(text, flush=True)  # to a pipe too: it is about now


def trials(
    results: Path, experiment: str, setting: Setting, say: Say = _tell
) -> AbstractContextManager[None]:
    """The lock of who computes or compresses the trials of an experiment in a setting."""
    where = f"{experiment}/{setting.folder}"
    waiting = f"Another command is running trials of {where}; waiting for it (Ctrl-C gives up) ..."
    return _held(results / where, waiting, say)


def derived(results: Path, say: Say = _tell) -> AbstractContextManager[None]:
    """The lock of who writes tables, figures and pages."""
    return _held(results, f"Another command is writing to {results}; waiting for it ...", say)


@contextlib.contextmanager
def _held(folder: Path, waiting: str, say: Say) -> Iterator[None]:
    """Hold the lock of a folder, which is made if it is not there; `waiting` is said once.

    Where there can be none (a read-only folder, a file system without locks) it goes on without:
    then nothing can be written either, or it says so.
    """
    handle = _locked(folder / FILE, waiting, say)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _locked(path: Path, waiting: str, say: Say) -> int | None:
    """The open file, locked; None where there can be no lock."""
    while True:
        handle = _opened(path)
        if handle is None:
            return None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting:
                    say(waiting)
                    waiting = ""
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is(path, handle):
                return handle
            os.close(handle)  # the folder was removed meanwhile
        except OSError as error:
            os.close(handle)
            say(f"No locks in {path.parent} ({error.strerror}): start no second command on it.")
            return None
        except BaseException:  # Ctrl-C while waiting
            os.close(handle)
            raise


def _opened(path: Path) -> int | None:
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY):  # it may be another user's
        with contextlib.suppress(OSError):  # what is written next says why
            return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    return None


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False

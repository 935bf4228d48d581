"""Commands in a session of their own, and what is left of it: no process hides from /proc."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="needs Linux's /proc to see every process"
)


@contextlib.contextmanager
def started(project, *words: str, make: bool = False, **env: str):
    """`python -m lab ...`, or `make ...`, in a session of its own; at the end all of it is killed.

    Ctrl-C is heard: a job in the background ignores it, and so would what it starts.
    """
    command = ["make", *words] if make else [sys.executable, "-m", "lab", *words]
    with open(project.folder / "said", "w+") as said:
        process = subprocess.Popen(
            command,
            cwd=project.folder,
            env=os.environ | {"COLUMNS": "200"} | env,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            yield process
        finally:
            kill_all(process)


def kill_all(process: subprocess.Popen) -> None:
    """SIGKILL to the whole group of the command, at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def said(project) -> str:
    """What the command has written so far."""
    return (project.folder / "said").read_text()


def _processes() -> dict[int, list[str]]:
    """What /proc tells of every process that runs, from its state on; not of those that only wait
    to be collected."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if stat[0] not in "ZX":
                    found[int(entry.name)] = stat
    return found


def of_session(leader: int) -> set[int]:
    """The processes of a session that run."""
    return {pid for pid, stat in _processes().items() if int(stat[3]) == leader}


def descendants(root: int) -> set[int]:
    """The processes below one, also those that a server in between has forked."""
    parents = {pid: int(stat[1]) for pid, stat in _processes().items()}
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def running(pid: int) -> bool:
    """Whether a process is there and not only waiting to be collected."""
    return pid in _processes()


def soon(true: Callable[[], object], seconds: float = 60.0) -> float | None:
    """Waits until it is true; returns how many seconds that took, or None if it did not get so."""
    started_at = time.monotonic()
    while not true():
        if time.monotonic() - started_at > seconds:
            return None
        time.sleep(0.01)
    return time.monotonic() - started_at

"""Commands of a project as forks of one process that has the libraries loaded.

Loading them is most of the time of a run that trains nothing. Of the project itself nothing is in
that process; a command is a process of its own in all else.
"""

import atexit
import contextlib
import functools
import importlib
import io
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = (
    *("matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "matplotlib.figure"),
    *("multiprocessing.popen_spawn_posix", "numpy", "pandas", "rich.live", "scipy.stats"),
    "statsmodels.stats.multitest",
)
READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_")  # by Python itself: not in a fork


def run(words, folder: Path, env: dict[str, str], timeout: float) -> subprocess.CompletedProcess:
    """`python -m lab ...` in the folder of a project; returns the finished process."""
    command = [sys.executable, "-m", "lab", *words]
    asked = os.environ | env
    if not hasattr(os, "fork") or any(name.startswith(READ_AT_START) for name in env):
        return subprocess.run(
            command, cwd=folder, env=asked, capture_output=True, text=True, timeout=timeout
        )
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        request = json.dumps([words, str(folder), dict(asked)]).encode()
        server, line = _server()
        line.settimeout(timeout)
        try:
            socket.send_fds(line, [len(request).to_bytes(8, "big")], [out.fileno(), err.fileno()])
            line.sendall(request)
            status = int.from_bytes(_exactly(line, 8), "big", signed=True)
        except BaseException as error:  # what it answers later is no answer to the next
            server.kill()
            _server.cache_clear()
            if isinstance(error, TimeoutError):
                raise subprocess.TimeoutExpired(command, timeout) from error
            raise
        said = [file.seek(0) or file.read() for file in (out, err)]
    return subprocess.CompletedProcess(command, status, *said)


@functools.cache
def _server() -> tuple[subprocess.Popen, socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-m", "tests.commands", str(theirs.fileno())]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
    atexit.register(lambda: (ours.close(), process.wait()))
    return process, ours


def _exactly(line: socket.socket, size: int) -> bytes:
    """So many bytes.

    Raises:
        EOFError: If the other side is gone.
    """
    found = b""
    while len(found) < size:
        if not (more := line.recv(size - len(found))):
            raise EOFError("the process that starts commands is gone")
        found += more
    return found


def _serve(line: socket.socket) -> None:
    for library in LIBRARIES:
        importlib.import_module(library)
    while True:
        size, files, _, _ = socket.recv_fds(line, 8, 2)
        if not size:
            return  # the tests are done
        request = _exactly(line, int.from_bytes(size, "big"))
        child = os.fork()
        if not child:
            line.close()
            _become(*json.loads(request), files)
        for file in files:
            os.close(file)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        line.sendall(status.to_bytes(8, "big", signed=True))


def _become(words: list[str], folder: str, environment: dict[str, str], files: list[int]) -> None:
    """Be `python -m lab ...`, to its end."""
    for number, file in zip((1, 2), files, strict=True):
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BufferedWriter(io.FileIO(n, "w"))) for n in (1, 2)
    )
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = folder
    sys.argv = ["lab", *words]
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    try:
        runpy.run_module("lab", run_name="__main__", alter_sys=True)
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _serve(socket.socket(fileno=int(sys.argv[1])))

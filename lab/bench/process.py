"""The parent's end of a way's process: start it, let it go on, read its answers."""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile

from lab.bench.ways import WAYS
from lab.claims.discovery import ROOT

LONGEST = 300  # seconds to wait for an answer: ten times what compiling takes at worst


class Failed(Exception):
    """A way's process ended or kept silent; the message ends with what it printed."""


class Process:
    """The process of one way, which answers every line with one of JSON."""

    def __init__(self, name: str, way: str, threads: int, epochs: int):
        self.what = f"{name}, {way}, {threads} threads"
        self.log = tempfile.TemporaryFile()  # noqa: SIM115  (open as long as the process)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab.bench.ways", name, way, str(epochs)],
            cwd=ROOT, env=environment(threads, WAYS[way].backend), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip

    def ask(self) -> dict:
        """Let it go on, and return its answer when it has one."""
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # `answer` then says why
            self.process.stdin.write("go\n")
            self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
        """Its next answer.

        Raises:
            Failed: If there is none.
        """
        assert self.process.stdout
        ready = select.select([self.process.stdout], [], [], LONGEST)[0]
        if line := self.process.stdout.readline() if ready else "":
            return json.loads(line)
        self.log.seek(0)
        said = self.log.read().decode("utf-8", "replace").strip().splitlines()
        raise Failed(f"{self.what}: no answer. " + "\n".join(said[-15:]))

    def end(self) -> None:
        """Stop it if it runs."""
        self.process.kill()
        self.process.communicate()
        self.log.close()


def environment(threads: int, backend: str) -> dict[str, str]:
    """This process's environment with the threads of every library fixed."""
    names = [f"{library}_NUM_THREADS" for library in ("OMP", "OPENBLAS", "MKL")]
    names += ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC"]
    more = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "2"} if backend else {}
    return os.environ | dict.fromkeys(names, str(threads)) | more

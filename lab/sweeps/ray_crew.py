"""Trials as plain Ray tasks: on a cluster, or on one that is started here and ends with the run.

The driver hands out tasks, takes in what comes of them and alone writes files. Code and environment
variables travel as Ray's runtime environment; packages must be on the nodes, and are compared.
"""

import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read at Ray's import: what a dead worker's raylet has to say would land amid the progress.
os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."

import ray
from ray.exceptions import NodeDiedError, RayError

from lab.claims import discovery
from lab.machine import devices
from lab.records import fingerprint
from lab.records.fingerprint import PACKAGES, THREADS
from lab.records.store import Key
from lab.sweeps import worker
from lab.sweeps.worker import Outcome

ANSWER = 4.0  # seconds in which a cluster must answer, twice; Ray itself would wait for ever
LOOK = 5.0  # seconds between looks at how large the cluster is
STORE = 10**8  # bytes for results on their way, which are small; Ray would take a third of memory
NODES = 10  # that may die under a trial, which is not to blame, before it is
LONGEST_PATH = 40  # of the temporary folder: below it Ray has sockets, whose paths end at 107


@dataclass
class _Running:
    task: Sequence[Key]
    limit: float
    deaths: int = 0
    deadline: float = math.inf  # waiting for a free place is not the trial's time


class RayCrew:
    """Tasks on a Ray cluster; the same to its caller as `lab.sweeps.pool.LocalCrew`.

    Args:
        order: A `lab.sweeps.running.Order`. `ray_address` is that of a cluster, or empty; `jobs`
            the most trials at a time, or None for what the cluster has room for.

    Raises:
        ConnectionError: If there is no cluster at the address, or nothing to compute on.
    """

    def __init__(self, order):
        self.order = order
        self._running: dict[Any, _Running] = {}
        self._looked = -math.inf
        self._end = contextlib.ExitStack()
        try:
            self._connect()
        except BaseException:
            self.stop()
            raise

    def _connect(self) -> None:
        logging.getLogger("ray").setLevel(logging.ERROR)
        folder = Path(self._end.enter_context(_temporary_folder()))
        address = self.order.ray_address
        asked: dict[str, Any] = {"runtime_env": _environment(self.order, folder)}
        if address:
            _check(address)
            asked |= {"address": address}
        else:
            # Of its own, so that Ray writes none to the home folder, and nobody else gets in.
            os.environ |= {"RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_USAGE_STATS_ENABLED": "0"}
            asked |= {"address": "local", "num_cpus": self.order.jobs or devices.cores()}
            asked |= {"include_dashboard": False, "object_store_memory": STORE}
            asked |= {"_temp_dir": str(folder)}
        self._end.callback(ray.shutdown)
        try:
            with _uninterrupted():
                ray.init(**asked, log_to_driver=False, configure_logging=False)
        except Exception as error:
            said = " ".join(str(error).split())[:500]
            raise ConnectionError(f"Ray at {address or 'this machine'}: {said}") from error
        gpus = ray.cluster_resources().get("GPU", 0)
        self._part = devices.share(gpus, self.order.jobs) if gpus else 0.0
        asks = {"num_gpus": self._part, "num_cpus": 0} if gpus else {"num_cpus": 1}
        self._memory = devices.memory(self._part) if gpus else {}
        # A trial that is lost is the driver's to try again; the first answer says: it has started.
        self._remote = ray.remote(max_retries=0, num_returns="streaming", **asks)(_perform)
        if not self._room():
            raise ConnectionError(
                f"Ray at {address or 'this machine'} has no CPU for trials: add a node to it"
            )

    @property
    def busy(self) -> bool:
        """Whether there is a task to wait for."""
        return bool(self._running)

    @property
    def has_room(self) -> bool:
        """Whether another task should be handed over."""
        if self.order.jobs:
            return len(self._running) < self.order.jobs
        if time.monotonic() - self._looked > LOOK:
            self._looked, self._places = time.monotonic(), self._room()
        return len(self._running) < 2 * self._places  # the next is there when one ends

    def _room(self) -> int:
        there = ray.cluster_resources()
        return int(there.get("GPU", 0) / self._part) if self._part else int(there.get("CPU", 0))

    def give(self, task: Sequence[Key], limit: float, deaths: int = 0) -> None:
        """Hand a task over, which may take so many seconds a trial from when it has started."""
        generator = self._remote.remote(
            list(task), self.order.engine, _versions(task[0]), self._memory
        )
        self._running[generator] = _Running(task, limit, deaths)

    def results(self) -> list[tuple[Sequence[Key], list[Outcome]]]:
        """Waits a while for a task to end; tasks with what came of them."""
        found = []
        first = min(running.deadline for running in self._running.values())
        wait = min(LOOK, max(0.0, first - time.monotonic()))
        # Of a process that died, the end comes for certain, but sometimes no answer.
        ends = {generator.completed(): generator for generator in self._running}
        ready, _ = ray.wait([*self._running, *ends], timeout=wait)
        for answer in ready:  # one at the most
            generator = ends.get(answer, answer)
            running = self._running[generator]
            try:
                if answer in ends:
                    ray.get(answer)  # raises what went wrong
                outcomes = ray.get(next(generator))
            except (RayError, StopIteration) as error:
                if isinstance(error, NodeDiedError) and running.deaths < NODES:
                    del self._running[generator]
                    self.give(running.task, running.limit, running.deaths + 1)
                    continue
                outcomes = _lost(running.task, error)
            if outcomes is None:
                running.deadline = time.monotonic() + running.limit * len(running.task)
            else:
                del self._running[generator]
                found.append((running.task, outcomes))
        for generator, running in list(self._running.items()):
            if time.monotonic() >= running.deadline:
                ray.cancel(generator, force=True)
                del self._running[generator]
                found.append((running.task, worker.given_up(running.task, running.limit)))
        return found

    def stop(self) -> None:
        """End every task at once, and the cluster if it was started here."""
        for generator in self._running:
            with contextlib.suppress(RayError):
                ray.cancel(generator, force=True)
        self._running = {}
        self._end.close()


def _lost(task: Sequence[Key], error: Exception) -> list[Outcome]:
    said = " ".join(str(error).split()) or type(error).__name__
    return [Outcome("failed", error=f"Ray lost the trial: {said}", lost=True) for _ in task]


def _perform(keys: Sequence[Key], engine: str, versions: dict, memory: dict):
    """What a node does: the first answer is None, once its process has all it needs."""
    os.environ |= memory
    worker.begin(keys[0].setting, THREADS)
    yield None
    here = _versions(keys[0])
    if here != versions:
        change = fingerprint.what_changed({"versions": versions}, {"versions": here})
        error = (
            f"Node {socket.gethostname()} has other packages: {change}. Install "
            "requirements/run.txt on it, and jax.txt for BACKEND=jax."
        )
        yield [Outcome("failed", error=error) for _ in keys]
    else:
        yield worker.perform(keys, THREADS, engine)


def _versions(key: Key) -> dict:
    experiment = discovery.load_experiment(key.experiment)
    return fingerprint.describe(key.experiment, experiment, key.arm, key.setting)["versions"]


def _environment(order, folder: Path) -> dict[str, Any]:
    """The runtime environment: our code, without results or anything else that lies there."""
    code = folder / "code"
    for name in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(discovery.ROOT / name, code / name, ignore=ignore)
    variables = worker.environment(order.setting, THREADS)
    if data := os.environ.get("TFDS_DATA_DIR"):
        variables["TFDS_DATA_DIR"] = str(Path(data).expanduser().absolute())
    return {"working_dir": str(code), "env_vars": variables}


@contextlib.contextmanager
def _uninterrupted():
    """Ctrl-C waits until the block ends: Ray crashes if its start is broken off."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _temporary_folder() -> tempfile.TemporaryDirectory:
    usual = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(
        prefix="lab-ray-",
        dir=usual if len(usual) + len("/lab-ray-12345678") <= LONGEST_PATH else "/tmp",
        ignore_cleanup_errors=True,  # Ray's processes may still be closing their logs
    )


def _check(address: str) -> None:
    """Ask whether something like Ray answers there."""
    import grpc

    host, port = address.rsplit(":", 1)
    reason = f"nothing that speaks as Ray does within {ANSWER:g} s"
    try:
        socket.create_connection((host, int(port)), ANSWER).close()
        with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
            grpc.channel_ready_future(channel).result(ANSWER)
    except (OSError, OverflowError, grpc.FutureTimeoutError) as error:
        raise ConnectionError(
            f"No Ray cluster at RAY_ADDRESS={address} ({str(error) or reason}): `ray start "
            "--head` tells its address; leave it out for a cluster on this machine"
        ) from error

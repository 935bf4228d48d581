"""Warm worker processes, one task at a time each; one that dies takes only its own task with it.

Each worker has a pipe of its own and the driver has one thread. So there is no lock that a killed
process could hold, and half a message ends as an end of file: with a shared queue a `kill` at the
wrong moment stops a whole sweep.
"""

import contextlib
import math
import multiprocessing
import os
import sys
import time
from collections import deque
from collections.abc import Generator, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from lab.claims.vocabulary import Setting
from lab.machine import devices, interrupt
from lab.records.fingerprint import THREADS
from lab.records.store import Key
from lab.sweeps import worker
from lab.sweeps.worker import Outcome

Task = Sequence[Key]
# A trial may take so many times what the slowest one took, and never less than ten minutes.
PATIENCE, SHORTEST_LIMIT = 20, 600.0
FIRST_LIMIT = 3600.0  # where no trial has finished yet, and for a worker to start


def run_all(
    tasks: Sequence[Task], order, slowest: float = 0.0
) -> Generator[tuple[Key, Outcome], None, None]:
    """Run tasks on workers and yield each trial as its task finishes.

    A task is one trial, or several of one arm that advance together (`running.tasks`). What a
    worker takes with it when it dies, or runs out of memory, is tried once more, trial by trial.

    Closing the generator, or an exception in it (Ctrl-C), stops every worker at once.

    Args:
        tasks: What to run.
        order: A `lab.sweeps.running.Order`: setting, engine, launcher, jobs, and `limit`, the
            seconds after which a trial is given up, or None: then it is from what others took.
        slowest: Seconds of the slowest trial that is known.
    """
    waiting: deque[Task] = deque(tasks)
    tried: set[Key] = set()
    crew = _crew(order)

    def give() -> None:
        while waiting and crew.has_room:
            crew.give(waiting.popleft(), order.limit or _limit(slowest))

    try:
        while waiting or crew.busy:
            give()
            for task, outcomes in crew.results():
                slowest = max([slowest, *(outcome.seconds for outcome in outcomes)])
                give()  # they work on while the driver writes
                for key, outcome in zip(task, outcomes, strict=True):
                    if outcome.lost and key not in tried:
                        tried.add(key)
                        waiting.append([key])
                        continue
                    yield key, outcome
    finally:
        crew.stop()


def _crew(order) -> Any:
    """What runs the tasks: processes of this machine, or a Ray cluster."""
    if order.launcher == "ray":
        from lab.sweeps.ray_crew import RayCrew

        return RayCrew(order)
    return LocalCrew(order)


class LocalCrew:
    """Up to `order.jobs` workers on this machine; on GPUs, each with its own or a share of one."""

    def __init__(self, order):
        self.order = order
        self._context = _context(order.setting)
        self._gpus = devices.gpus()
        self._workers: dict[int, _Worker] = {}

    @property
    def busy(self) -> bool:
        """Whether there is a task to wait for."""
        return any(one.task for one in self._workers.values())

    @property
    def has_room(self) -> bool:
        """Whether a worker is free, or one more may be started."""
        workers = self._workers.values()
        return len(workers) < self.order.jobs or not all(one.task for one in workers)

    def give(self, task: Task, limit: float) -> None:
        """Start a task, which may take so many seconds a trial."""
        free = next((one for one in self._workers.values() if not one.task), None)
        if free is None:
            number = min(set(range(self.order.jobs)) - self._workers.keys())
            share = devices.environment(number, self.order.jobs, self._gpus)
            free = _Worker(self._context, self.order, share)
            self._workers[number] = free
        free.give(task, limit)

    def results(self) -> list[tuple[Task, list[Outcome]]]:
        """Waits until a task ends, or a worker has started; tasks with what came of them."""
        found = []
        for one in _next([one for one in self._workers.values() if one.task]):
            task, outcomes, alive = one.result()
            if not alive:
                one.stop()
                self._workers = {n: other for n, other in self._workers.items() if other != one}
            if task:
                found.append((task, outcomes))
        return found

    def stop(self) -> None:
        """End every worker at once."""
        for one in self._workers.values():
            one.stop()


class _Worker:
    """A process, the task it has, and when that must be done."""

    def __init__(self, context, order, share: dict[str, str]):
        self.task: Task = ()
        self.started = False
        self.deadline = self.limit = math.inf
        self.connection, theirs = context.Pipe()
        self.process = context.Process(
            target=worker.serve,
            args=(theirs, order.setting, THREADS, order.engine, share),
            daemon=True,
        )
        self.process.start()
        theirs.close()  # so that its end is the end of the file

    def give(self, task: Task, limit: float) -> None:
        """Start it on a task of so many seconds a trial; they count from when it has started."""
        self.task, self.limit = task, limit
        self._set_deadline()
        with contextlib.suppress(OSError):  # it is dead already, which `result` will say
            self.connection.send(task)

    def _set_deadline(self) -> None:
        seconds = self.limit * len(self.task) if self.started else FIRST_LIMIT
        self.deadline = time.monotonic() + seconds

    @property
    def late(self) -> bool:
        """Whether the time for its task is over."""
        return time.monotonic() >= self.deadline

    def result(self) -> tuple[Task, list[Outcome], bool]:
        """The task it had, what came of it, and whether it can go on; at first, that it started."""
        task, self.task = self.task, ()
        try:
            if self.connection.poll():
                outcomes = self.connection.recv()
                if outcomes is None:
                    self.task, self.started = task, True
                    self._set_deadline()
                    return (), [], True
                return task, outcomes, not any(outcome.lost for outcome in outcomes)
            late = self.late and self.process.is_alive()
        except (EOFError, OSError):
            late = False
        if late:
            return task, worker.given_up(task, self.limit), False
        self.process.join(5)  # its pipe may end before it does
        code = self.process.exitcode or 0
        how = f"by signal {-code}" if code < 0 else f"with exit status {code}"
        lost = Outcome("failed", error=f"The worker process ended {how}.", lost=True)
        return task, [lost for _ in task], False

    def stop(self) -> None:
        """End it at once. There is nothing in it that is not done again."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _next(workers: Sequence[_Worker]) -> list[_Worker]:
    """Waits for one that has a result, is dead or is late; returns all that are."""
    ends = {
        end: one for one in workers if one.task for end in (one.connection, one.process.sentinel)
    }
    left = min(one.deadline for one in ends.values()) - time.monotonic()
    ready = wait(list(ends), timeout=max(0.0, left))
    found = [ends[end] for end in ready] + [one for one in ends.values() if one.late]
    return list(dict.fromkeys(found))


def _limit(slowest: float) -> float:
    return max(SHORTEST_LIMIT, PATIENCE * slowest) if slowest else FIRST_LIMIT


def _context(setting: Setting) -> Any:
    """How workers are started: as forks of a server that has imported Keras once.

    Not of the driver, whose threads and libraries they would share; and anew where a fork is not
    safe.
    """
    if not sys.platform.startswith("linux") or Path("/dev/nvidiactl").exists():
        return multiprocessing.get_context("spawn")  # a GPU's driver does not survive a fork
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lab.machine.warm"] if setting.model != "none" else ["numpy"])
    os.environ |= worker.environment(setting, THREADS)  # the server's too
    resource_tracker.ensure_running()  # before the server, as it ends by letting Ctrl-C through
    with interrupt.kept_from_children():
        forkserver.ensure_running()
    return context

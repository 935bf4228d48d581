"""A pool of warm worker processes; one that dies takes only its own task with it."""

import multiprocessing
import os
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from lab import worker
from lab.fingerprint import THREADS
from lab.store import Key
from lab.vocabulary import Setting
from lab.worker import Outcome


def run_all(
    tasks: Sequence[Sequence[Key]], setting: Setting, engine: str, jobs: int
) -> Generator[tuple[Key, Outcome], None, None]:
    """Run tasks on `jobs` workers and yield each trial as its task finishes.

    A task is one trial, or several of one arm that advance together (`lab.sweep.tasks`).

    Closing the generator, or an exception in it (Ctrl-C), stops every worker at once.
    """
    pool: Any = ProcessPool(
        max_workers=min(jobs, len(tasks)),
        initializer=worker.start,
        initargs=(setting, THREADS),
        context=_context(setting),
    )
    try:
        pending: dict[Any, Sequence[Key]] = {}
        for keys in tasks:
            if len(keys) == 1 and engine != "stacked":
                future = pool.schedule(worker.work, args=(keys[0], engine))
            else:
                future = pool.schedule(worker.work_together, args=(keys, engine))
            pending[future] = keys
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                keys = pending.pop(future)
                yield from zip(keys, _outcomes(future, len(keys)), strict=True)
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.stop()
        pool.join()


def _context(setting: Setting):
    """How workers are started: as forks of a server that has imported Keras once.

    Not of the driver, whose threads and libraries they would share; and anew where a fork is not
    safe.
    """
    if not sys.platform.startswith("linux") or Path("/dev/nvidiactl").exists():
        return multiprocessing.get_context("spawn")  # a GPU's driver does not survive a fork
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lab.warm"] if setting.model != "none" else ["numpy"])
    os.environ |= worker.environment(setting, THREADS)  # the server's too
    return context


def _outcomes(future, count: int) -> list[Outcome]:
    try:
        result = future.result()
        return result if isinstance(result, list) else [result]
    except ProcessExpired as error:
        code = error.exitcode or 0
        how = f"by signal {-code}" if code < 0 else f"with exit status {code}"
        lost = f"The worker process ended {how}."
    except Exception as error:
        lost = f"The trial's result was lost: {error!r}"
    return [Outcome("failed", error=lost) for _ in range(count)]

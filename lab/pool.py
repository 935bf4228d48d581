"""A pool of warm worker processes; one that dies takes only its own trial with it."""

import multiprocessing
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any

from pebble import ProcessExpired, ProcessPool

from lab import worker
from lab.fingerprint import THREADS
from lab.store import Key
from lab.vocabulary import Setting
from lab.worker import Outcome


def run_all(
    keys: Sequence[Key], setting: Setting, engine: str, jobs: int
) -> Generator[tuple[Key, Outcome], None, None]:
    """Run trials on `jobs` workers and yield each as it finishes.

    Closing the generator, or an exception in it (Ctrl-C), stops every worker at once.
    """
    pool: Any = ProcessPool(
        max_workers=min(jobs, len(keys)),
        initializer=worker.start,
        initargs=(setting, THREADS),
        # A fork would share the driver's threads and libraries; results must not depend on them.
        context=multiprocessing.get_context("spawn"),
    )
    try:
        pending: dict[Any, Key] = {
            pool.schedule(worker.work, args=(key, engine)): key for key in keys
        }
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            for future in done:
                yield pending.pop(future), _outcome(future)
        pool.close()
    except BaseException:
        pool.stop()
        raise
    finally:
        pool.stop()
        pool.join()


def _outcome(future) -> Outcome:
    try:
        return future.result()
    except ProcessExpired as error:
        code = error.exitcode or 0
        how = f"by signal {-code}" if code < 0 else f"with exit status {code}"
        return Outcome("failed", error=f"The worker process ended {how}.")
    except Exception as error:
        return Outcome("failed", error=f"The trial's result was lost: {error!r}")

"""What happens inside a worker process: one backend, one thread, one task after the other."""

import contextlib
import gc
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from lab.claims.vocabulary import Setting
from lab.machine import home
from lab.machine.devices import processor
from lab.machine.isolation import Surroundings, seed_everything
from lab.records.store import Key

_log = None  # everything this process and its libraries print


@dataclass
class Outcome:
    """What came of a trial: status "done", "diverged" or "failed", its rows or its error.

    `lost` is one that says nothing about the trial: its worker died or ran out of memory.
    """

    status: str
    rows: list = field(default_factory=list)
    seconds: float = 0.0
    spent: dict = field(default_factory=dict)
    examples: list = field(default_factory=list)
    error: str = ""
    log: str = ""
    device: str = ""
    processor: str = ""
    lost: bool = False


def given_up(keys: Sequence[Key], limit: float) -> list[Outcome]:
    """What came of trials that took longer than so many seconds each."""
    error = f"No result within {limit:g} s: stopped. LIMIT= sets the seconds a trial."
    return [Outcome("failed", error=error) for _ in keys]


def environment(setting: Setting, threads: int) -> dict[str, str]:
    """What a worker's process must have before a backend is imported, which then reads it."""
    count = str(threads)
    return {
        "KERAS_BACKEND": setting.backend,
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": count,
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "NPROC": count,  # XLA on the CPU takes its number of threads from this
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }


def start(setting: Setting, threads: int) -> None:
    """Make this process a worker."""
    global _log
    home.leave_alone()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    os.environ |= environment(setting, threads)
    _log = tempfile.TemporaryFile("w+b")  # noqa: SIM115  (open as long as the process)
    for stream in (1, 2):
        os.dup2(_log.fileno(), stream)
    if setting.model != "none":
        import keras  # warm before the first trial

        backend = keras.backend.backend()
        assert backend == setting.backend, f"this worker has {backend} loaded"


def serve(connection, setting: Setting, threads: int, engine: str, devices: dict[str, str]) -> None:
    """Be a worker: take tasks from the driver and give it their outcomes, as long as it lives.

    None, sent first, says that it has started: a backend takes seconds to import.
    """
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    os.environ |= devices
    begin(setting, threads)
    connection.send(None)
    while True:
        try:
            keys = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(perform(keys, threads, engine))


@cache
def begin(setting: Setting, threads: int) -> str:
    """Make this process a worker, unless it is one; returns what went wrong, or nothing."""
    try:
        start(setting, threads)
    except Exception:
        return traceback.format_exc()
    gc.collect()
    gc.freeze()  # the libraries stay: looking through them after every trial took 30 ms
    return ""


def perform(keys: Sequence[Key], threads: int, engine: str) -> list[Outcome]:
    """Run one task: a trial, or several of one arm together."""
    if wrong := begin(keys[0].setting, threads):
        return [Outcome("failed", error=wrong) for _ in keys]
    if len(keys) == 1 and engine != "stacked":
        return [work(keys[0], engine)]
    return work_together(keys, engine)


def _end_with_the_driver() -> None:
    """However it ends, and in the middle of a training too."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def work(key: Key, engine: str) -> Outcome:
    """Run one trial; what it raises is part of the outcome."""

    def run(experiment, trials):
        import numpy as np

        from lab.sweeps.trial import execute

        np.random.seed(key.seed)  # which the next line does only where Keras is loaded
        seed_everything(key.seed)
        try:
            execute(trials[0], experiment.run, engine)
        except Exception as error:
            return [error]
        return [None]

    return _outcomes([key], run)[0]


def work_together(keys: Sequence[Key], engine: str) -> list[Outcome]:
    """Run trials of one arm in lockstep; what one of them raises is its own outcome."""

    def run(experiment, trials):
        from lab.sweeps.trial import execute_together

        own = [Surroundings(key.seed) for key in keys]
        return execute_together(trials, experiment.run, engine, own)

    return _outcomes(keys, run)


def _outcomes(keys: Sequence[Key], run: Callable) -> list[Outcome]:
    from lab.claims import discovery
    from lab.sweeps.trial import Trial

    log_from = _log_size()
    started = time.perf_counter()
    try:
        experiment = discovery.load_experiment(keys[0].experiment)
        build = None
        if keys[0].setting.model != "none":
            build = discovery.load_model(keys[0].setting.model)
        trials = [Trial(k.experiment, experiment, k.arm, k.seed, k.setting, build) for k in keys]
        outcomes = [
            _outcome(trial, error)
            for trial, error in zip(trials, run(experiment, trials), strict=True)
        ]
    except Exception:
        outcomes = [Outcome("failed", error=traceback.format_exc()) for _ in keys]
    seconds = (time.perf_counter() - started) / len(keys)  # what was computed at once is shared
    for outcome in outcomes:
        outcome.seconds = seconds
        outcome.device = _device(keys[0].setting.backend)
        outcome.processor = processor()
        if outcome.status != "done":
            outcome.log = _log_since(log_from)
    trials = []
    _forget()
    return outcomes


def _outcome(trial, error: Exception | None) -> Outcome:
    from lab.sweeps.trial import Diverged

    told = {"spent": trial.spent, "examples": trial.examples}
    if error is None:
        return Outcome("done", trial.rows, **told)
    if isinstance(error, Diverged):
        rows = [*trial.rows, (None, "diverged", 1.0)]
        return Outcome("diverged", rows, **told, error=str(error))
    no_memory = isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__
    text = "".join(traceback.format_exception(error))
    return Outcome("failed", error=text, lost=no_memory)


def _forget() -> None:
    # Otherwise every trial's graphs stay alive and a long sweep grows without bound.
    if "keras" in sys.modules:
        import keras

        keras.utils.clear_session(free_memory=True)
    gc.collect()


def _device(backend: str) -> str:
    gpu = ""
    with contextlib.suppress(Exception):
        if backend == "tensorflow" and "tensorflow" in sys.modules:
            import tensorflow as tf

            gpus = tf.config.list_physical_devices("GPU")
            gpu = tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else ""
        elif backend == "jax" and "jax" in sys.modules:
            import jax

            gpu = jax.devices()[0].device_kind if jax.default_backend() != "cpu" else ""
    return gpu or f"CPU {platform.machine()}"


def _log_size() -> int:
    return os.fstat(_log.fileno()).st_size if _log else 0


def _log_since(start: int) -> str:
    if not _log:
        return ""
    sys.stdout.flush()
    sys.stderr.flush()
    return os.pread(_log.fileno(), 1_000_000, start).decode("utf-8", "replace")

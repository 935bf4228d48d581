"""What happens inside a worker process: one backend, one thread, one trial after the other."""

import contextlib
import gc
import os
import platform
import random
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field

from lab.store import Key
from lab.vocabulary import Setting

_log = None  # everything this process and its libraries print


@dataclass
class Outcome:
    """What came of a trial: status "done", "diverged" or "failed", its rows or its error."""

    status: str
    rows: list = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""
    log: str = ""
    device: str = ""


def start(setting: Setting, threads: int) -> None:
    """Make this process a worker; must run before a backend is imported, which then reads these."""
    global _log
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    count = str(threads)
    os.environ |= {
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
    _log = tempfile.TemporaryFile("w+b")  # noqa: SIM115  (open as long as the process)
    for stream in (1, 2):
        os.dup2(_log.fileno(), stream)
    if setting.model != "none":
        import keras  # noqa: F401  (warm before the first trial)


def work(key: Key, engine: str) -> Outcome:
    """Run one trial; what it raises is part of the outcome."""
    from lab import discovery
    from lab.trial import Diverged, Trial, execute

    log_from = _log_size()
    started = time.perf_counter()
    trial = None
    try:
        experiment = discovery.load_experiment(key.experiment)
        build = None
        if key.setting.model != "none":
            build = discovery.load_model(key.setting.model)
        trial = Trial(key.experiment, experiment, key.arm, key.seed, key.setting, build)
        _seed_everything(key.seed)
        status, error = "done", ""
        try:
            execute(trial, experiment.run, engine)
        except Diverged as diverged:
            status, error = "diverged", str(diverged)
            trial.rows.append((None, "diverged", 1.0))
        outcome = Outcome(status, trial.rows, error=error)
    except Exception:
        outcome = Outcome("failed", error=traceback.format_exc())
    outcome.seconds = time.perf_counter() - started
    outcome.device = _device(key.setting.backend)
    if outcome.status != "done":
        outcome.log = _log_since(log_from)
    trial = None
    _forget()
    return outcome


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    if "keras" in sys.modules:
        import keras

        keras.utils.set_random_seed(seed)


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

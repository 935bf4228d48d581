"""What there is to compute on, and which part of it each worker gets."""

import math
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path

KIND = {"family": "cpu family", "model": "model"}  # as /proc/cpuinfo has them
ALL_TOGETHER = 0.9  # of a GPU's memory, for the trials that share it; CUDA itself takes some


def cores() -> int:
    """Processor cores that this process may use."""
    affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name and kind, as compilers tell it from others: XLA's code depends on it."""
    name = platform.processor() or platform.machine()
    if not info.exists():
        return name
    told = dict(re.findall(r"^([\w ]+?)\s*: (.+)$", info.read_text("utf-8"), re.MULTILINE))
    kind = [f"{each} {told[key]}" for each, key in KIND.items() if key in told]
    return ", ".join([told.get("model name", name), *kind])


def gpus(folder: Path = Path("/dev")) -> list[str]:
    """NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    That variable itself is respected, and read as CUDA reads it: up to the first name that is none.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        # In a container a GPU may keep the number it has outside; CUDA counts from 0.
        return [str(i) for i, _ in enumerate(folder.glob("nvidia[0-9]*"))]
    names = [name.strip() for name in given.split(",")]
    ends = [i for i, name in enumerate(names) if not name or name.startswith("-")]
    return names[: ends[0]] if ends else names


def share(count: float, jobs: int | None) -> float:
    """The part of a GPU for each of `jobs` trials on `count` GPUs: 1, 1/2, 1/3, ...

    >>> [share(2, jobs) for jobs in (None, 1, 2, 4, 5)]
    [1.0, 1.0, 1.0, 0.5, 0.3333]
    """
    trials = math.ceil((jobs or 1) / count)
    return math.floor(1e4 / trials) / 1e4  # Ray counts in these; rounded up, one would not fit


def environment(number: int, jobs: int, devices: Sequence[str]) -> dict[str, str]:
    """What gives worker `number` of `jobs` its GPU, in turns, and its share of the memory."""
    if not devices:
        return {}
    return {"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} | memory(
        share(len(devices), jobs)
    )


def memory(part: float) -> dict[str, str]:
    """What keeps JAX within its part of a GPU; TensorFlow takes what it needs, as it needs it."""
    return {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{ALL_TOGETHER * part:.3g}"}


def described() -> str:
    """Cores and GPUs in words, and how workers share them."""
    found = gpus()
    if not found:
        return f"{cores()} cores, no NVIDIA GPU"
    many = f"{len(found)} NVIDIA GPUs, one" if len(found) > 1 else "an NVIDIA GPU"
    return (
        f"{cores()} cores; {many} for each worker; "
        f"JOBS={4 * len(found)} gives each {share(len(found), 4 * len(found)):g} of one"
    )

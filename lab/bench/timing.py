"""How fast the ways to train are, side by side: `make bench`.

Every way runs in a fresh process with a fixed number of threads. All are warmed up (importing,
tracing and compiling are timed apart) and then take turns, so that what else the machine does hits
all alike. `results/bench.csv` has one row per benchmark, way and number of threads:
`us_per_step` is the median over the timings of microseconds per training step (of stacked seeds:
per step and seed), `low` and `high` are their quartiles, and `ratio_to_plain` is how many times as
fast as plain `model.fit` (for `sweep`: as the shell loop) the medians are. Of a way whose first
epoch takes longer than 10 s that one epoch is the timing, compilation included.
"""

import argparse
import csv
import importlib.util
import io
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab.bench import reporting, sweep
from lab.bench.cases import BENCHMARKS, Benchmark
from lab.bench.process import Failed, Process
from lab.bench.ways import seeds_of, ways
from lab.machine import files, locks

COLUMNS = ("benchmark", "way", "threads", "us_per_step", "low", "high", "ratio_to_plain")
SLOW = 10  # seconds of a first epoch, after which a way's turns would take minutes
REAL = tuple(name for name in BENCHMARKS if name != "tiny")


@dataclass(frozen=True)
class Timing:
    """What came of one way: microseconds per step of every timing, and the start's seconds.

    Attributes:
        benchmark: Its name in `BENCHMARKS`, or "sweep".
        way: Its name in `WAYS`.
        threads: Threads of its process.
        us: Microseconds per step, one per timing.
        first_epoch: Seconds from building the model to the end of the first epoch: tracing,
            compilation and one epoch. Importing the backend is not in it.
        losses: Of the first and the last epoch.
    """

    benchmark: str
    way: str
    threads: int
    us: Sequence[float]
    first_epoch: float = float("nan")
    losses: tuple[float, float] = (float("nan"), float("nan"))

    @property
    def median(self) -> float:
        """The middle of `us`."""
        return float(np.median(self.us))


def measure(
    name: str, threads: int, which: Iterable[str], repeats: int, say=print
) -> tuple[list[Timing], list[str]]:
    """Time the ways of one benchmark in turns.

    Returns:
        The timings, and what went wrong with the ways that have none.
    """
    benchmark = BENCHMARKS[name]
    epochs = 1 + (1 + repeats) * (1 + benchmark.epochs)  # of every turn, one is not timed
    processes = {way: Process(name, way, threads, epochs) for way in which}
    answers: dict[str, list[dict]] = {way: [] for way in processes}
    problems = []
    try:
        # Imports go side by side; compiling, which is timed, one at a time.
        for kind in ("load", "compile", "warm up", *range(1, repeats + 1)):
            say(f"{name}, {threads} threads: {kind}")
            order = list(answers)
            shift = kind % max(1, len(order)) if isinstance(kind, int) else 0
            for way in order[shift:] + order[:shift]:
                process, before = processes[way], answers[way]
                if len(before) > 1 and before[1]["seconds"] > SLOW:
                    continue
                try:
                    answers[way].append(process.answer() if kind == "load" else process.ask())
                except Failed as failed:
                    problems.append(str(failed))
                    del answers[way]
    finally:
        for process in processes.values():
            process.end()
    timings = [_timing(name, benchmark, way, threads, got) for way, got in answers.items()]
    for timing in timings:
        if len(timing.us) > 1 and not timing.losses[1] < timing.losses[0]:
            problems.append(f"{name}, {timing.way}: the loss went {timing.losses}, not down")
    return timings, problems


def _timing(name: str, benchmark: Benchmark, way: str, threads: int, got: list[dict]) -> Timing:
    first, timed = got[1], got[3:]
    steps = benchmark.steps * seeds_of(way)
    us = [answer["seconds"] * 1e6 / (steps * benchmark.epochs) for answer in timed]
    # A slow way had no further turn.
    us = us or [first["seconds"] * 1e6 / steps]
    return Timing(name, way, threads, us, first["seconds"], (first["loss"], got[-1]["loss"]))


def rows(timings: Sequence[Timing]) -> list[dict]:
    """The rows of `bench.csv`."""
    plain = {
        (t.benchmark, t.threads): t.median for t in timings if t.way in ("plain_fit", sweep.PLAIN)
    }
    found = []
    for t in timings:
        low, high = np.quantile(t.us, [0.25, 0.75])
        ratio = plain.get((t.benchmark, t.threads), float("nan")) / t.median
        values = (
            t.benchmark,
            t.way,
            t.threads,
            *(f"{v:.5g}" for v in (t.median, low, high, ratio)),
        )
        found.append(dict(zip(COLUMNS, values, strict=True)))
    return found


def write(results: Path, found: Sequence[dict]) -> None:
    """Write `bench.csv` and its figure, each whole or not at all."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(found)
    with locks.derived(results):
        files.write_atomically(results / "bench.csv", text.getvalue().encode())
        files.write_atomically(results / "figures" / "bench.svg", reporting.figure(found))


def _all_threads(benchmark: Benchmark, name: str, quick: bool, say) -> tuple[list, list[str]]:
    torch = importlib.util.find_spec("torch") is not None
    gpu = shutil.which("nvidia-smi") is not None
    timings: list[Timing] = []
    problems: list[str] = []
    for threads in benchmark.threads[: 1 if quick else None]:
        which = ways(benchmark, torch, gpu, threads)
        timed, wrong = measure(name, threads, which, 2 if quick else benchmark.repeats, say)
        timings += timed
        problems += wrong
    return timings, problems


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks and return the exit status: 1 if a way could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m lab.bench.timing", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--quick", action="store_true", help="two timings of one thread each")
    parser.add_argument("--only", action="append", choices=[*BENCHMARKS, "sweep"])
    options = parser.parse_args(argv)
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - started:4.0f} s] {text}", file=sys.stderr, flush=True)

    machine = reporting.machine()
    say(machine)
    timings: list[Timing] = []
    problems: list[str] = []
    for name in options.only or (*REAL, "sweep"):
        if name == "sweep":
            timed, notes = sweep.measure(options.quick, say)
            timings += [Timing("sweep", *t) for t in timed]
            machine += "\n\n" + notes
        else:
            timed_ways, wrong = _all_threads(BENCHMARKS[name], name, options.quick, say)
            timings += timed_ways
            problems += wrong
        write(options.results, rows(timings))  # Ctrl-C must not lose what is measured
    found = rows(timings)
    say(f"Written: {options.results / 'bench.csv'}")
    print(reporting.markdown(found, {(t.benchmark, t.way, t.threads): t for t in timings}))
    print(f"\n{machine}")
    for problem in problems:
        print(f"NOT MEASURED: {problem}", file=sys.stderr)
    return 1 if problems else 0

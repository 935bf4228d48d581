"""Runs a plan: what is missing goes to the workers, what comes back to the store, then verdicts."""

import signal
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from lab import fingerprint, report, store, table
from lab.plan import Planned, make_plan
from lab.progress import Progress
from lab.vocabulary import Experiment, Setting

# Trials of one arm that advance together. More would share a program no better on a CPU, and a
# dead worker loses them all; lists of `Fit`s inside a trial multiply it.
STACK = 16


@dataclass(frozen=True)
class Order:
    """What the command line asked for."""

    name: str
    experiment: Experiment
    setting: Setting
    seeds: int
    jobs: int
    engine: str
    results: Path
    limit: float | None = None

    @property
    def command(self) -> str:
        """The command that asks for the same again."""
        more = {"RESULTS": str(self.results)}
        if self.seeds != self.experiment.scales[self.setting.scale]["seeds"]:
            more["SEEDS"] = str(self.seeds)
        return report.command(self.name, self.experiment, self.setting, **more)


def run(order: Order, dry: bool = False) -> int:
    """Plan, and unless `dry` run and report. Returns the exit status."""
    plan = make_plan(order.results, order.name, order.experiment, order.setting, order.seeds)
    todo = [planned for planned in plan if planned.state != "cached"]
    todo_keys = [planned.key for planned in todo]
    order = replace(order, jobs=workers(order, len(tasks(todo_keys, order.engine))))
    progress = Progress(order, plan)
    progress.show_plan()
    if dry:
        return 0
    if problem := unwritable(order.results):
        progress.complain(problem)
        return 1
    bad = 0
    try:
        if todo:
            bad = _work(order, todo, progress)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is stopped; this says how to go on
        progress.interrupted()
        return 130
    except OSError as error:
        progress.complain(f"{error}. Finished trials are kept; to go on: {order.command}")
        return 1
    if todo:
        progress.say("Writing the report ...")
    report.write(order.results)
    table.show(order.results, order.name, order.experiment, order.setting)
    return 1 if bad or any(planned.diverged for planned in plan) else 0


def _work(order: Order, todo: list[Planned], progress: Progress) -> int:
    """Run what is to do; returns how many trials failed or diverged."""
    from lab.pool import run_all

    described = {planned.key: planned.described for planned in todo}
    together = tasks([planned.key for planned in todo], order.engine)
    bad = 0
    with progress.live(), closing(run_all(together, order, progress.slowest)) as finished:
        for key, outcome in finished:
            log = order.results / f"{key.path}.log"
            if outcome.status != "done":
                text = f"{outcome.error}\n--- output ---\n{outcome.log}"
                store.write_atomically(log, text.encode("utf-8", "replace"))
            elif log.exists():
                log.unlink()
            bad += outcome.status != "done"
            if outcome.status != "failed":
                store.save(
                    order.results, key, outcome.rows, _manifest(order, key, described, outcome)
                )
            progress.finished(key, outcome, log)
    return bad


def tasks(keys: Sequence[store.Key], engine: str) -> list[list[store.Key]]:
    """What one worker does at a time: a trial, or, stacked, up to `STACK` seeds of one arm."""
    if engine != "stacked":
        return [[key] for key in keys]
    arms: dict[str, list[store.Key]] = {}
    for key in keys:
        arms.setdefault(key.arm, []).append(key)
    return [own[i : i + STACK] for own in arms.values() for i in range(0, len(own), STACK)]


def workers(order: Order, count: int) -> int:
    """How many processes `count` tasks are worth."""
    if order.engine == "stacked" and Path("/dev/nvidiactl").exists():
        return 1  # a stack fills a GPU; a second process would only halve its memory
    return max(1, min(order.jobs, count))


def _manifest(order: Order, key: store.Key, described, outcome) -> dict:
    now = described[key]
    return {
        "status": outcome.status,
        "described": now,
        "fingerprint": fingerprint.digest(now),
        "declared_seeds": order.seeds,
        "engine": order.engine,
        "device": outcome.device,
        "seconds": round(outcome.seconds, 3),
        "spent": {what: round(seconds, 3) for what, seconds in outcome.spent.items()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "git_commit": fingerprint.git_commit(),
    }


def unwritable(results: Path) -> str:
    """Why nothing could be written to the results folder, or nothing."""
    probe = results / ".writable"
    try:
        store.write_atomically(probe, b"")
        probe.unlink()
    except OSError as error:
        return (
            f"RESULTS={str(results)!r} cannot be written ({error.strerror}): nothing was trained."
        )
    return ""

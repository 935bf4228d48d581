"""Runs a plan: what is missing goes to the workers, what comes back to the store, then verdicts."""

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from lab.claims.vocabulary import Experiment, Setting
from lab.machine import devices, files, interrupt, locks
from lab.records import fingerprint, kept, store
from lab.report import terminal, writing
from lab.sweeps import looking
from lab.sweeps.plan import Planned, make_plan
from lab.sweeps.progress import Progress

# Trials of one arm that advance together. More would share a program no better on a CPU, and a
# dead worker loses them all; lists of `Fit`s inside a trial multiply it.
STACK = 16
ROOM = 2**20  # bytes that a disk must have: some trials' files


@dataclass(frozen=True)
class Order:
    """What the command line asked for."""

    name: str
    experiment: Experiment
    setting: Setting
    seeds: int
    jobs: int | None  # None: as many as there is room for
    engine: str
    results: Path
    limit: float | None = None
    launcher: str = "local"
    ray_address: str = ""
    keep_stale: bool = False
    until_decided: bool = False
    later: tuple[tuple[str, int], ...] = ()  # arm and seed of trials beyond `seeds` of every arm

    @property
    def command(self) -> str:
        """The command that asks for the same again."""
        more = {"RESULTS": str(self.results)}
        if self.seeds != self.experiment.scales[self.setting.scale]["seeds"]:
            more["SEEDS"] = str(self.seeds)
        if self.launcher != "local":
            more |= {"LAUNCHER": self.launcher, "RAY_ADDRESS": self.ray_address}
        if self.keep_stale:
            more["KEEP_STALE"] = "1"
        if self.until_decided:
            more["UNTIL"] = "decided"
        return writing.command(self.name, self.experiment, self.setting, **more)


def run(order: Order, dry: bool = False) -> int:
    """Plan, and unless `dry` run and report. Returns the exit status.

    Until all is decided: what all claims need, then look after look what the open ones need.
    """
    if order.until_decided:
        order = replace(order, later=looking.already(order))
    if dry:
        planned = _plan(order)
        Progress(*planned).show_plan()
        if order.until_decided:
            looking.announce(order, planned[1], lambda count: workers(order, count))
        return 0
    status, complete = _run(order)
    while order.until_decided and complete and (needed := looking.needed(order)):
        looking.say(order)
        order = replace(order, later=(*order.later, *needed))
        again, complete = _run(order)
        status = status or again
    if complete is not None:
        terminal.show(order.results, order.name, order.experiment, order.setting)
        if complete and not order.until_decided:
            looking.suggest(replace(order, until_decided=True))
    return status


def _run(order: Order) -> tuple[int, bool | None]:
    """Run what is missing, and write the report.

    Returns:
        The exit status, and whether all that was asked for is there; None without a report.
    """
    with locks.trials(order.results, order.name, order.setting):
        if problem := unwritable(order.results, _folders(order)):
            print(f"{problem}: nothing was trained.", file=sys.stderr)
            return 1, None
        order, plan = _plan(order)
        progress = Progress(order, plan)
        progress.show_plan()
        todo = [planned for planned in plan if not planned.there]
        bad = 0
        try:
            _note_kept(order, plan)
            if todo:
                bad = _work(order, todo, progress)
        except KeyboardInterrupt:
            progress.interrupted()
            return interrupt.EXIT_STATUS, None
        except OSError as error:
            progress.complain(f"{error}. Finished trials are kept; to go on: {order.command}")
            return 1, None
    try:
        if todo:
            progress.say("Writing the report ...")
        writing.write(order.results)
    except KeyboardInterrupt:
        progress.interrupted()
        return interrupt.EXIT_STATUS, None
    except OSError as error:
        progress.complain(f"{error}. Trials are kept; for the report: {order.command}")
        return 1, None
    diverged = any(planned.diverged for planned in plan)
    return (1 if bad or diverged else 0), not bad


def _plan(order: Order) -> tuple[Order, list[Planned]]:
    """What there is to do, and the order with as many workers as that is worth."""
    plan = make_plan(
        *(order.results, order.name, order.experiment, order.setting, order.seeds),
        keep_stale=order.keep_stale,
        later=order.later,
    )
    todo = [planned.key for planned in plan if not planned.there]
    return replace(order, jobs=workers(order, len(tasks(todo, order.engine)))), plan


def _note_kept(order: Order, plan: Sequence[Planned]) -> None:
    """For the report, and with the lock held: nobody else writes here, so orphans can go."""
    folder = order.results / order.name / order.setting.folder
    files.remove_orphans(folder.rglob("*"))
    stale = {planned.fingerprint: planned.why for planned in plan if planned.state == "kept"}
    kept.write(order.results, order.name, order.setting, stale)


def _work(order: Order, todo: list[Planned], progress: Progress) -> int:
    """Run what is to do; returns how many trials failed or diverged."""
    from lab.sweeps.pool import run_all

    described = {planned.key: planned.described for planned in todo}
    together = tasks([planned.key for planned in todo], order.engine)
    bad = 0
    with progress.live(), closing(run_all(together, order, progress.slowest)) as finished:
        for key, outcome in finished:
            log = order.results / f"{key.path}.log"
            if outcome.status != "failed":
                store.save(
                    order.results, key, outcome.rows, _manifest(order, key, described, outcome)
                )
            if outcome.status != "done":
                text = f"{outcome.error}\n--- output ---\n{outcome.log}"
                files.write_atomically(log, text.encode("utf-8", "replace"))
            else:
                files.remove(log)
            bad += outcome.status != "done"
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


def workers(order: Order, count: int) -> int | None:
    """How many processes `count` tasks are worth; None is Ray's to say."""
    if order.launcher == "ray":
        return order.jobs
    gpus = len(devices.gpus())
    jobs = order.jobs or gpus or devices.cores()
    if order.engine == "stacked" and gpus:
        jobs = min(jobs, gpus)  # a stack fills a GPU; a second process would only halve its memory
    return max(1, min(jobs, count))


def _manifest(order: Order, key: store.Key, described, outcome) -> dict:
    now = described[key]
    return {
        "status": outcome.status,
        "described": now,
        "fingerprint": fingerprint.digest(now),
        "declared_seeds": order.seeds,
        "engine": order.engine,
        "device": outcome.device,
        "processor": outcome.processor,
        "seconds": round(outcome.seconds, 3),
        "spent": {what: round(seconds, 3) for what, seconds in outcome.spent.items()},
        "examples": outcome.examples,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "git_commit": fingerprint.git_commit(),
    }


def _folders(order: Order) -> list[Path]:
    """Where its trials will lie, and what is above that."""
    setting = order.results / order.name / order.setting.folder
    return [setting.parent, setting, *(setting / arm for arm in order.experiment.arms)]


def unwritable(results: Path, folders: Sequence[Path] = ()) -> str:
    """Why nothing could be written to the results folder or to folders in it, or nothing."""
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results) as file:  # nothing of it is left, ever
            file.write(os.urandom(ROOM))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
        return f"RESULTS={str(results)!r} cannot be written ({why})"
    for folder in filter(os.path.lexists, folders):
        if folder.is_symlink() or not folder.is_dir():
            kind = "a link, which is not followed" if folder.is_symlink() else "no folder"
            return f"{str(folder)!r} is {kind}: move it out of the way"
        if not os.access(folder, os.W_OK | os.X_OK):
            return f"{str(folder)!r} cannot be written (Permission denied)"
    return ""

"""What the terminal shows of a sweep: the plan, a calm line of progress, interim effects."""

import math
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from lab.claims import wording
from lab.records import store
from lab.records.measured import Measured
from lab.report.terminal import Terminal

# Seconds between lines, and between tables of effects, where the output is no terminal.
LINE_EVERY, TABLE_EVERY = 15.0, 60.0
BAR = 5  # characters of an arm's bar


class Progress:
    """Reports on one order; keeps the interim effects up to date as trials finish."""

    def __init__(self, order, plan):
        self.order, self.plan = order, plan
        self.console = Terminal(highlight=False, soft_wrap=False)
        self.total = sum(not p.there for p in plan)
        self.done = self.kept = self.trouble = 0
        self.worked = 0.0  # seconds inside of trials
        self.started = self.said = time.monotonic()
        self.tabled: float | None = None
        self.slowest = 0.0  # seconds of the slowest trial that is there
        self.measured = Measured(order.name, order.setting)
        self.there = Counter(p.key.arm for p in plan if p.state == "cached")  # trials of each arm
        self._live: Live | None = None
        self._interim: Table | None = None

    def say(self, text: str) -> None:
        """A line above the live panel."""
        self.console.print(text, markup=False, soft_wrap=True)

    def complain(self, text: str) -> None:
        """An error, on standard error."""
        Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)

    def show_plan(self) -> None:
        """One line on what there is, one per reason on what will run."""
        o, s = self.order, self.order.setting
        states = Counter(p.state for p in self.plan)
        later = f" and {len(o.later)} trials of later looks" if o.later else ""
        self.say(f"{o.experiment.title}")
        self.say(
            f"{o.name}: {len(o.experiment.arms)} arms × {o.seeds} seeds{later} on {s.data}, model "
            f"{s.model}, scale {s.scale}, {s.backend}: {len(self.plan)} trials, "
            f"{states['cached']} cached, {self.total} to run."
        )
        reasons = Counter((p.state, p.why) for p in self.plan if p.why)
        for (state, why), count in reasons.most_common(10):
            self.say(f"  {count} {state}: {wording.clean(why)}")
        if states["missing"]:
            missing = [p.key for p in self.plan if p.state == "missing"]
            first = ", ".join(f"{k.arm} seed {k.seed}" for k in missing[:3])
            self.say(f"  {len(missing)} missing: {first}{', ...' if len(missing) > 3 else ''}")
        if not self.total:
            kept = f" or kept ({states['kept']})" if states["kept"] else ""
            self.say(f"Nothing to do: every trial is there and current{kept}.")

    @contextmanager
    def live(self):
        """Show progress until the block ends; a panel on a terminal, else plain lines."""
        self._take_in_cached()
        self.say(
            f"{self._starting()} (importing the backend takes some 10 s). Ctrl-C is safe: "
            "finished trials are kept."
        )
        self.started = time.monotonic()
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=4, get_renderable=self._panel) as live:
            self._live = live
            yield
        self._live = None

    def _starting(self) -> str:
        jobs = min(self.order.jobs or self.total, self.total)
        if self.order.launcher == "ray":
            where = self.order.ray_address or "a cluster of its own"
            return f"Asking Ray ({where}) for up to {jobs} trial{'s' * (jobs > 1)} at a time"
        return f"Starting {jobs} worker{'s' * (jobs > 1)}"

    def finished(self, key: store.Key, outcome, log: Path) -> None:
        """Take in one trial's outcome."""
        self.done += 1
        self.worked += outcome.seconds
        self.kept += outcome.status != "failed"
        self.there[key.arm] += outcome.status != "failed"
        if outcome.status == "done":
            self.measured.add(key.arm, key.seed, outcome.rows, {})
        else:
            self.trouble += 1
            last = wording.clean(outcome.error.strip().splitlines()[-1])
            self.say(f"{outcome.status.upper()}: {key.arm}, seed {key.seed}: {last}. Log: {log}")
        self._interim = self._effects()
        if self._live is None:
            self._print_lines(ended=self.done == self.total)

    def _print_lines(self, ended: bool) -> None:
        now = time.monotonic()
        if ended or self.done == 1 or now - self.said > LINE_EVERY:
            self.said = now
            self.say(self._line())
        waited = now - self.tabled if self.tabled else TABLE_EVERY
        if self._interim is not None and (ended or waited >= TABLE_EVERY):
            self.tabled = now
            self.console.print(self._interim)

    def interrupted(self) -> None:
        """After Ctrl-C: what is kept and how to go on."""
        self.say(f"\nInterrupted. {self.kept} trials were finished and kept.")
        self.say(f"To go on: {self.order.command}")

    def _take_in_cached(self) -> None:
        for planned in self.plan:
            if planned.there:
                manifest, rows = store.read(self.order.results, planned.key)
                self.measured.add(planned.key.arm, planned.key.seed, rows, manifest)
                self.slowest = max(self.slowest, float(manifest.get("seconds", 0)))

    def _line(self) -> str:
        elapsed = time.monotonic() - self.started
        left = ""
        if self.done and self.done < self.total:
            left = f", about {wording.duration(self._seconds_left(elapsed))} left"
        trouble = f", {self.trouble} failed or diverged" if self.trouble else ""
        elapsed_text = wording.duration(elapsed)
        return f"{self.done}/{self.total} trials in {elapsed_text}{left}{trouble}"

    def _seconds_left(self, elapsed: float) -> float:
        """From what trials took, where it is known how many run at a time.

        After the first one that is far less than from the time that has gone by: in that, workers
        have imported their backend, and others are in the middle of a trial.
        """
        jobs = self.order.jobs
        spent, at_a_time = (self.worked, min(jobs, self.total)) if jobs else (elapsed, 1)
        return spent / self.done * (self.total - self.done) / at_a_time

    def _panel(self):
        bar = ProgressBar(
            max(1, self.total), self.done, self.console.width // 3, complete_style="cyan"
        )
        head = Table.grid(padding=(0, 1))
        head.add_row(bar, Text(self._line()))
        interim = self._interim or Table(box=None)
        arms = self._arms(self.console.height - interim.row_count - 8)
        return Group(Text(""), head, Text(""), arms, Text(""), interim)

    def _arms(self, most: int):
        """What is there of each arm, in as many columns as fit; in a line if rows are too few."""
        arms = Counter(planned.key.arm for planned in self.plan)
        widest = max(map(len, arms)) + BAR + len(" 100/100   ")
        down = math.ceil(len(arms) / max(1, self.console.width // widest))
        if down > most:
            ended = sum(self.there[arm] == count for arm, count in arms.items())
            begun = sum(0 < self.there[arm] < count for arm, count in arms.items())
            waiting = len(arms) - ended - begun
            return Text(f"arms: {ended} done, {begun} begun, {waiting} waiting")
        cells = [
            (
                Text(arm, style="" if self.there[arm] else "dim"),
                ProgressBar(count, self.there[arm], BAR, complete_style="cyan"),
                Text(f"{self.there[arm]}/{count}  ", style="dim"),
            )
            for arm, count in arms.items()
        ]
        table = Table.grid(padding=(0, 1))
        for row in range(down):
            table.add_row(*(part for cell in cells[row::down] for part in cell))
        return table

    def _effects(self) -> Table | None:
        from lab.claims.stats import judge

        table = Table(
            title="interim, not a verdict", title_justify="left", box=None, pad_edge=False
        )
        room = (self.console.width - 20) // 2  # what is too long for its half is cut
        for heading, most in (
            ("claim", None),
            ("measure", room),
            ("effect so far", room),
            ("seeds", 5),
        ):
            table.add_column(heading, no_wrap=True, max_width=most)
        for claim in self.order.experiment.claims:
            values = list(self.measured.per_seed(claim.contrast).values())
            if values:
                judged = judge(values, claim.margin)
                shown = wording.effect(claim, judged)
                table.add_row(claim.id, escape(claim.metric), escape(shown), str(judged.n))
        return table if table.row_count else None

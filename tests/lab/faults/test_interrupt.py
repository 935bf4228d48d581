"""Ctrl-C at any moment, once and twice: what is finished is kept and no process is left."""

import os
import random
import re
import shlex
import signal
import time

import pytest

from lab.machine.interrupt import EXIT_STATUS
from tests.processes import needs_proc, of_session, said, soon, started

pytestmark = needs_proc

# Seeds 2 and 3 never end, but for those that find the file `go_on`.
SLOW = """
import pathlib, time
from lab import Experiment
HERE = pathlib.Path(__file__).parent.parent
def run(trial):
    if trial.seed >= 2 and not (HERE / "go_on").exists():
        (HERE / f"running-{{trial.seed}}").touch()
        time.sleep(600)
    trial.record(score=float(trial.seed))
EXPERIMENT = Experiment(title="t", source="s", arms={{"a": {{}}}}, run=run, model="{model}",
    scales={{"smoke": {{"seeds": 4}}}}, claims=[])
"""
WORDS = ("experiment", "--name=slow", "--scale=smoke", "--jobs=2")


@pytest.fixture
def slow(project):
    project.experiment("slow", SLOW.format(model="none"))
    return project


def running(project):
    return len(list(project.folder.glob("running-*"))) == 2


def trials(project):
    return sorted(path.name for path in project.results.rglob("seed-*.csv"))


def ctrl_c(process):
    os.killpg(process.pid, signal.SIGINT)


def all_gone(process, seconds):
    """Whether the command has ended and left no process within so many seconds."""
    took = soon(lambda: process.poll() is not None and not of_session(process.pid), seconds)
    assert took is not None, f"after {seconds} s {of_session(process.pid)} are left"


def test_once_keeps_what_is_finished_and_the_command_it_prints_goes_on(slow):
    with started(slow, *WORDS) as process:
        soon(lambda: running(slow) and len(trials(slow)) == 2)
        time.sleep(0.5)  # until they are counted, too
        ctrl_c(process)
        all_gone(process, 5)
    assert process.returncode == EXIT_STATUS
    assert "2 trials were finished and kept" in said(slow) and "Traceback" not in said(slow)
    assert trials(slow) == ["seed-0.csv", "seed-1.csv"]
    (command,) = re.findall("To go on: make (.*)", said(slow))
    (slow.folder / "go_on").touch()
    asked = [re.sub("^([A-Z]+)=", lambda m: f"--{m[1].lower()}=", w) for w in shlex.split(command)]
    done = slow.lab(*asked)
    assert done.returncode == 0 and "2 cached, 2 to run" in done.stdout
    assert len(trials(slow)) == 4


def test_once_while_the_report_is_written_says_how_to_go_on(slow):
    (slow.folder / "go_on").touch()
    with started(slow, *WORDS) as process:
        soon(lambda: "Writing the report" in said(slow))
        ctrl_c(process)
        all_gone(process, 5)
    assert process.returncode == EXIT_STATUS
    assert "4 trials were finished and kept" in said(slow)
    assert "To go on: make experiment NAME=slow SCALE=smoke" in said(slow)
    assert slow.lab(*WORDS).returncode == 0
    assert (slow.results / "slow.csv").read_text().count("\n") == 5


def test_a_second_one_does_not_wait_for_what_the_first_one_began(slow):
    path = slow.folder / "lab/sweeps/running.py"
    source = path.read_text()
    hangs = source.replace("closing(run_all", "_Hanging(run_all", 1) + (
        "\n\nclass _Hanging(closing):\n    def __exit__(self, *_):\n        while True:\n"
        "            try:\n                time.sleep(600)\n"
        "            except KeyboardInterrupt:\n                pass\n"
    )
    assert hangs.count("_Hanging") == 2
    path.write_text(hangs)
    with started(slow, *WORDS) as process:
        soon(lambda: running(slow))
        ctrl_c(process)
        time.sleep(0.5)
        assert len(of_session(process.pid)) > 2  # the workers are there: nothing has stopped them
        ctrl_c(process)
        all_gone(process, 1)
    assert process.returncode == EXIT_STATUS


@pytest.mark.parametrize("presses", [1, 2])
@pytest.mark.parametrize("times", [2, pytest.param(30, marks=pytest.mark.faults)])
def test_at_any_moment_nothing_is_left(slow, presses, times):
    """Also while it is imported, where there is nothing to say yet."""
    random_ = random.Random(presses)
    for _ in range(times):
        with started(slow, *WORDS) as process:
            time.sleep(random_.uniform(0.05, 2.5))
            ctrl_c(process)
            if presses == 2:
                time.sleep(random_.uniform(0, 0.3))
                if process.poll() is None:
                    ctrl_c(process)
            all_gone(process, 5 if presses == 1 else 1)
        assert process.returncode in (EXIT_STATUS, -signal.SIGINT), said(slow)
        if "Starting" in said(slow):
            assert "Traceback" not in said(slow)
        assert set(trials(slow)) <= {"seed-0.csv", "seed-1.csv"}
    (slow.folder / "go_on").touch()
    assert slow.lab(*WORDS).returncode == 0 and len(trials(slow)) == 4


@pytest.mark.faults
@pytest.mark.parametrize("which", ["all", "driver"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_server_that_still_imports_keras_ends_with_the_driver(project, which, number):
    project.experiment("slow", SLOW.format(model="mlp"))
    with started(project, *WORDS) as process:
        soon(lambda: len(of_session(process.pid)) > 2)  # the driver, a tracker, the server
        time.sleep(1)
        assert process.poll() is None and not running(project)
        (os.killpg if which == "all" else os.kill)(process.pid, number)
        all_gone(process, 5 if number == signal.SIGINT else 1)
    assert trials(project) == []

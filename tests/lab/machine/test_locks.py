"""Commands at once on the same results: each trial is computed once, none is lost, all end well."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from lab.claims.vocabulary import Setting
from lab.machine import locks
from lab.records import store
from tests.processes import descendants

SETTING = Setting("smoke", "digits", "none", "tensorflow")

# A trial notes when it is computed, and fails if it is being computed already.
ALONE = """
import os, pathlib, time
from lab import Experiment
NOTES = pathlib.Path(__file__).parent.parent / "notes"
def run(trial):
    NOTES.mkdir(exist_ok=True)
    mark = NOTES / f"now-{trial.experiment_name}-{trial.arm_name}-{trial.seed}"
    os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    time.sleep(SECONDS)
    trial.record(score=float(trial.seed))
    mark.unlink()
    (NOTES / f"did-{mark.name}-{time.monotonic_ns()}").touch()
EXPERIMENT = Experiment(title="t", source="s", arms={"a": {}, "b": {}},
    scales={"smoke": {"seeds": 2}, "quick": {"seeds": 2}}, claims=[], run=run, model="none")
"""


@pytest.fixture
def project(project):
    return project.draws_nothing()


def alone(project, name="alone", seconds=0.2):
    source = ALONE.replace("SECONDS", str(seconds)).replace("trial.experiment_name", repr(name))
    project.experiment(name, source)


def started(project, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "lab", *words],
        cwd=project.folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A job in the background ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def experiment(project, name="alone", *words):
    asked = ("experiment", f"--name={name}", "--scale=smoke", "--jobs=2")
    return started(project, *asked, *words)


def ended(processes):
    try:
        return [(process.communicate(timeout=100)[0], process.returncode) for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def computed(project):
    return sorted(p.name.rsplit("-", 1)[0] for p in (project.folder / "notes").glob("did-*"))


def trial(project):
    """Files of a trial, as quick as can be."""
    key = store.Key("toy", SETTING, "small", 0)
    store.save(project.results, key, [(None, "score", 1.0)], {"status": "done"})


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


@pytest.mark.parametrize("many", [2, 5])
def test_identical_commands_at_once_compute_each_trial_once(project, many):
    alone(project)
    done = ended([experiment(project) for _ in range(many)])
    assert [status for _, status in done] == [0] * many, done
    assert computed(project) == [f"did-now-alone-{a}-{seed}" for a in "ab" for seed in (0, 1)]
    assert sum("Nothing to do" in out for out, _ in done) == many - 1
    assert all(out.count("waiting for it") <= 2 for out, _ in done)  # for trials and report
    assert len(list(store.trials(project.results))) == 4
    files = project.files()
    assert project.lab("report").returncode == 0 and project.files() == files


def test_different_commands_on_the_same_results_lose_nothing_of_each_other(project):
    alone(project, "one")
    alone(project, "two")
    commands = [("one",), ("two",), ("one", "--seeds=3")]  # the last has trials of the first
    done = ended([experiment(project, *words) for words in commands])
    assert [status for _, status in done] == [0, 0, 0], done
    seeds = [("one", range(3)), ("two", range(2))]
    wanted = [f"did-now-{n}-{a}-{seed}" for n, many in seeds for a in "ab" for seed in many]
    assert computed(project) == wanted
    report = (project.results / "REPORT.md").read_text()
    assert "## one" in report and "## two" in report
    assert (project.results / "one.csv").read_text().count("score") == 6
    assert (project.results / "two.csv").read_text().count("score") == 4


def test_a_lock_dies_with_its_holder_though_a_worker_lives_on(project):
    alone(project, seconds=600)
    holder = experiment(project)
    notes = project.folder / "notes"
    until(lambda: len(list(notes.glob("now-*"))) == 2)
    below = list(descendants(holder.pid))
    try:
        for pid in below:
            os.kill(pid, signal.SIGSTOP)  # they cannot even notice that the driver is gone
        alone(project, seconds=0)
        for mark in notes.iterdir():
            mark.unlink()
        waiting = experiment(project)
        assert "waiting for it (Ctrl-C gives up)" in waiting.stdout.readline()
        os.kill(holder.pid, signal.SIGKILL)
        ((out, status),) = ended([waiting])
        assert status == 0 and "4 to run" in out
    finally:
        for pid in [*below, holder.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        holder.communicate()


def test_who_waits_can_be_interrupted_and_dry_and_list_do_not_wait(project):
    alone(project)
    with locks.trials(project.results, "alone", SETTING), locks.derived(project.results):
        waiting = experiment(project)
        assert "Another command is running trials" in waiting.stdout.readline()
        dry = project.run("alone", "--dry", "1")
        assert dry.returncode == 0 and "4 to run" in dry.stdout
        assert project.lab("list").returncode == 0
        os.kill(waiting.pid, signal.SIGINT)
        ((out, status),) = ended([waiting])
        assert status == 130 and "Traceback" not in out
        assert not (project.folder / "notes").exists()


@pytest.mark.parametrize("command", ["report", "compact"])
def test_a_command_that_writes_waits_for_one_that_writes(project, command):
    trial(project)
    before = project.files()
    with locks.derived(project.results):
        waiting = started(project, command)
        assert "Another command is writing to results" in waiting.stdout.readline()
        assert project.files() == before
    ((out, status),) = ended([waiting])
    assert status == 0, out
    assert project.files() != before


def test_trials_are_not_compressed_while_they_are_run(project):
    trial(project)
    before = project.files()
    with locks.trials(project.results, "toy", SETTING):
        waiting = started(project, "compact")
        assert "Another command is running trials" in waiting.stdout.readline()
        assert project.files() == before
    ((_, status),) = ended([waiting])
    assert status == 0 and not list(project.results.glob("toy/*/*/*.csv"))


def test_a_folder_that_is_removed_while_one_waits_is_locked_anew(tmp_path):
    said, held = [], []

    def wait():
        with locks.derived(tmp_path / "results", said.append):
            held.append((tmp_path / "results" / locks.FILE).exists())

    waiting = threading.Thread(target=wait)
    with locks.derived(tmp_path / "results"):
        waiting.start()
        until(lambda: said)
        shutil.rmtree(tmp_path / "results")
    waiting.join(10)
    assert held == [True] and len(said) == 1


def test_a_file_system_without_locks_is_said_and_gone_on_with(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(95, os.strerror(95))

    said = []
    monkeypatch.setattr(locks.fcntl, "flock", flock)
    with locks.derived(tmp_path, said.append):
        pass
    assert len(said) == 1 and "start no second command" in said[0]

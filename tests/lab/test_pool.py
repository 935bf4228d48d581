"""Workers that are killed, crash, run out of memory or hang, for real: only their trial is lost."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CRIMES = """
import ctypes, os, pathlib, resource, signal, time
from lab import Experiment
TRIED = pathlib.Path(__file__).parent.parent / "tried"
def run(trial):
    arm = trial.arm_name
    TRIED.mkdir(exist_ok=True)
    (TRIED / f"{arm}-{trial.seed}-{time.monotonic_ns()}").touch()
    again = len(list(TRIED.glob(f"{arm}-{trial.seed}-*"))) > 1
    if arm == "killed" or (arm == "killed_once" and not again):
        os.kill(os.getpid(), signal.SIGKILL)
    if arm == "crashes":
        ctypes.string_at(0)
    if arm == "hungry":
        resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
        bytearray(2**31)
    if arm == "hangs":
        time.sleep(600)
    trial.record(score=float(trial.seed))
ARMS = {name: {} for name in
        ("well", "killed", "killed_once", "crashes", "hungry", "hangs", "well_too")}
EXPERIMENT = Experiment(title="t", source="s", arms=ARMS, scales={"smoke": {"seeds": 1}},
    claims=[], run=run, model="none")
"""


def test_each_takes_only_its_own_trial_and_is_tried_twice_but_for_a_late_one(project):
    project.experiment("crimes", CRIMES)
    done = project.run("crimes", "--limit", "4")
    assert done.returncode == 1
    said = {}
    for line in done.stdout.splitlines():
        if line.startswith("FAILED: "):
            arm, error = line.removeprefix("FAILED: ").split(", seed 0: ")
            said[arm] = error
    assert said.keys() == {"killed", "crashes", "hungry", "hangs"}
    assert "ended by signal 9" in said["killed"]
    assert "ended by signal 11" in said["crashes"]
    assert "MemoryError" in said["hungry"]
    assert "No result within 4 s" in said["hangs"] and "LIMIT=" in said["hangs"]
    kept = {name.split("/")[2] for name in project.files() if name.endswith("seed-0.json")}
    assert kept == {"well", "well_too", "killed_once"}
    tried = [path.name.split("-")[0] for path in (project.folder / "tried").iterdir()]
    times = {arm: tried.count(arm) for arm in set(tried)}
    assert times == {
        **{"well": 1, "well_too": 1, "hangs": 1},
        **{"killed": 2, "killed_once": 2, "crashes": 2, "hungry": 2},
    }


def test_the_time_to_start_a_worker_is_not_the_first_trials(project):
    """A limit shorter than the import of TensorFlow once failed every first trial."""
    source = (project.folder / "lab/worker.py").read_text()
    slow = source.replace("        start(setting, threads)\n", "        time.sleep(3)\n", 1)
    assert slow != source
    (project.folder / "lab/worker.py").write_text(slow)
    done = project.run("toy", "--limit", "2")
    assert done.returncode == 0, done.stdout


SLEEPS = """
import time
from lab import Experiment
def run(trial):
    time.sleep(600)
EXPERIMENT = Experiment(title="t", source="s", arms={"a": {}}, scales={"smoke": {"seeds": 4}},
    claims=[], run=run, model="none")
"""


def descendants(root: int) -> set[int]:
    """The processes below one, also those that a server in between has forked."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rsplit(")", 1)[1].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
def test_workers_end_when_the_driver_is_killed_in_the_middle_of_a_trial(project):
    project.experiment("sleeps", SLEEPS)
    words = ("experiment", "--name=sleeps", "--scale=smoke", "--jobs=2")
    driver = subprocess.Popen(
        [sys.executable, "-m", "lab", *words],
        cwd=project.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while len(below := descendants(driver.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)  # a server, its tracker, two workers
        assert len(below) >= 3
        time.sleep(1)
        os.kill(driver.pid, signal.SIGKILL)  # the driver alone, not its group
        driver.wait()
        deadline = time.monotonic() + 10
        while any(map(running, below)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not [pid for pid in below if running(pid)]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)


def running(pid: int) -> bool:
    """Whether a process is there and not only waiting to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False

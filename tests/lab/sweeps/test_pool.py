"""Workers that are killed, crash, run out of memory or hang, for real: only their trial is lost."""

import os
import re
import signal
import time

import pytest

from tests.processes import needs_proc, of_session, said, soon, started

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
    source = (project.folder / "lab/sweeps/worker.py").read_text()
    slow = source.replace("        start(setting, threads)\n", "        time.sleep(3)\n", 1)
    assert slow != source
    (project.folder / "lab/sweeps/worker.py").write_text(slow)
    done = project.run("toy", "--limit", "2")
    assert done.returncode == 0, done.stdout


HALF = """
        if not os.path.exists("half"):
            open("half", "w").close()
            os.write(connection.fileno(), (1000).to_bytes(4, "big") + b"half a message")
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_that_dies_in_the_middle_of_its_answer_is_not_believed(project):
    path = project.folder / "lab/sweeps/worker.py"
    send = "        connection.send(perform(keys, threads, engine))\n"
    slow = path.read_text().replace(send, HALF + send)
    assert slow != path.read_text()
    path.write_text(slow)
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project.folder / "half").exists() and "6/6 trials" in done.stdout


WAITS = """
import os, pathlib, time
from lab import Experiment
HERE = pathlib.Path(__file__).parent.parent
def run(trial):
    if trial.seed == 1 and trial.arm_name == "a":
        number = len(list(HERE.glob("try-*")))
        (HERE / f"try-{number}").write_text(str(os.getpid()))
        time.sleep(600 if number == 0 or TWICE else 0)
    trial.record(score=float(trial.seed))
TWICE = False
EXPERIMENT = Experiment(title="t", source="s", arms={"a": {}, "b": {}}, run=run, model="none",
    scales={"smoke": {"seeds": 3}}, claims=[])
"""


@needs_proc
@pytest.mark.parametrize(
    ("number", "times"),
    [(signal.SIGKILL, 1), pytest.param(signal.SIGSEGV, 2, marks=pytest.mark.faults)],
)
def test_a_worker_that_is_killed_from_outside_has_its_trial_tried_once_more(project, number, times):
    project.experiment("waits", WAITS.replace("TWICE = False", f"TWICE = {times == 2}"))
    with started(project, "experiment", "--name=waits", "--scale=smoke", "--jobs=2") as process:
        for i in range(times):
            attempt = project.folder / f"try-{i}"
            assert soon(lambda: attempt.exists() and attempt.read_text()) is not None  # noqa: B023
            os.kill(int(attempt.read_text()), number)
        process.wait(60)
    assert process.returncode == (0 if times == 1 else 1)
    assert len(list(project.folder.glob("try-*"))) == 2
    assert len(list(project.results.rglob("seed-*.json"))) == (6 if times == 1 else 5)
    failed = f"FAILED: a, seed 1: The worker process ended by signal {number:d}."
    assert (failed in said(project)) == (times == 2)


def test_without_a_limit_a_trial_may_take_a_multiple_of_the_slowest_so_far(project):
    """Ten minutes at least, for which no test waits: here it is one second."""
    path = project.folder / "lab/sweeps/pool.py"
    short = path.read_text().replace("SHORTEST_LIMIT = 20, 600.0", "SHORTEST_LIMIT = 20, 1.0")
    assert short != path.read_text()
    path.write_text(short)
    few = 'ARMS = {"well": {}, "hangs": {}, "well_too": {}}\nEXPERIMENT ='
    source = CRIMES.replace("trial.record(", "time.sleep(0.1)\n    trial.record(")
    project.experiment("crimes", source.replace("EXPERIMENT =", few))
    done = project.run("crimes", "--jobs", "1")
    assert done.returncode == 1
    (limit,) = re.findall(r"FAILED: hangs, seed 0: No result within ([\d.]+) s", done.stdout)
    assert 2 <= float(limit) < 600  # twenty times a tenth of a second and what comes with it
    assert any("well_too/seed-0.json" in name for name in project.files())


SLEEPS = """
import time
from lab import Experiment
def run(trial):
    time.sleep(600)
EXPERIMENT = Experiment(title="t", source="s", arms={"a": {}}, scales={"smoke": {"seeds": 4}},
    claims=[], run=run, model="none")
"""


@needs_proc
def test_workers_end_when_the_driver_is_killed_in_the_middle_of_a_trial(project):
    project.experiment("sleeps", SLEEPS)
    words = ("experiment", "--name=sleeps", "--scale=smoke", "--jobs=2")
    with started(project, *words) as driver:
        # It, a server, its tracker, two workers.
        assert soon(lambda: len(of_session(driver.pid)) >= 5) is not None
        time.sleep(1)
        os.kill(driver.pid, signal.SIGKILL)  # the driver alone, not its group
        driver.wait()
        assert soon(lambda: not of_session(driver.pid), 10) is not None


GIANT = """
import resource
from lab import Experiment
def run(trial):
    import keras
    if trial.arm_name == "giant":
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**29, size + 2**29))
    ones = keras.ops.ones((2**28 if trial.arm_name == "giant" else 2,))
    trial.record(sum=float(keras.ops.sum(ones * 2)))
EXPERIMENT = Experiment(title="t", source="s", arms={"a": {}, "giant": {}, "b": {}}, run=run,
    scales={"smoke": {"seeds": 1}}, claims=[])
"""


@needs_proc
@pytest.mark.faults
def test_a_backend_that_runs_out_of_memory_takes_only_its_own_trial(project):
    """It raises, aborts or throws in C++: either way the others finish, in workers of their own."""
    project.experiment("giant", GIANT)
    done = project.run("giant", timeout=300)
    assert done.returncode == 1
    assert "FAILED: giant, seed 0" in done.stdout and done.stdout.count("FAILED") == 1
    assert sum(name.endswith("seed-0.json") for name in project.files()) == 2


@pytest.mark.faults
def test_of_trials_that_run_together_only_the_one_that_kills_is_lost(project):
    pytest.importorskip("jax")
    source = CRIMES.replace('arm == "killed" or', 'arm == "killed" and trial.seed == 1 or')
    arms = 'ARMS = {"well": {}, "killed": {}}\nEXPERIMENT ='
    project.experiment("crimes", source.replace("EXPERIMENT =", arms).replace(": 1}", ": 3}"))
    done = project.run("crimes", "--backend", "jax", "--engine", "stacked", timeout=300)
    assert done.returncode == 1
    assert "FAILED: killed, seed 1: The worker process ended by signal 9." in done.stdout
    assert done.stdout.count("FAILED") == 1
    assert sum(name.endswith(".json") and "seed-" in name for name in project.files()) == 5

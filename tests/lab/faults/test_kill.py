"""SIGKILL of everything at any moment, then the same command again: as if nothing had happened."""

import compileall
import itertools
import json
import random
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.records import store
from tests.conftest import Project
from tests.processes import kill_all, needs_proc, of_session, said, soon, started
from tests.test_readme import BLOCKS

pytestmark = needs_proc

SHORT = """
import time
import numpy as np
from lab import Claim, Contrast, Experiment
def run(trial):
    time.sleep(0.05)
    noise = np.random.default_rng(trial.seed).normal(size=3)
    for epoch, loss in enumerate(noise, 1):
        trial.record(loss=loss, epoch=epoch)
    trial.record(score=trial.arm["shift"] + noise[0], undefined=float("nan"))
EXPERIMENT = Experiment(title="t", source="s", run=run, model="none",
    arms={"a": {"shift": 0}, "b": {"shift": 1}}, scales={"smoke": {"seeds": 6}},
    claims=[Claim(id="A", says="x", contrast=Contrast("score", {"b": 1, "a": -1}), margin=0.1,
                  unit="u", literature="none")])
"""
VOLATILE = {"seconds", "spent", "finished", "seal"}  # a seal is over all of them


def words(name):
    return ("experiment", f"--name={name}", "--scale=smoke", "--jobs=2")


def rows_and_manifests(project):
    """All CSV files as they are, and the manifests but for times and durations."""
    kept = {}
    for name, content in project.files().items():
        if name.endswith(".csv"):
            kept[name] = content
        elif re.search(r"seed-\d+\.json$", name):
            kept[name] = {k: v for k, v in json.loads(content).items() if k not in VOLATILE}
    return kept


def manifest(project, key):
    return project.results / f"{key.path}.json"


def begun(project):
    """What to wait for until each phase of a run begins: imports, trials, report, and the end."""
    return (
        lambda: True,
        lambda: any(project.results.rglob("seed-*.json")),
        lambda: "Writing the report" in said(project),
    )


def undisturbed(project, name):
    """What a run leaves, and the seconds of its phases when all is compiled already."""
    compileall.compile_dir(project.folder, quiet=1)
    with started(project, *words(name)) as process:
        at = [time.monotonic()]
        for phase in (*begun(project)[1:], lambda: process.poll() is not None):
            assert soon(phase, 120) is not None
            at.append(time.monotonic())
    assert process.returncode == 0, said(project)
    seconds = [end - begin for begin, end in itertools.pairwise(at)]
    return rows_and_manifests(project), set(project.files()), seconds


def kill_and_go_on(project, name, moments, wanted):
    """One run per moment, killed there and repeated; returns how many trials were there by then."""
    rows, names, seconds = wanted
    trials = sum(bool(re.search(r"seed-\d+\.csv$", name)) for name in names)
    found = []
    for phase, fraction in moments:
        shutil.rmtree(project.results)
        with started(project, *words(name)) as process:
            soon(begun(project)[phase])
            time.sleep(fraction * seconds[phase])
            kill_all(process)
            gone = soon(lambda: not of_session(process.pid), 5)
            assert gone is not None, f"{of_session(process.pid)} outlive their driver"
        there = [k for k in store.trials(project.results) if manifest(project, k).exists()]
        for key in there:
            store.read(project.results, key)  # raises if one is not whole
        found.append(len(there))
        again = project.run(name)
        assert again.returncode == 0, again.stdout + again.stderr
        assert f"{len(there)} cached, {trials - len(there)} to run" in again.stdout
        killed = f"killed in phase {phase} after {fraction * seconds[phase]:.3f} s"
        assert rows_and_manifests(project) == rows, killed
        assert set(project.files()) == names, killed  # nor are temporary files left
    return found


def spread(count, seed):
    """Random moments `(phase, fraction of it)`, as many in each phase, spread over it."""
    random_ = random.Random(seed)
    each = -(-count // 3)
    parts = [(i % 3, (i // 3 + random_.random()) / each) for i in range(count)]
    random_.shuffle(parts)
    return parts


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.faults)])
def test_a_sweep_killed_at_any_moment_ends_with_the_rows_of_an_undisturbed_one(tmp_path, kills):
    """Many are done two at a time, each in a project of its own: a short run keeps no two cores."""
    count = 2 if kills > 10 else 1

    def lane(number):
        project = Project(tmp_path / f"project-{number}")
        project.experiment("short", SHORT)
        wanted = undisturbed(project, "short")
        return kill_and_go_on(project, "short", moments[number::count], wanted)

    moments = spread(kills, seed=0)
    with ThreadPoolExecutor(count) as lanes:
        found = list(itertools.chain(*lanes.map(lane, range(count))))
    assert len(found) == kills
    assert min(found) < 12 == max(found)
    assert kills < 100 or (min(found) == 0 and len(set(found)) > 4)


@pytest.mark.faults
def test_a_sweep_that_trains_is_killed_like_any_other(project):
    (source,) = [block for block in BLOCKS if "EXPERIMENT" in block]
    project.experiment("momentum", source.replace('"epochs": 1}', '"epochs": 20}'))
    wanted = undisturbed(project, "momentum")
    found = kill_and_go_on(project, "momentum", spread(5, seed=1), wanted)
    assert min(found) < 4 == max(found)

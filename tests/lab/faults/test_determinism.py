"""The same sweep gives the same bytes: any number of workers, any order, however often resumed."""

import re

import pytest

from tests.processes import kill_all, needs_proc, soon, started
from tests.test_readme import BLOCKS

pytestmark = needs_proc

TOY = """
import time
import numpy as np
from lab import Claim, Contrast, Experiment
def run(trial):
    time.sleep(0.2 * (trial.seed % 2))
    trial.record(score=trial.arm["shift"] + np.random.normal() + trial.rng("more").normal())
    trial.record(last=np.random.normal(), epoch=3)
EXPERIMENT = Experiment(title="t", source="s", run=run, model="none",
    arms={"a": {"shift": 0}, "b": {"shift": 1}}, scales={"smoke": {"seeds": 6}},
    claims=[Claim(id="A", says="x", contrast=Contrast("score", {"b": 1, "a": -1}), margin=0.1,
                  unit="u", literature="none")])
"""
IN_ORDER = "    together = tasks("
(MOMENTUM,) = [block for block in BLOCKS if "EXPERIMENT" in block]
EXPERIMENTS = [
    pytest.param(TOY, 12, id="toy"),
    pytest.param(MOMENTUM, 4, id="keras", marks=pytest.mark.faults),
]


def shuffled(project, seed):
    """Lets the project start its trials in another order."""
    path = project.folder / "lab/sweeps/running.py"
    source = re.sub(r"    __import__.*\n", "", path.read_text())
    changed = source.replace(
        IN_ORDER, f'    __import__("random").Random({seed}).shuffle(todo)\n{IN_ORDER}', 1
    )
    assert changed != source
    path.write_text(changed)


def tables(project, results):
    """Every CSV file but those of manifests: rows, verdicts, comparisons."""
    folder = project.folder / results
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*.csv"))
    }


def words(results, jobs):
    return (
        *("experiment", "--name=same", "--scale=smoke"),
        *(f"--jobs={jobs}", f"--results={results}"),
    )


@pytest.mark.parametrize(("source", "trials"), EXPERIMENTS)
def test_workers_order_and_interruptions_do_not_matter(project, source, trials):
    project.draws_nothing().experiment("same", source)
    assert project.lab(*words("one", 1), timeout=300).returncode == 0
    expected = tables(project, "one")
    assert len(expected) > trials
    shuffled(project, seed=5)
    assert project.lab(*words("four", 4), timeout=300).returncode == 0
    assert tables(project, "four") == expected

    def found():
        return len(list((project.folder / "resumed").rglob("seed-*.json")))

    for resumed in range(5):
        shuffled(project, seed=resumed)
        before = found()
        with started(project, *words("resumed", 2)) as process:
            soon(lambda: found() > before or process.poll() is not None)  # noqa: B023
            kill_all(process)
    assert project.lab(*words("resumed", 2), timeout=300).returncode == 0
    assert tables(project, "resumed") == expected

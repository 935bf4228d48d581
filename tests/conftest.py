"""Shared fixtures: a copy of the project with toy experiments, and its command line."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests import commands

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption("--one-of-each", action="store_true", help="of tests with cases the first")


@pytest.hookimpl(trylast=True)  # after marks and names have chosen
def pytest_collection_modifyitems(config, items):
    """With `--one-of-each`, keep the first case of each test, in the order of the file."""
    if not config.getoption("--one-of-each"):
        return
    first: dict[str, pytest.Item] = {}
    others = [i for i in items if first.setdefault(i.nodeid.partition("[")[0], i) is not i]
    config.hook.pytest_deselected(items=others)
    items[:] = first.values()


TOY = '''
"""A toy: its effect is known and nothing is trained."""
import numpy as np
from lab import Claim, Contrast, Experiment, Gate

ARMS = {"small": {"shift": 0.0}, "large": {"shift": 1.0}}
SCALES = {"smoke": {"seeds": 3}, "quick": {"seeds": 6}}

def run(trial):
    noise = np.random.default_rng([trial.seed, ord(trial.arm_name[0])]).normal(0, 0.1)
    trial.record(score=trial.arm["shift"] + noise, sharpness=float(np.exp(trial.arm["shift"])))

CLAIMS = [
    Claim(id="A1", says="Large is larger", contrast=Contrast("score", {"large": 1, "small": -1}),
          margin=0.5, unit="score", literature="none",
          beside={"naive": Contrast("score", {"large": 1})}),
    Claim(id="A2", says="Small is larger", contrast=Contrast("score", {"large": -1, "small": 1}),
          margin=0.5, unit="score", literature="none"),
    Claim(id="A3", says="Gated", contrast=Contrast("score", {"large": 1, "small": -1}),
          margin=0.5, unit="score", literature="none", under="gate",
          gates=[Gate("scores match", Contrast("score", {"large": 1, "small": -1}), -0.2, 0.2)]),
]
EXPERIMENT = Experiment(title="A toy", source="none", arms=ARMS, scales=SCALES, claims=CLAIMS,
                        run=run, model="none")
'''


class Project:
    """A copy of the project's code in a folder of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        for name in ("lab", "models", "callbacks", "requirements"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        (folder / "experiments").mkdir()
        self.results = folder / "results"
        self.experiment("toy", TOY)

    def copy(self, folder: Path) -> "Project":
        """The same, results included, in another folder."""
        shutil.copytree(self.folder, folder)
        other = object.__new__(Project)
        other.folder, other.results = folder, folder / "results"
        return other

    def experiment(self, name: str, source: str) -> None:
        (self.folder / "experiments" / f"{name}.py").write_text(source, "utf-8")

    def draws_nothing(self) -> "Project":
        """Leave out figures, most of the time of a run that trains nothing; returns itself."""
        with open(self.folder / "lab/report/writing.py", "a") as source:
            source.write("\n\ndef _pictures(*_):\n    return []\n")
        return self

    def lab(self, *words: str, timeout: float = 120, **env: str) -> subprocess.CompletedProcess:
        """Run `python -m lab ...` in the project; returns the finished process."""
        return commands.run(words, self.folder, {"COLUMNS": "200"} | env, timeout)

    def run(self, name: str = "toy", *words: str, **more) -> subprocess.CompletedProcess:
        """Run an experiment at smoke scale."""
        asked = ("experiment", "--name", name, "--scale", "smoke", "--jobs", "2")
        return self.lab(*asked, *words, **more)

    def files(self) -> dict[str, bytes]:
        """Every file of the results by its path, but for locks."""
        found = sorted(self.results.rglob("*"))
        files = (p for p in found if p.is_file() and p.name != ".lock")
        return {p.relative_to(self.results).as_posix(): p.read_bytes() for p in files}


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "project")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A project whose toy has run; not to be changed."""
    project = Project(tmp_path_factory.mktemp("finished") / "project")
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture
def ran(finished, tmp_path):
    """A copy of that project: to run the toy once more costs seconds."""
    return finished.copy(tmp_path / "ran")

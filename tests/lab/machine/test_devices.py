"""Which GPU, and how much of it, each worker gets; the GPUs are made up."""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from lab import doctor
from lab.machine import devices, home
from lab.sweeps import pool, running


def test_the_processor_is_named_as_compilers_tell_it_from_others(tmp_path):
    info = tmp_path / "cpuinfo"
    told = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\nstepping: 1\n"
    info.write_text(told * 2)
    assert devices.processor(info) == "AMD EPYC, family 25, model 17"
    info.write_text("CPU implementer\t: 0x41\n")  # of an ARM
    assert devices.processor(info) == devices.processor(tmp_path / "none") != ""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder of devices with two GPUs, of which a container shows those numbered 2 and 5."""
    for name in ("nvidia2", "nvidia5", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, ["0", "1"]),
        ("1", ["1"]),
        ("GPU-8932f937, 3", ["GPU-8932f937", "3"]),
        ("", []),
        ("-1", []),
        ("2,-1,3", ["2"]),
    ],
)
def test_gpus_are_those_of_the_machine_or_those_that_were_left_visible(
    machine, monkeypatch, visible, found
):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.gpus(machine) == found


@pytest.mark.parametrize("jobs", range(1, 9))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_no_gpu_is_given_away_twice_and_workers_are_spread_evenly(count, jobs):
    names = [f"GPU-{i}" for i in range(count)]
    given = [devices.environment(number, jobs, names) for number in range(jobs)]
    used = Counter(env["CUDA_VISIBLE_DEVICES"] for env in given)
    assert max(used.values()) - min(used[name] for name in names) <= 1
    part = devices.share(count, jobs)
    assert max(used.values()) * part <= 1 < (max(used.values()) + 1) * part + 1e-3
    for env in given:
        assert float(env["XLA_PYTHON_CLIENT_MEM_FRACTION"]) == pytest.approx(0.9 * part, rel=1e-2)


def test_without_gpus_a_worker_gets_nothing_more():
    assert devices.environment(0, 2, []) == {}


ASKS = {"results": Path("results"), "seeds": 1, "name": "toy", "experiment": None, "setting": None}


@pytest.mark.parametrize(
    ("gpus", "jobs", "engine", "workers"),
    [
        ([], None, "fused", devices.cores()),
        (["0", "1"], None, "fused", 2),
        (["0", "1"], 6, "fused", 6),
        (["0", "1"], 6, "stacked", 2),
        ([], 6, "stacked", 6),
        ([], 600, "fused", 100),
    ],
)
def test_there_is_a_worker_a_gpu_unless_jobs_says_otherwise(
    monkeypatch, gpus, jobs, engine, workers
):
    monkeypatch.setattr(devices, "gpus", lambda: gpus)
    assert running.workers(running.Order(jobs=jobs, engine=engine, **ASKS), 100) == workers


class Worker:
    """Stands for a process: notes what it was started with, and works until told."""

    def __init__(self, context, order, share):
        self.share, self.task = share, ()

    def give(self, task, limit):
        self.task = task

    def result(self):
        task, self.task = self.task, ()
        return task, ["done"], False

    def stop(self):
        pass


def test_a_worker_in_place_of_a_dead_one_gets_its_gpu(monkeypatch):
    monkeypatch.setattr(devices, "gpus", lambda: ["7", "9"])
    monkeypatch.setattr(pool, "_Worker", Worker)
    monkeypatch.setattr(pool, "_context", lambda setting: None)
    crew = pool.LocalCrew(running.Order(jobs=2, engine="fused", **ASKS))
    for task in ("first", "second"):
        crew.give([task], 1.0)
    assert not crew.has_room
    visible = [one.share["CUDA_VISIBLE_DEVICES"] for one in crew._workers.values()]
    assert visible == ["7", "9"]
    for name in visible:
        (dies,) = [w for w in crew._workers.values() if w.share["CUDA_VISIBLE_DEVICES"] == name]
        monkeypatch.setattr(pool, "_next", lambda workers, dies=dies: [dies])
        lost = dies.task
        assert crew.results() == [(lost, ["done"])] and crew.has_room
        crew.give(["third"], 1.0)
        now = [one.share["CUDA_VISIBLE_DEVICES"] for one in crew._workers.values()]
        assert sorted(now) == ["7", "9"]


def test_doctor_says_what_a_worker_gets(machine, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    doctor.examine(tmp_path / "results")
    out = capsys.readouterr().out
    assert "2 NVIDIA GPUs, one for each worker; JOBS=8 gives each 0.25 of one" in out
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    doctor.examine(tmp_path / "results")
    assert "no NVIDIA GPU" in capsys.readouterr().out


def test_caches_go_beside_the_packages_unless_home_has_them(tmp_path, monkeypatch):
    own, user = tmp_path / "venv", tmp_path / "home"
    own.mkdir()
    (user / ".keras").mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(own))
    monkeypatch.setenv("HOME", str(user))
    for name in home.KEPT:
        monkeypatch.delenv(name, raising=False)
    home.leave_alone()
    assert "KERAS_HOME" not in os.environ
    assert Path(os.environ["MPLCONFIGDIR"]).is_relative_to(own)

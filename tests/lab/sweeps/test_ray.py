"""Trials on real Ray clusters: one of two nodes, of which one is killed, and one of its own."""

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import pytest

from lab.claims.vocabulary import Setting
from lab.records import fingerprint, store
from lab.sweeps import worker
from tests.lab.sweeps.test_pool import CRIMES, SLEEPS
from tests.processes import descendants, running

pytest.importorskip("ray", reason="needs Ray: pip install -r requirements/ray.txt")

NODE = {"num_cpus": 1, "object_store_memory": 10**8}


class Nodes:
    """A cluster with a head of one CPU; the tests add what they kill."""

    def __init__(self, folder: Path):
        from ray.cluster_utils import Cluster

        (folder / "ray").mkdir()
        head = {**NODE, "include_dashboard": False, "temp_dir": str(folder)}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.words = ("--launcher=ray", f"--ray-address={self.cluster.address}")

    @contextlib.contextmanager
    def one_more(self, **more):
        """Another node; gives the process number of its raylet, and a way to kill it."""
        node = self.cluster.add_node(**{**NODE, **more})
        kill = contextlib.ExitStack()
        kill.callback(self.cluster.remove_node, node, allow_graceful=False)
        with kill:
            yield node.all_processes["raylet"][0].process.pid, kill.close


@pytest.fixture(scope="module")
def nodes():
    with (
        tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))  # else Ray writes one to the home
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)
        found = Nodes(Path(folder))
        try:
            yield found
        finally:
            found.cluster.shutdown()


# Says by which node it was begun, and stays for ever on one that is to be killed.
TELLS = """
import os, pathlib, time
from lab import Experiment
SEEN = pathlib.Path({seen!r})
TOLD = ("KERAS_BACKEND", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES",
        "XLA_PYTHON_CLIENT_MEM_FRACTION", "TFDS_DATA_DIR")
def run(trial):
    node = os.environ.get("RAY_RAYLET_PID", "none")
    told = " ".join(os.environ.get(name, "-") for name in TOLD)
    SEEN.mkdir(exist_ok=True)
    (SEEN / f"{{trial.arm_name}}_{{trial.seed}}_{{node}}_{{time.monotonic_ns()}}").write_text(told)
    while (SEEN.parent / f"hold-{{node}}").exists():
        time.sleep(0.1)
    trial.record(score=trial.seed / 3, other=float(len(trial.arm_name)))
ARMS = {{"a": {{}}, "bb": {{}}}}
EXPERIMENT = Experiment(title="t", source="s", arms=ARMS, claims=[], run=run, model="none",
    scales={{"smoke": {{"seeds": 5}}}})
"""


def rows(folder: Path) -> dict[str, bytes]:
    """Every trial's rows, by trial."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("seed-*.csv")}


def wait_for(what, seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert what()


def popen(project, *words: str, **env: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "lab", "experiment", "--scale=smoke", *words],
        cwd=project.folder,
        env=os.environ | {"COLUMNS": "200"} | env,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_node_is_killed_in_the_middle_and_the_rows_are_those_of_local(project, nodes):
    seen = project.folder / "seen"
    project.experiment("tells", TELLS.format(seen=str(seen)))
    with nodes.one_more() as (raylet, kill):
        (project.folder / f"hold-{raylet}").touch()
        words = ("--name=tells", "--backend=jax", *nodes.words)
        process = popen(project, *words, TFDS_DATA_DIR="/of the/driver")
        try:
            # The other node's results are there before all is done: they stream.
            wait_for(lambda: len(list(project.results.glob("tells/*/*/seed-*.json"))) == 9)
            wait_for(lambda: list(seen.glob(f"*_{raylet}_*")))  # on a busy machine it starts late
            (held,) = seen.glob(f"*_{raylet}_*")
            assert process.poll() is None
            kill()
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, out
    assert "10/10 trials" in out and "FAILED" not in out and "raylet" not in out
    trial = held.name.split("_")[:2]
    begun = [path.name.split("_")[:2] for path in seen.iterdir()]
    assert sorted(begun) == sorted([*([a, str(s)] for a in ("a", "bb") for s in range(5)), trial])
    assert {path.read_text() for path in seen.iterdir()} == {"jax 1 - - /of the/driver"}
    local = project.run("tells", "--backend=jax", "--results=there")
    assert local.returncode == 0
    there = rows(project.folder / "there")
    assert len(there) == 10 and rows(project.results) == there


@pytest.mark.faults
def test_a_gpu_is_shared_by_as_many_trials_as_were_asked_for(project, nodes):
    seen = project.folder / "seen"
    project.experiment("tells", TELLS.format(seen=str(seen)))
    with nodes.one_more(num_gpus=2):  # Ray gives them out whether they exist or not
        done = project.run("tells", "--jobs=4", *nodes.words)
    assert done.returncode == 0, done.stdout + done.stderr
    told = {path.read_text() for path in seen.iterdir()}
    assert {line.split()[2] for line in told} == {"0", "1"}
    assert {line.split()[3] for line in told} == {"0.45"}


def silent():
    """An address where something listens and never says a word."""
    server = socket.create_server(("127.0.0.1", 0))
    return server, f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("silence", [True, False], ids=["silent", "closed"])
def test_no_cluster_at_the_address_is_said_within_ten_seconds(project, silence):
    server, address = silent()
    with server:
        if not silence:
            server.close()
        before = time.monotonic()
        done = project.run("toy", "--launcher=ray", f"--ray-address={address}", timeout=30)
    assert time.monotonic() - before < 10
    assert done.returncode == 1
    assert f"No Ray cluster at RAY_ADDRESS={address}" in done.stderr
    assert f"LAUNCHER=ray RAY_ADDRESS={address}" in done.stderr  # how to go on
    assert len(done.stderr.splitlines()) <= 3
    assert not list(project.results.rglob("seed-*"))


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def short():
    """A temporary folder whose path leaves room for those of Ray's sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def test_a_cluster_of_its_own_leaves_nothing_behind(project, short, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    own = {"HOME": str(home), "TMPDIR": str(short)}
    done = project.run("toy", "--launcher=ray", **own)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Asking Ray (a cluster of its own) for up to 2 trials at a time" in done.stdout
    assert contents(home) == [] and contents(short) == []
    on_ray = rows(project.results)
    assert project.run("toy", "--results=there").returncode == 0
    assert rows(project.folder / "there") == on_ray


@pytest.mark.faults
def test_what_a_trial_does_to_its_worker_costs_only_that_trial(project):
    tried = project.folder / "tried"
    project.experiment(
        "crimes", re.sub("TRIED = .*", f"TRIED = pathlib.Path({str(tried)!r})", CRIMES)
    )
    done = project.run("crimes", "--limit=12", "--launcher=ray")
    assert done.returncode == 1
    failed = dict(re.findall("FAILED: (.+?), seed 0: (.+)", done.stdout))
    assert failed.keys() == {"killed", "crashes", "hungry", "hangs"}, done.stdout
    assert "Ray lost the trial" in failed["killed"]
    assert "MemoryError" in failed["hungry"]
    assert "No result within 12 s" in failed["hangs"]
    begun = [path.name.split("-")[0] for path in tried.iterdir()]
    twice = {"killed", "killed_once", "crashes", "hungry"}
    assert {arm for arm in begun if begun.count(arm) == 2} == twice
    assert len(begun) == 7 + len(twice)


@pytest.mark.parametrize(
    ("how", "waits_for", "many"),
    [
        (signal.SIGINT, b"_perform", 2),
        pytest.param(signal.SIGINT, b"RuntimeEnvAgent", 1, marks=pytest.mark.faults),
        pytest.param(signal.SIGKILL, b"_perform", 2, marks=pytest.mark.faults),
    ],
    ids=["Ctrl-C", "Ctrl-C while Ray starts", "killed"],
)
def test_trials_end_with_the_driver(project, short, how, waits_for, many):
    project.experiment("sleeps", SLEEPS)
    process = popen(project, "--name=sleeps", "--launcher=ray", "--jobs=2", TMPDIR=str(short))
    try:

        def there() -> set[int]:
            names = {pid: Path(f"/proc/{pid}/cmdline") for pid in descendants(process.pid)}
            return {p for p, n in names.items() if n.exists() and waits_for in n.read_bytes()}

        wait_for(lambda: len(there()) == many)
        # Two of Ray's own take a minute to see that a killed driver is gone.
        below = there() if how == signal.SIGKILL else descendants(process.pid)
        time.sleep(1)
        process.send_signal(how)
        before = time.monotonic()
        out, _ = process.communicate(timeout=30)
        wait_for(lambda: not any(map(running, below)), 5)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if waits_for == b"_perform":
        assert time.monotonic() - before < 5
    if how == signal.SIGINT:
        assert contents(short) == []
        assert process.returncode == 130
        assert "make experiment NAME=sleeps SCALE=smoke LAUNCHER=ray\n" in out


@pytest.mark.parametrize("which", [0, 1], ids=["an answer", "the end"])
def test_a_trial_is_begun_again_for_every_node_that_dies_up_to_ten(monkeypatch, which):
    from lab.sweeps import ray_crew

    died = ray_crew.NodeDiedError("gone")
    monkeypatch.setattr(ray_crew.ray, "wait", lambda refs, timeout: (refs[which:][:1], []))
    monkeypatch.setattr(ray_crew, "_versions", lambda key: {})
    begun = []

    class Task:
        def __next__(self):
            return died

        def completed(self):
            return died

    def begin(*asked):
        begun.append(asked)
        return Task()

    def get(error):
        raise error

    monkeypatch.setattr(ray_crew.ray, "get", get)
    crew = ray_crew.RayCrew.__new__(ray_crew.RayCrew)
    crew.order, crew._running, crew._memory = types.SimpleNamespace(engine="fused"), {}, {}
    crew._remote = types.SimpleNamespace(remote=begin)
    crew.give(["key"], 1.0)
    for _ in range(10):
        assert crew.results() == []
    ((task, outcomes),) = crew.results()
    assert task == ["key"] and [o.lost for o in outcomes] == [True] and not crew.busy
    assert len(begun) == 11


def test_a_node_with_other_packages_trains_nothing(monkeypatch):
    from lab.sweeps import ray_crew

    key = store.Key("batch_size", Setting("smoke", "digits", "mlp", "tensorflow"), "small", 0)
    monkeypatch.setattr(worker, "begin", lambda *_: "")
    monkeypatch.setattr(worker, "perform", lambda keys, *_: [worker.Outcome("done") for _ in keys])
    arm = next(iter(ray_crew.discovery.load_experiment(key.experiment).arms))
    key = store.Key(key.experiment, key.setting, arm, 0)
    versions = ray_crew._versions(key)
    assert versions["keras"] == fingerprint._version("keras")
    started, outcomes = ray_crew._perform([key], "fused", versions, {})
    assert started is None and [o.status for o in outcomes] == ["done"]
    _, outcomes = ray_crew._perform([key], "fused", versions | {"keras": "1.0"}, {})
    assert [o.status for o in outcomes] == ["failed"]
    assert f"keras: 1.0 -> {versions['keras']}" in outcomes[0].error

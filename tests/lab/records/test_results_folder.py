"""A results folder that is full, read-only, a file, a copy, renamed, or from the future."""

import contextlib
import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.records import store
from lab.report import writing
from lab.sweeps import running
from tests.conftest import Project

SETTING = "toy/smoke-digits-none-tensorflow"

LARGE = """
from lab import Experiment
def run(trial):
    trial.record({f"metric_{i}": float(trial.seed) for i in range(METRICS)})
EXPERIMENT = Experiment(title="t", source="s", arms={"a": {}}, scales={"smoke": {"seeds": 12}},
    claims=[], run=run, model="none")
"""


def mounted(folder, options):
    """Mount a small disk in memory, or remount it; skips where that is not permitted."""
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")


@pytest.fixture
def disk(project):
    """The results on a disk of 2 MiB."""
    project.results.mkdir()
    mounted(project.results, "size=2m")
    yield project.results
    subprocess.run(["umount", "-l", str(project.results)], check=True)


@pytest.mark.parametrize(
    ("metrics", "least", "says"),
    [
        (8000, 3, ("/seed-", "Finished trials are kept; to go on: make experiment NAME=large")),
        (2500, 12, ("Trials are kept; for the report: make experiment NAME=large",)),
    ],
    ids=["in a trial", "in the report"],
)
def test_a_disk_that_fills_keeps_what_is_finished_and_one_can_go_on(
    project, disk, metrics, least, says
):
    project.experiment("large", LARGE.replace("METRICS", str(metrics)))
    done = project.run("large")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for words in ("No space left on device: 'results/", *says):
        assert words in done.stderr
    kept = {path: path.read_bytes() for path in disk.rglob("seed-*")}
    finished = [key for key in store.trials(disk) if manifest_of(disk, key).is_file()]
    assert least <= len(finished) and (len(finished) == 12) == (least == 12)
    for key in finished:
        assert len(store.read(disk, key)[1]) == metrics
    assert not list(disk.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
    done = project.run("large")
    assert done.returncode == 0 and f"{len(finished)} cached" in done.stdout
    assert {path: path.read_bytes() for path in kept} == kept


def manifest_of(folder, key):
    return folder / f"{key.path}.json"


def test_a_full_disk_is_said_before_training(project, disk):
    (disk / "ballast").write_bytes(bytes(3 * 2**19))
    done = project.run()
    assert done.returncode == 1 and "Starting" not in done.stdout
    assert "RESULTS='results' cannot be written (No space left on device)" in done.stderr
    assert "nothing was trained" in done.stderr
    assert not list(disk.rglob("seed-*"))


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("results", "RESULTS='results' cannot be written (it is a file)"),
        ("results/toy", "'results/toy' is no folder"),
        (f"results/{SETTING}", f"'results/{SETTING}' is no folder"),
        (f"results/{SETTING}/large", f"'results/{SETTING}/large' is no folder"),
    ],
)
def test_a_file_in_the_way_is_said_before_training(project, where, says):
    path = project.folder / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    done = project.run()
    assert done.returncode == 1 and "Starting" not in done.stdout
    assert says in done.stderr and "nothing was trained" in done.stderr
    assert done.stderr.count("\n") == 1
    assert path.read_text() == "a file"


def test_a_link_in_the_way_is_said_before_training(project, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    project.results.mkdir()
    (project.results / "toy").symlink_to(tmp_path / "elsewhere")
    done = project.run()
    assert done.returncode == 1 and "'results/toy' is a link, which is not followed" in done.stderr
    assert not list((tmp_path / "elsewhere").rglob("seed-*"))


def test_the_check_leaves_nothing_behind(tmp_path):
    assert running.unwritable(tmp_path) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose toy has run; not to be changed."""
    project = Project(tmp_path_factory.mktemp("finished") / "project").draws_nothing()
    assert project.run().returncode == 0
    return project


@pytest.fixture
def moved(finished, tmp_path):
    """A copy of it in a folder of another name."""
    return finished.copy(tmp_path / "renamed")


def test_a_renamed_or_copied_folder_works_as_before(finished, moved):
    before = finished.files()
    done = moved.run()
    assert done.returncode == 0 and "6 cached, 0 to run" in done.stdout
    assert moved.files() == before
    for name in before:
        if "seed-" not in name:
            (moved.results / name).unlink()
    assert moved.lab("report").returncode == 0
    assert moved.files() == before


def test_a_clock_that_was_set_back_changes_no_row_and_no_verdict(finished, moved):
    before = finished.files()
    (moved.folder / "sitecustomize.py").write_text(
        "import time\ngmtime = time.gmtime\ntime.time = lambda: 86400.0\n"
        "time.gmtime = lambda seconds=86400.0: gmtime(seconds)\n"
    )
    for path in moved.results.rglob("*"):
        os.utime(path, (4e9, 4e9))  # from the year 2096
    for ending in ("csv", "json"):
        (moved.results / SETTING / f"large/seed-1.{ending}").unlink()
    done = moved.run(PYTHONPATH=str(moved.folder), PYTHONDONTWRITEBYTECODE="1")
    assert done.returncode == 0 and "1 to run" in done.stdout
    after = moved.files()
    rows = [name for name in before if name.endswith(".csv")]
    assert len(rows) > 6 and [after[name] for name in rows] == [before[name] for name in rows]
    assert "5 cached" in done.stdout
    assert "6 cached" in moved.run(PYTHONPATH=str(moved.folder)).stdout


def powerless():
    """As root one may write anywhere: give that up, for the process that is started now."""
    if os.geteuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
            if ctypes.CDLL(None).prctl(24, capability):  # PR_CAPBSET_DROP
                os._exit(77)


@contextlib.contextmanager
def read_only(folder: Path):
    """Nothing in the folder can be written; skips where root cannot be kept from it."""
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    try:
        for path in reversed(paths):
            path.chmod(0o555 if path.is_dir() else 0o444)
        probe = [sys.executable, "-c", f"open({str(folder / 'probe')!r}, 'w')"]
        done = subprocess.run(probe, preexec_fn=powerless, capture_output=True, text=True)
        if done.returncode == 77 or "Permission denied" not in done.stderr:
            pytest.skip("root cannot be kept from writing here")
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def without_power(project, *words):
    return subprocess.run(
        [sys.executable, "-m", "lab", *words],
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=powerless,
    )


def test_read_only_results_are_shown_if_current_and_else_said(moved):
    before = moved.files()
    with read_only(moved.results):
        shown = without_power(moved, "report")
        assert shown.returncode == 0 and "1 supported" in shown.stdout, shown.stderr
        assert without_power(moved, "list").returncode == 0
        done = without_power(moved, "experiment", "--name=toy", "--scale=smoke")
        assert done.returncode == 1 and "nothing was trained" in done.stderr
        assert "RESULTS='results' cannot be written (Permission denied)" in done.stderr
    (moved.results / "REPORT.md").unlink()
    with read_only(moved.results):
        told = without_power(moved, "report")
        assert told.returncode == 1 and told.stderr.count("\n") == 1
        assert "results/" in told.stderr and "Permission denied" in told.stderr
    del before["REPORT.md"]
    assert moved.files() == before


def test_an_arm_that_cannot_be_written_is_said_before_training(moved):
    (moved.results / SETTING / "large/seed-1.json").unlink()
    with read_only(moved.results / SETTING / "large"):
        done = without_power(moved, "experiment", "--name=toy", "--scale=smoke")
    assert done.returncode == 1 and "Starting" not in done.stdout
    assert f"'results/{SETTING}/large' cannot be written" in done.stderr


def test_what_killed_writers_left_is_removed_by_the_next_run_and_nothing_else(moved):
    setting = moved.results / SETTING
    orphans = [
        setting / "small/.seed-0.csv.k3_x9abc.tmp",
        setting / "large/.seed-12.json.gz.abcdefgh.tmp",
        setting / ".kept.json.01234567.tmp",
        moved.results / ".report.html.zz_zz_zz.tmp",
        moved.results / "figures" / SETTING / ".seeds.svg.a1b2c3d4.tmp",
        moved.results / "tables/.ledger.csv.a1b2c3d4.tmp",
    ]
    others = [setting / "small/notes.tmp", setting / "small/.mine.txt", moved.results / "x.tmp"]
    (moved.results / "figures" / SETTING).mkdir(parents=True)
    for path in (*orphans, *others):
        path.write_text("half")
    (setting / "small/seed-0.json").unlink()  # so that there is something to run and to report
    (setting / "small/seed-0.csv").unlink()
    (moved.results / "REPORT.md").unlink()
    done = moved.run()
    assert done.returncode == 0, done.stderr
    assert [path for path in orphans if path.exists()] == []
    assert all(path.exists() for path in others)


def test_temporary_files_are_named_so_that_orphans_are_recognized(tmp_path, monkeypatch):
    left = []
    monkeypatch.setattr(writing.files.os, "replace", lambda old, new: left.append(Path(old)))
    for name in ("seed-0.csv", "seed-999.json.gz", "REPORT.md", "a b.svg"):
        writing.files.write_atomically(tmp_path / name, b"")
    assert len(left) == 4 and all(writing.files.TEMPORARY.fullmatch(path.name) for path in left)
    writing.files.remove_orphans(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []

"""The command line as people use it, on toy experiments in a copy of the project."""

import csv
import io
import re
import subprocess
import sys

import pytest

BAD_NAMES = [
    "",
    "toi",
    "../../etc/passwd",
    "x; touch pwned",
    "$(shell touch pwned)",
    "`touch pwned`",
    "toy\n",
    "тoy",
    "--help",
    "a" * 10_000,
    "experiments.toy",
    "TOY",
]


def verdicts(project):
    rows = csv.DictReader(io.StringIO((project.results / "verdicts.csv").read_text()))
    return {(row["claim"], row["metric"]): row for row in rows}


def test_a_run_ends_in_rows_verdicts_report_and_figures(project):
    done = project.run()
    assert done.returncode == 0, done.stderr
    found = verdicts(project)
    assert found["A1", "score"]["verdict"] == "supported"
    assert float(found["A1", "score"]["effect"]) == pytest.approx(1.0, abs=0.3)
    assert found["A2", "score"]["verdict"] == "refuted"
    assert found["A3", "score (gate)"]["verdict"] == "invalid"
    for text in ("A1", "supported", "interim, not a verdict", "toy.csv", "REPORT.md", "figures"):
        assert text in done.stdout
    files = project.files()
    assert "figures/toy/smoke-digits-none-tensorflow/intervals.svg" in files
    assert files["toy.csv"].count(b"\n") == 1 + 2 * 3 * 2
    assert b"A1" in files["REPORT.md"]


def test_a_second_run_does_nothing_and_changes_no_byte(ran):
    before = ran.files()
    done = ran.run()
    assert done.returncode == 0 and "Nothing to do" in done.stdout
    assert ran.files() == before


def test_deleted_trials_alone_are_run_again_to_the_same_bytes(ran):
    project = ran
    before = project.files()
    setting = project.results / "toy/smoke-digits-none-tensorflow"
    for trial in ("small/seed-0", "large/seed-0", "large/seed-2"):
        (setting / f"{trial}.csv").unlink()
        (setting / f"{trial}.json").unlink()
    done = project.run()
    assert "4 cached" in re.sub(r"\s+", " ", done.stdout).replace("3 cached", "4 cached")
    assert "3 to run" in done.stdout
    after = project.files()
    assert {k: v for k, v in after.items() if not k.endswith(".json")} == {
        k: v for k, v in before.items() if not k.endswith(".json")
    }


def test_derived_files_can_be_deleted_and_rebuilt_to_the_same_bytes(ran):
    project = ran
    before = project.files()
    for name in before:
        if name.count("/") != 3 or name.startswith("figures"):
            (project.results / name).unlink()
    assert project.lab("report").returncode == 0
    assert project.files() == before


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_one_sentence_and_exit_2(project, name):
    done = project.lab("experiment", f"--name={name}")
    assert done.returncode == 2
    assert done.stdout == "" and done.stderr.count("\n") <= 2 and len(done.stderr) < 400
    assert not project.results.exists() and not list(project.folder.glob("pwned*"))
    if name == "toi":
        assert "did you mean 'toy'?" in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        *(("--seeds", value, "whole number") for value in ("0", "-1", "many", "1e9", "1.5", "")),
        *(("--seeds", value, "whole number") for value in ("1000000000", "٣", "9" * 5000)),
        *(("--jobs", value, "whole number") for value in ("0", "-1", "many", "1000000000")),
        *(("--limit", value, "whole number") for value in ("0", "-1", "1.5", "long")),
        ("--scale", "quik", "did you mean 'quick'?"),
        ("--data", "digit", "Did you mean digits?"),
        ("--data", "../x", "unknown"),
        ("--model", "mpl", "unknown"),
        ("--backend", "tensorfow", "did you mean 'tensorflow'?"),
        ("--engine", "fuse", "did you mean 'fused'?"),
        ("--launcher", "locl", "did you mean 'local'?"),
        *(
            ("--ray-address", value, "host:port")
            for value in ("ray://a:1", "auto", "a:b", "$(x):1")
        ),
        ("--dry", "maybe", "0 or 1"),
        ("--keep-stale", "yes", "0 or 1"),
        ("--results", "", "RESULTS"),
    ],
)
def test_bad_options_are_one_sentence_and_exit_2(project, option, value, says):
    more = ["--launcher=ray"] if option == "--ray-address" else []
    done = project.lab("experiment", "--name", "toy", f"{option}={value}", *more)
    assert done.returncode == 2, done.stdout + done.stderr
    assert says in done.stderr and done.stderr.count("\n") <= 2
    assert not project.results.exists()


def test_ray_that_is_not_installed_is_said_with_how_to_get_it(project):
    # What `find_spec` finds nothing for: None stands for a module that must not be imported.
    code = "import sys; sys.modules['ray'] = None; from lab.cli import main; sys.exit(main())"
    words = ("experiment", "--name=toy", "--launcher=ray")
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=project.folder, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "requirements/ray.txt" in done.stderr and done.stderr.count("\n") == 1


def test_an_unknown_command_is_exit_2(project):
    assert project.lab("explode").returncode == 2
    assert project.lab().returncode == 2


def test_data_that_are_not_prepared_stop_it_before_any_trial(project, tmp_path):
    words = ("experiment", "--name", "toy", "--data", "emnist")
    # TFDS itself would retry for 204 s (trap 18).
    done = project.lab(*words, timeout=100, TFDS_DATA_DIR=str(tmp_path))
    assert done.returncode == 1
    assert "make data DATA=emnist" in done.stderr
    assert not project.results.exists()


RAISES = """
import numpy as np
from lab import Claim, Contrast, Experiment
def run(trial):
    if trial.arm_name == "bad" and trial.seed == 1:
        {crime}
    trial.record(score=trial.seed + trial.arm["shift"] * (1 + trial.seed / 10))
EXPERIMENT = Experiment(title="t", source="s",
    arms={{"good": {{"shift": 0}}, "bad": {{"shift": 1}}}}, 
    scales={{"smoke": {{"seeds": 3}}}}, run=run, model="none", claims=[
    Claim(id="A", says="x", contrast=Contrast("score", {{"bad": 1, "good": -1}}), margin=0.1,
          unit="u", literature="none")])
"""


@pytest.mark.parametrize(
    ("crime", "says", "verdict", "rows"),
    [
        ('raise RuntimeError("out of cheese")', "out of cheese", "incomplete", 5),
        ("import os; os.kill(os.getpid(), 9)", "signal 9", "incomplete", 5),
        ("import os; os._exit(3)", "exit status 3", "incomplete", 5),
        ('from lab.sweeps.trial import Diverged; raise Diverged("loss")', "DIVERGED", "invalid", 6),
    ],
    ids=["raises", "is killed", "exits", "diverges"],
)
def test_a_bad_trial_is_told_with_its_log_and_the_others_finish(
    project, crime, says, verdict, rows
):
    project.experiment("bad", RAISES.format(crime=crime))
    done = project.draws_nothing().run("bad")
    assert done.returncode == 1
    line = next(line for line in done.stdout.splitlines() if "bad, seed 1" in line)
    assert says in line
    log = project.folder / re.search(r"Log: (\S+)", line)[1]
    assert log.read_text()
    trials = [name for name in project.files() if re.search(r"seed-\d+\.csv", name)]
    assert len(trials) == rows
    assert verdicts(project)["A", "score"]["verdict"] == verdict
    again = project.run("bad")
    assert again.returncode == 1


@pytest.mark.parametrize(
    ("files", "name", "says"),
    [
        (
            {"broken.py": "EXPERIMENT = 1"},
            "broken",
            "experiments/broken.py: TypeError: it must def",
        ),
        ({"a/broken.py": "x = 1\nimport nowhere"}, "broken", "a/broken.py, line 2: ModuleNotFound"),
        (
            {"a/broken.py": "x = 1\n\nx = ("},
            "broken",
            "experiments/a/broken.py, line 3: SyntaxError",
        ),
        ({"broken.py": "from lab import Claim\nClaim()"}, "broken", "broken.py, line 2: TypeError"),
        (
            {"a/double.py": "", "b/double.py": ""},
            "double",
            "not one experiment but 2: experiments/a/double.py, experiments/b/double.py.",
        ),
        ({"a/x.py": "", "b/a.py": ""}, "a", "experiments/b/a.py has the name of a folder"),
    ],
)
def test_a_file_that_is_no_experiment_is_named(project, files, name, says):
    for path, source in files.items():
        (project.folder / "experiments" / path).parent.mkdir(exist_ok=True)
        (project.folder / "experiments" / path).write_text(source)
    listed = project.lab("list")
    assert listed.returncode == 2 and says in listed.stderr and "A toy" in listed.stdout
    assert "Traceback" not in listed.stderr
    done = project.run(name)
    assert done.returncode == 2 and says in done.stderr and not project.results.exists()


def test_beside_a_file_that_is_no_experiment_the_others_run(project):
    project.experiment("broken", "x = (")
    assert project.draws_nothing().run().returncode == 0


def test_an_experiment_is_found_in_whatever_folder_it_lies(project):
    deep = project.folder / "experiments/one/two"
    deep.mkdir(parents=True)
    (project.folder / "experiments/toy.py").rename(deep / "moved.py")
    listed = project.lab("list").stdout
    assert "One, two" in listed and "run: make experiment NAME=moved" in listed
    assert project.draws_nothing().run("moved").returncode == 0
    assert (project.results / "moved.csv").is_file()


def test_results_of_an_experiment_that_no_longer_imports_are_not_judged(ran):
    project = ran.draws_nothing()
    project.experiment("toy", "import nowhere")
    done = project.lab("report")
    assert done.returncode == 0
    told = (project.results / "REPORT.md").read_text()
    assert "experiments/toy.py, line 1: ModuleNotFoundError" in told and "not judged" in told
    assert "experiments/toy.py" in (project.results / "report.html").read_text()


@pytest.mark.parametrize("words", ["list", "doctor", "experiment --name toy --scale smoke --dry 1"])
def test_a_reader_who_has_seen_enough_is_no_error(project, words):
    for number in range(30):  # more than a pipe takes at once
        long = (project.folder / "experiments/toy.py").read_text().replace("A toy", "T" * 5000)
        project.experiment(f"toy{number}", long)
    command = f"{sys.executable} -m lab {words} | head -c 1 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=project.folder, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_list_shows_claims_and_their_last_verdicts(project, ran):
    assert "not run yet" in project.lab("list").stdout
    shown = ran.lab("list").stdout
    assert "toy" in shown and "A1" in shown and "supported (smoke on digits" in shown


def test_dry_says_what_is_stale_and_why_and_runs_nothing(ran):
    project = ran.draws_nothing()
    before = project.files()
    source = (project.folder / "experiments/toy.py").read_text()
    project.experiment("toy", source.replace('{"shift": 1.0}', '{"shift": 2.0}'))
    done = project.run("toy", "--dry", "1")
    assert done.returncode == 0
    assert "3 stale: arm shift: 1.0 -> 2.0" in done.stdout and "3 to run" in done.stdout
    project.experiment("toy", source.replace("0.1)", "0.2)"))
    assert "6 stale: experiments/toy.py changed" in project.run("toy", "--dry", "1").stdout
    project.experiment("toy", source.replace("margin=0.5", "margin=0.4"))
    assert "6 cached" in project.run("toy", "--dry", "1").stdout
    assert project.files() == before


def test_a_touched_trial_is_named_and_run_again(ran):
    project = ran.draws_nothing()
    path = project.results / "toy/smoke-digits-none-tensorflow/small/seed-1.csv"
    good = path.read_bytes()
    path.write_bytes(good.replace(b"score,", b"score,9"))
    report = project.lab("report")
    assert "incomplete" in report.stdout
    assert "seed-1.csv" in (project.results / "REPORT.md").read_text()
    done = project.run()
    assert "1 broken" in done.stdout and "checksum" in done.stdout
    assert path.read_bytes() == good


def test_a_report_without_results_says_how_to_get_some(project):
    done = project.lab("report")
    assert done.returncode == 0 and "make experiment NAME=" in done.stdout
    assert "no results yet" in (project.results / "REPORT.md").read_text()


def test_a_report_of_an_experiment_it_has_never_heard_of(ran):
    project = ran
    (project.folder / "experiments/toy.py").unlink()
    assert project.lab("report").returncode == 0
    text = (project.results / "REPORT.md").read_text()
    assert "no experiment of that name" in text and "| small |" in text

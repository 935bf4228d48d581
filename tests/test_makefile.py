"""User text reaches the command line as it was typed; make and the shell never read it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = ["NAME", "SCALE", "DATA", "MODEL", "SEEDS", "JOBS", "LIMIT", "ENGINE", "RESULTS", "DRY"]
BLANKS = " \t\n\v\f\r"
EVIL = [
    "../../etc/passwd",
    "x; touch pwned",
    "$(shell touch pwned)",
    "$$(touch pwned)",
    "`touch pwned`",
    '"; touch pwned; "',
    "'; touch pwned; '",
    "a\ntouch pwned",
    "--help",
    "",
    "тoy",
]


@pytest.fixture
def folder(tmp_path):
    """The Makefile with a Python that only writes down its arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nfor a in "$@"; do printf "<%s>" "$a"; done >> arguments\n')
    python.chmod(0o755)
    for stamp in (".run-ready", ".jax-ready", ".ray-ready", ".dev-ready"):
        (tmp_path / ".venv" / stamp).touch()
    return tmp_path


def make(folder, *words):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "NAME")}
    return subprocess.run(["make", *words], cwd=folder, env=env, capture_output=True, text=True)


def arguments(folder):
    return (folder / "arguments").read_text()


@pytest.mark.parametrize("value", EVIL)
@pytest.mark.parametrize("option", ["NAME", "DATA", "SEEDS", "RESULTS", "RAY_ADDRESS"])
def test_text_is_passed_on_and_never_executed(folder, option, value):
    make(folder, "experiment", f"{option}={value}")
    assert f"<--{option.lower().replace('_', '-')}={value}>" in arguments(folder)
    assert not (folder / "pwned").exists()


typed = st.characters(exclude_characters="\0") | st.sampled_from("$`'\"\\#;|&()%=:\n\t\udcff")


def test_any_text_in_any_option_is_passed_on_to_the_byte(folder):
    """But for blanks at its start, which make does not count to a value."""

    @settings(deadline=None, database=None, derandomize=True, max_examples=30)
    @given(st.dictionaries(st.sampled_from(OPTIONS), st.text(typed, max_size=12), min_size=3))
    def check(given):
        (folder / "arguments").unlink(missing_ok=True)
        done = make(folder, "experiment", *(f"{name}={value}" for name, value in given.items()))
        assert done.returncode == 0, done.stderr
        passed = (folder / "arguments").read_bytes()
        for name, value in given.items():
            assert os.fsencode(f"<--{name.lower()}={value.lstrip(BLANKS)}>") in passed
        assert {path.name for path in folder.iterdir()} == before

    (folder / "arguments").touch()
    before = {path.name for path in folder.iterdir()}
    check()


def test_options_that_were_not_given_are_not_passed(folder):
    make(folder, "experiment", "NAME=toy", "JOBS=2")
    assert arguments(folder) == "<-m><lab><experiment><--name=toy><--jobs=2>"


def test_an_option_of_two_words_has_a_hyphen(folder):
    make(folder, "experiment", "NAME=toy", "KEEP_STALE=1")
    assert arguments(folder) == "<-m><lab><experiment><--name=toy><--keep-stale=1>"


@pytest.mark.parametrize("target", ["list", "report", "doctor"])
def test_other_targets_call_their_command(folder, target):
    make(folder, target, "RESULTS=else where")
    assert arguments(folder) == f"<-m><lab><{target}><--results=else where>"


@pytest.mark.parametrize(
    ("extra", "usual", "asks"),
    [("jax", "BACKEND=tensorflow", "BACKEND=jax"), ("ray", "LAUNCHER=local", "LAUNCHER=ray")],
)
def test_what_asks_for_an_extra_brings_it(folder, extra, usual, asks):
    (folder / f".venv/.{extra}-ready").unlink()
    make(folder, "experiment", "NAME=toy", usual)
    assert f"{extra}.txt" not in arguments(folder)
    make(folder, "experiment", "NAME=toy", asks)
    assert f"<requirements/{extra}.txt>" in arguments(folder)


def test_help_is_the_default_and_names_every_target(folder):
    shown = make(folder).stdout
    targets = ("setup", "list", "experiment", "report", "data", "test", "lint", "format")
    for target in (*targets, "doctor", "clean", "help"):
        assert f"make {target} " in shown
    assert not (folder / "arguments").exists()


def test_requirements_name_no_index():
    for path in (ROOT / "requirements").iterdir():
        text = path.read_text()
        assert "://" not in text and "index" not in text
        if path.suffix == ".txt":
            assert all("==" in line for line in text.splitlines() if line)


def test_a_reader_who_has_seen_enough_ends_help_quietly(folder):
    command = "make help | head -c 1 > /dev/null; exit ${PIPESTATUS[0]}"
    for _ in range(5):  # who is first is a race
        done = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")

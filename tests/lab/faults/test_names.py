"""Whatever is typed as an option: an answer of one sentence, nothing executed, nothing written."""

import contextlib
import io
import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.claims import discovery
from lab.claims.vocabulary import Setting
from lab.cli import BACKENDS, LAUNCHERS, main
from lab.engines.training import ENGINES
from lab.sweeps import running

quietly = settings(deadline=None, database=None, derandomize=True, max_examples=60)

VALID = {
    "name": discovery.experiment_names(),
    "scale": ["smoke", "quick"],
    "data": ["digits", "mnist1d"],
    "model": ["mlp", "convnet"],
    "seeds": ["1", "10"],
    "jobs": ["1", "2"],
    "limit": ["60"],
    "backend": list(BACKENDS),
    "engine": list(ENGINES),
    "launcher": list(LAUNCHERS),
    "dry": ["1"],
}
NUMBERS = ("seeds", "jobs", "limit")
LOOK_ALIKE = str.maketrans("aeopcixs01", "аеорсіхѕ０１")  # Cyrillic and full-width
MUTATIONS = (
    lambda text: text.translate(LOOK_ALIKE),
    lambda text: text + "\n",
    lambda text: " " + text,
    lambda text: text.upper() + "!",
    lambda text: text[:-1] + "\u202e" + text[-1:],
    lambda text: f"../{text}",
    lambda text: f"{text}/../{text}",
    lambda text: f"{text}; touch pwned",
    lambda text: f"$(touch pwned){text}",
    lambda text: f"`touch pwned`{text}",
    lambda text: f"$(shell touch pwned){text}",
    lambda text: f"[red]{text}[/red]",
    lambda text: f"%s{{0}}{text}",
    lambda text: text * 300,
    lambda text: f"--{text}",
    lambda _: "--",
    lambda text: text + "\udcff",  # a byte that is no UTF-8, as it arrives from a terminal
)
typed = st.characters(exclude_characters="\0") | st.sampled_from("\udc80\udcff\n\t\r\x1b$`'\"\\%")
anything = st.text(typed, max_size=30)


def like(values):
    """What looks like a valid value and is none, or anything at all."""
    near = st.builds(lambda value, mutate: mutate(value), st.sampled_from(values), mutation)
    return near | anything


mutation = st.sampled_from(MUTATIONS)


def call(*words):
    """Exit status, standard output and standard error of a command, as a terminal has them."""
    out, err = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", errors=errors)
        for errors in ("strict", "backslashreplace")
    )
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(words))
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(stream.buffer.getvalue().decode())
    return status, *said


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """An empty folder to be in."""
    before, here = os.getcwd(), tmp_path_factory.mktemp("names")
    os.chdir(here)
    yield here
    os.chdir(before)


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("option", VALID)
def test_what_is_no_value_is_refused_in_one_sentence(option, folder):
    words = {"name": "batch_size", "scale": "smoke", "dry": "1"}

    @quietly
    @given(like(VALID[option]).filter(lambda value: option != "dry" or value not in ("", "0")))
    def check(value):
        asked = words | {option: value}
        status, out, err = call("experiment", *(f"--{k}={v}" for k, v in asked.items()))
        if status == 0:
            number = option in NUMBERS and value.isascii() and value.isdigit()
            assert err == "" and (number or value in VALID[option])
        else:
            assert (status, out) == (2, "")
            assert err.count("\n") <= 2 and len(err) < 500
        assert written(folder) == []

    check()


@quietly
@given(like(["results"]))
def test_a_results_folder_is_text_and_nothing_else(folder, value):
    words = ("experiment", "--name=batch_size", "--scale=smoke", "--dry=1")
    status, _, _ = call(*words, f"--results={value}")
    possible = value.strip() and len(os.fsencode(value)) <= 255
    assert status == (0 if possible else 2)
    assert call("list", f"--results={value}")[0] == status
    assert written(folder) == []


@quietly
@given(st.lists(like(["experiment", "--name", "--scale=smoke", "batch_size", "--dry"]), max_size=4))
def test_any_words_at_all_are_answered(folder, words):
    """Most are refused; `list` and `doctor`, say, are commands."""
    try:
        status, _, err = call(*words)
    except SystemExit as left:  # --help
        assert left.code == 0
    else:
        assert status in (0, 2) and len(err) < 500
    assert written(folder) == []


def test_the_command_to_go_on_is_taken_back_by_a_shell_as_it_was():
    experiment = discovery.load_experiment("batch_size")
    setting = Setting("smoke", "digits", "mlp", "tensorflow")

    @quietly
    @given(like(["results"]))
    def check(value):
        results = Path(value)
        order = running.Order("batch_size", experiment, setting, 7, 2, "fused", results)
        words = shlex.split(order.command)
        assert words[:3] == ["make", "experiment", "NAME=batch_size"] and "SEEDS=7" in words
        assert (f"RESULTS={results}" in words) == (str(results) != "results")

    check()


HOSTILE = "-rf $(touch pwned); `touch pwned`\n[red]é漢\u202e\udcff"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(HOSTILE, id="all at once"),
        *(pytest.param(v, marks=pytest.mark.faults) for v in ("two words", "-rf", "--", "~", "%s")),
    ],
)
def test_results_lie_in_the_folder_that_was_named_and_nowhere_else(project, value):
    """The streams are those of a terminal that cannot show half of it."""
    before = {path.name for path in project.folder.iterdir()}
    done = project.run("toy", f"--results={value}", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in project.folder.iterdir()} - before == {value}
    assert (project.folder / value / "verdicts.csv").is_file()

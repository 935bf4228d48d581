"""The tour runs, says again what is committed, and tells nothing of who ran it where."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOUR = ROOT / "docs" / "tour.ipynb"
NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def cells(notebook, kind="code") -> list:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def text(value) -> str:
    """A notebook's text, which is one string or a list of lines."""
    return "".join(value)


def assert_without_traces(notebook):
    """Nothing tells who ran it, when, and where; and nothing was complained of."""
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])
    assert not [cell["id"] for cell in cells(notebook) if "stderr" in dict(said(cell))]
    pictures = re.compile(r'"image/png": "[^"]*"')
    words = pictures.sub("", json.dumps(notebook))
    assert str(ROOT) not in words
    assert not re.search(r"/(home|Users|root|tmp|usr|opt)/|[A-Z]:\\|site-packages", words)


def said(cell) -> list[tuple[str, str]]:
    """What a cell prints and shows: tables as their text, of figures only that they are there."""
    found = []
    for output in cell["outputs"]:
        assert output["output_type"] in ("stream", "display_data", "execute_result"), output
        shown = output.get("data", {"stream": output.get("text", "")})
        for kind, value in sorted(shown.items()):
            if kind in ("stream", "text/plain"):
                found.append((output.get("name", kind), text(value).strip()))
            elif kind == "image/png":
                found.append((kind, ""))
    return found


def roughly(outputs) -> list[tuple[str, str]]:
    """The same without the digits and the spaces that they take."""
    return [(kind, " ".join(NUMBER.sub("#", words).split())) for kind, words in outputs]


@pytest.fixture
def committed():
    return json.loads(TOUR.read_text("utf-8"))


def test_the_tour_says_again_what_is_committed(committed, tmp_path):
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    places = {name: str(tmp_path / name.lower()) for name in names}  # not the user's own
    env = os.environ | places
    env.pop("PYTEST_CURRENT_TEST")  # a kernel that sees it captures less
    copy = shutil.copy(TOUR, tmp_path)
    command = [sys.executable, "-m", "docs.tour", copy]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    again = json.loads(Path(copy).read_text("utf-8"))
    trained = 0
    for before, after in zip(cells(committed), cells(again), strict=True):
        alike = roughly if "trained" in before["metadata"].get("tags", ()) else list
        trained += alike is roughly
        assert alike(said(after)) == alike(said(before)), before["id"]
    assert trained == 2
    for part in (committed, again):
        assert_without_traces(part)


def test_its_first_cell_runs_in_the_root_too(committed):
    first = cells(committed)[0]
    done = subprocess.run(
        [sys.executable, "-c", text(first["source"])], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == said(first)[0][1], done.stderr


def test_it_is_committed_with_outputs(committed):
    assert TOUR.stat().st_size < 400_000
    assert [cell["execution_count"] for cell in cells(committed)] == [1, 2, 3, 4, 5, 6, 7]
    assert all(said(cell) for cell in cells(committed))


def test_its_links_lead_somewhere(committed):
    links = [
        link
        for cell in cells(committed, "markdown")
        for link in re.findall(r"\]\(([^)#]+)", text(cell["source"]))
    ]
    assert len(links) >= 4
    for link in links:
        assert (TOUR.parent / link).is_file(), link
    assert "(docs/tour.ipynb)" in (ROOT / "README.md").read_text("utf-8")

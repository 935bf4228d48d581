"""Who may import whom, and what must never be imported early."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "callbacks": {"callbacks", "keras", "numpy", "scipy", "tensorflow", "jax"},
    "models": {"models", "keras", "numpy"},
}
OURS = {"experiments", "models", "callbacks", "lab"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("package", ["callbacks", "models"])
def test_a_package_imports_only_what_it_may(package):
    files = list((ROOT / package).glob("*.py"))
    assert files
    for path in files:
        foreign = imports(path) - ALLOWED[package] - set(sys.stdlib_module_names)
        assert not foreign, f"{path.name} imports {foreign}"


def test_only_the_private_backend_module_of_callbacks_knows_backends():
    for path in (ROOT / "callbacks").glob("*.py"):
        if path.name != "_backend.py":
            assert not imports(path) & {"tensorflow", "jax"}, path.name


def test_lab_imports_no_experiment_model_or_callback_by_name():
    for path in (ROOT / "lab").glob("*.py"):
        assert not imports(path) & (OURS - {"lab"}), path.name


def test_folders_are_flat():
    for package in OURS:
        folders = [p for p in (ROOT / package).iterdir() if p.is_dir() and p.name != "__pycache__"]
        assert folders == []


@pytest.mark.parametrize(
    "words",
    [
        ["list"],
        ["experiment", "--name", "batch_size", "--dry", "1"],
        ["experiment", "--name", "nothing_like_it"],
    ],
)
def test_listing_and_planning_import_no_heavy_library(words, tmp_path):
    code = (
        "import sys\n"
        "from lab.cli import main\n"
        f"main({[*words, '--results', str(tmp_path)]!r})\n"
        "heavy = {'tensorflow', 'keras', 'jax', 'pandas', 'scipy', 'matplotlib', 'sklearn'}\n"
        "print('HEAVY', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr

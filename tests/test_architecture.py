"""Who may import whom, and what must never be imported early."""

import ast
import subprocess
import sys
from collections import Counter
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


# Each imports only what stands before it; the face and the commands come last.
ORDER = [
    "claims",
    "machine",
    "data",
    "engines",
    "records",
    "figures",
    "report",
    "sweeps",
    "bench",
    "top",
]
TOP = {"__init__", "__main__", "cli", "listing", "doctor"}


def modules(package: str) -> dict[str, Path]:
    """Dotted names of a package's modules, with their files."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


def imported(name: str, path: Path, known) -> set[str]:
    """The modules among `known` that a file imports, early or late."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level and node.module, f"{name} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {n if n in known else node.module for n in names}
    return found & set(known)


def room(module: str) -> str:
    """The package of lab that a module is in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ORDER else "top"


@pytest.mark.parametrize("package", ["callbacks", "models"])
def test_a_package_imports_only_what_it_may(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        foreign = imports(path) - ALLOWED[package] - set(sys.stdlib_module_names)
        assert not foreign, f"{path.name} imports {foreign}"


def test_only_the_private_backend_module_of_callbacks_knows_backends():
    for path in (ROOT / "callbacks").rglob("*.py"):
        if path.name != "_backend.py":
            assert not imports(path) & {"tensorflow", "jax"}, path.name


def test_lab_imports_no_experiment_model_or_callback_by_name():
    for path in (ROOT / "lab").rglob("*.py"):
        assert not imports(path) & (OURS - {"lab"}), path.name


def test_each_package_of_lab_imports_only_those_before_it():
    known = modules("lab")
    crossing = 0
    for name, path in known.items():
        for other in imported(name, path, known):
            assert ORDER.index(room(other)) <= ORDER.index(room(name)), f"{name} imports {other}"
            crossing += room(other) != room(name)
    assert crossing > 100


def test_no_modules_import_each_other_in_a_circle():
    known = modules("lab") | modules("callbacks") | modules("models")
    needs = {name: imported(name, path, known) - {name} for name, path in known.items()}
    while free := [name for name, others in needs.items() if not others & needs.keys()]:
        for name in free:
            del needs[name]
    assert not needs, f"in a circle or above one: {sorted(needs)}"


def test_packages_of_lab_are_one_level_deep_and_say_what_lives_there():
    folders = {p.name for p in (ROOT / "lab").iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == set(ORDER) - {"top"}
    assert {path.stem for path in (ROOT / "lab").glob("*.py")} == TOP
    for folder in folders:
        assert not [p for p in (ROOT / "lab" / folder).iterdir() if p.is_dir() and p.suffix]
        (said,) = ast.parse((ROOT / "lab" / folder / "__init__.py").read_text("utf-8")).body
        assert isinstance(said.value, ast.Constant) and len(said.value.value) > 80, folder


def test_no_prefix_is_a_folder_that_nobody_made():
    for folder in (ROOT / "lab").iterdir():
        names = [path.stem for path in folder.glob("*.py")] if folder.is_dir() else []
        assert not [name for name in names if name.split("_")[0] in (folder.name, folder.name[:-1])]
        prefixes = Counter(name.split("_")[0] for name in names if not name.startswith("_"))
        assert all(count < 3 for count in prefixes.values()), (folder.name, prefixes)


def test_tests_mirror_what_they_test():
    for package in ("lab", "experiments"):
        rooms = {path.name for path in (ROOT / package).iterdir() if path.is_dir()}
        tested = {path.name for path in (ROOT / "tests" / package).iterdir() if path.is_dir()}
        across = {"faults"} if package == "lab" else set()  # what a whole run survives
        assert tested - {"__pycache__"} == rooms - {"__pycache__"} | across


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

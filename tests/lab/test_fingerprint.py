"""What makes a trial stale, and what does not."""

import pytest

from lab import discovery, fingerprint
from lab.vocabulary import Setting

SETTING = Setting("quick", "digits", "net", "tensorflow")
SOURCES = {
    "experiments/toy.py": '''
"""Docstring."""
from callbacks import probe
from lab import Claim
RATE = 0.1  # a constant that run reads
ARMS = {"a": {"rate": 1}}
SOURCE = "a book"
CLAIMS = ["first", SOURCE]
FACTOR = 2
TWICE = FACTOR * RATE

def run(trial):
    """What it does."""
    import callbacks.extra
    return RATE, probe, TWICE
''',
    "callbacks/__init__.py": """
from callbacks.probing import probe
from callbacks.unused import x
""",
    "callbacks/probing.py": "from callbacks._deep import deep\nprobe = deep\n",
    "callbacks/_deep.py": "deep = 1\n",
    "callbacks/unused.py": "x = 1\n",
    "callbacks/extra.py": "y = 1\n",
    "models/net.py": "def net(shape, classes): return 1\n",
    "lab/trial.py": "import lab.fit\n",
    "lab/fit.py": "import numpy\n",
    "lab/report.py": "z = 1\n",
}


@pytest.fixture
def sources(tmp_path, monkeypatch):
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(discovery, "ROOT", tmp_path)

    def of(**edits):
        for name, (old, new) in edits.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            assert old in path.read_text()
            path.write_text(path.read_text().replace(old, new))
        fingerprint._sources.cache_clear()
        roots = ("experiments.toy", "models.net", "lab.trial")
        return fingerprint._sources(roots)

    yield of
    fingerprint._sources.cache_clear()


def test_sources_follow_imports_through_packages_and_functions(sources):
    assert list(sources()) == [
        "callbacks/_deep.py",
        "callbacks/extra.py",
        "callbacks/probing.py",
        "experiments/toy.py",
        "lab/fit.py",
        "lab/trial.py",
        "models/net.py",
    ]


FIGURES = "from lab.vocabulary_figures import Heatmap\n"


@pytest.mark.parametrize(
    "edit",
    [
        {"experiments__toy": ("RATE = 0.1", "RATE = 0.2")},
        {"experiments__toy": ("FACTOR = 2", "FACTOR = 3")},
        {"experiments__toy": ("return RATE", "return 2 * RATE")},
        {"callbacks___deep": ("deep = 1", "deep = 2")},
        {"models__net": ("return 1", "return 2")},
        {"lab__fit": ("import numpy", "import numpy\nx = 1")},
    ],
)
def test_a_change_of_what_runs_is_seen(sources, edit):
    before = sources()
    assert sources(**edit) != before


@pytest.mark.parametrize(
    "edit",
    [
        {"experiments__toy": ('"""What it does."""', '"""Another sentence."""')},
        {"experiments__toy": ("# a constant that run reads", "# reworded")},
        {"experiments__toy": ('["first", SOURCE]', '["first", "second"]')},
        {"experiments__toy": ("a book", "another book")},
        {"experiments__toy": ("RATE = 0.1  #", "RATE  =  0.1 #")},
        {"experiments__toy": ("RATE = 0.1", f"{FIGURES}RATE = 0.1")},
        {"callbacks__unused": ("x = 1", "x = 2")},
        {"lab__report": ("z = 1", "z = 2")},
    ],
)
def test_a_change_of_words_claims_or_strangers_is_not(sources, edit):
    before = sources()
    assert sources(**edit) == before


def test_a_declaration_that_run_reads_counts(sources):
    before = sources(experiments__toy=("return RATE", "return ARMS, RATE"))
    assert sources(experiments__toy=('{"rate": 1}', '{"rate": 2}')) != before


def test_what_changed_is_named():
    before = {
        "sources": {"models/mlp.py": "1"},
        "arm": {"rate": 0.1},
        "scale": {},
        "versions": {"keras": "3.12"},
        "threads": 1,
    }
    now = {
        "sources": {"models/mlp.py": "2"},
        "arm": {"rate": 0.2},
        "scale": {"epochs": 3},
        "versions": {"keras": "3.15"},
        "threads": 2,
    }
    said = fingerprint.what_changed(before, now)
    for part in (
        "models/mlp.py changed",
        "arm rate: 0.1 -> 0.2",
        "scale epochs: None -> 3",
        "versions keras: 3.12 -> 3.15",
        "threads: 1 -> 2",
    ):
        assert part in said
    assert fingerprint.what_changed(now, now) == ""


def test_every_real_experiment_can_be_described():
    for name in discovery.experiment_names():
        experiment = discovery.load_experiment(name)
        setting = Setting("quick", experiment.data, experiment.model, "tensorflow")
        described = fingerprint.describe(name, experiment, next(iter(experiment.arms)), setting)
        assert f"experiments/{name}.py" in described["sources"]
        assert {"lab/fit.py", "lab/fused.py", "lab/data.py"} <= described["sources"].keys()
        assert "lab/report.py" not in described["sources"]
        assert described["versions"]["keras"] != "absent"
        assert len(fingerprint.digest(described)) == 64


def test_another_version_of_a_prepared_data_set_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    experiment = discovery.load_experiment("batch_size")
    setting = Setting("quick", "pictures", "mlp", "tensorflow")

    def described():
        return fingerprint.describe("batch_size", experiment, next(iter(experiment.arms)), setting)

    def prepare(version, told):
        folder = tmp_path / "pictures" / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dataset_info.json").write_text(told)

    prepare("1.0.0", '{"train": 60000}')
    before = described()
    assert described() == before
    prepare("1.0.0", '{"train": 59999}')
    edited = described()
    prepare("3.0.1", '{"train": 60000}')
    for now in (edited, described()):
        said = fingerprint.what_changed(before, now)
        assert said.startswith("versions data pictures: 1.0.0 ") and "," not in said
    assert "-> 3.0.1 " in said
    digits = fingerprint.describe(
        *("batch_size", experiment, next(iter(experiment.arms))),
        Setting("quick", "digits", "mlp", "tensorflow"),
    )
    assert not [name for name in digits["versions"] if name.startswith("data")]

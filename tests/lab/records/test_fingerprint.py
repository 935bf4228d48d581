"""What makes a trial stale, and what does not."""

import os
import subprocess
import sys

import pytest

from lab.claims import discovery
from lab.claims.vocabulary import Setting
from lab.records import fingerprint

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
    return RATE, probe, TWICE, callbacks.extra.y
''',
    "callbacks/__init__.py": """
from callbacks.probing import probe
from callbacks.unused import x
""",
    "callbacks/probing.py": "from callbacks._deep import deep\nprobe = deep\n",
    "callbacks/_deep.py": "deep = 1\n",
    "callbacks/unused.py": "x = 1\n",
    "callbacks/extra.py": "y = 1\nz = 1.0\n",
    "models/net.py": "def net(shape, classes): return 1\n",
    "lab/trial.py": """
from lab.fit import train
from lab import others

def execute(x):
    return train(1), others.train(2)
""",
    "lab/fit.py": """
import numpy as np
unread = 1

class Fit:
    shape: tuple
    def other(self): return 1

def train(fit: Fit):
    return np.mean(Fit())
""",
    "lab/others.py": "def train(x): return x\n",
    "lab/report.py": "z = 1\n",
}


ROOTS = (("experiments.toy", "run"), ("models.net", "net"), ("lab.trial", "*"))


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
        fingerprint._reached.cache_clear()
        return fingerprint._reached(ROOTS)

    yield of
    fingerprint._reached.cache_clear()


def test_sources_follow_names_through_packages_and_functions(sources):
    _, files = sources()
    assert list(files) == [
        "callbacks/_deep.py",
        "callbacks/extra.py",
        "callbacks/probing.py",
        "experiments/toy.py",
        "lab/fit.py",
        "lab/others.py",
        "lab/trial.py",
        "models/net.py",
    ]


@pytest.mark.parametrize(
    "edit",
    [
        {"experiments__toy": ("RATE = 0.1", "RATE = 0.2")},
        {"experiments__toy": ("FACTOR = 2", "FACTOR = 3")},
        {"experiments__toy": ("return RATE", "return 2 * RATE")},
        {"experiments__toy": ("callbacks.extra.y", "callbacks.extra.z")},
        {"callbacks___deep": ("deep = 1", "deep = 2")},
        {"callbacks__extra": ("y = 1", "y = 2")},
        {"callbacks__extra": ("y = 1", "y = 1\nprint(y)")},  # it acts when it is imported
        {"callbacks__extra": ("y = 1", "y = 1\nfor y in range(3): pass")},
        {"lab__others": ("def train(x): return x", "def train(x): return x\nprint(1)")},
        {"callbacks__unused": ("x = 1", "x = 1\nprint(x)")},  # a package imports it
        {"callbacks__probing": ("probe = deep", "probe = deep\nprobe += 1")},
        {"models__net": ("return 1", "return 2")},
        {"lab__fit": ("numpy as np", "scipy as np")},
        {"lab__fit": ("shape: tuple", "shape: tuple = ()")},
        {"lab__fit": ("def other(self): return 1", "def other(self): return 2")},
        # The same code throughout, but another of two definitions of one name.
        {"lab__trial": ("from lab.fit import train", "from lab.others import train")},
        {"lab__trial": ("train(1), others.train(2)", "others.train(1), train(2)")},
    ],
)
def test_a_change_of_what_runs_is_seen(sources, edit):
    before, _ = sources()
    assert sources(**edit)[0] != before


@pytest.mark.parametrize(
    "edit",
    [
        {"experiments__toy": ('"""What it does."""', '"""Another sentence."""')},
        {"experiments__toy": ("# a constant that run reads", "# reworded")},
        {"experiments__toy": ('["first", SOURCE]', '["first", "second"]')},
        {"experiments__toy": ("a book", "another book")},
        {"experiments__toy": ("RATE = 0.1  #", "RATE  =  0.1 #")},
        {"experiments__toy": ("from lab import Claim", "from lab import Claim, Other")},
        {"experiments__toy": ("def run(trial)", "def run(trial: Claim) -> None")},
        {"callbacks__unused": ("x = 1", "x = 2")},
        {"callbacks__extra": ("y = 1", "y = 1\nunread = 2")},
        {"lab__fit": ("shape: tuple", "shape: list[int]")},
        {"lab__fit": ("unread = 1", "unread = 2")},
        {"lab__report": ("z = 1", "z = 2")},
        # The same definitions by other ways.
        {
            "experiments__toy": (
                "from callbacks import probe",
                "from callbacks.probing import probe",
            )
        },
        {"lab__trial": ("from lab.fit import train", "from lab.fit import train as train")},
    ],
)
def test_a_change_of_words_claims_strangers_or_imports_is_not(sources, edit):
    before, _ = sources()
    assert sources(**edit)[0] == before


def test_what_a_module_is_called_where_it_is_used_does_not_count(sources):
    before, _ = sources()
    sources(lab__trial=("from lab.fit import train\n", "import lab.fit as f\nimport lab.others\n"))
    assert (
        sources(lab__trial=("train(1), others.train", "f.train(1), lab.others.train"))[0] == before
    )


def test_code_that_moves_to_another_file_is_the_same(sources, tmp_path):
    before, files = sources()
    (tmp_path / "callbacks/_deep.py").rename(tmp_path / "callbacks/elsewhere.py")
    after, now = sources(callbacks__probing=("callbacks._deep", "callbacks.elsewhere"))
    assert after == before and files.keys() - now.keys() == {"callbacks/_deep.py"}
    source = (tmp_path / "callbacks/elsewhere.py").read_text()
    (tmp_path / "callbacks/elsewhere.py").unlink()
    merged = sources(callbacks__probing=("from callbacks.elsewhere import deep\n", source))
    assert merged[0] == before and "callbacks/elsewhere.py" not in merged[1]


def test_a_local_variable_is_no_definition_of_that_name(sources):
    before, _ = sources(experiments__toy=("return RATE", "SOURCE = [CLAIMS for CLAIMS in RATE]\n"
                                          "    return SOURCE, RATE"))  # fmt: skip
    assert sources(experiments__toy=("a book", "another book"))[0] == before


def test_a_declaration_that_run_reads_counts(sources):
    before, _ = sources(experiments__toy=("return RATE", "return ARMS, RATE"))
    assert sources(experiments__toy=('{"rate": 1}', '{"rate": 2}'))[0] != before


def test_two_descriptions_of_the_same_code_in_other_files_agree():
    one = {"code": "1", "sources": {"lab/fit.py": "a"}, "threads": 1}
    moved = {"code": "1", "sources": {"lab/engines/fit.py": "a"}, "threads": 1}
    assert fingerprint.digest(one) == fingerprint.digest(moved)
    assert fingerprint.what_changed(one, moved) == ""
    other = moved | {"code": "2"}
    assert fingerprint.digest(other) != fingerprint.digest(one)
    assert "lab/engines/fit.py changed" in fingerprint.what_changed(one, other)
    assert fingerprint.what_changed({}, one) != ""


def test_what_changed_is_named():
    before = {
        "code": "1",
        "sources": {"models/mlp.py": "1"},
        "arm": {"rate": 0.1},
        "scale": {},
        "versions": {"keras": "3.12"},
        "threads": 1,
    }
    now = {
        "code": "2",
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


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_every_process_finds_the_same_digest(hash_seed):
    code = (
        "from lab.claims import discovery\n"
        "from lab.records import fingerprint\n"
        "from lab.claims.vocabulary import Setting\n"
        "toy = discovery.load_experiment('batch_size')\n"
        "at = Setting('quick', 'digits', 'mlp', 'tensorflow')\n"
        "print(fingerprint.describe('batch_size', toy, 'small', at)['code'])"
    )
    here = discovery.load_experiment("batch_size")
    now = fingerprint.describe(
        "batch_size", here, "small", Setting("quick", "digits", "mlp", "tensorflow")
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        cwd=discovery.ROOT,
        capture_output=True,
        text=True,
    )
    assert told.stdout.strip() == now["code"], told.stderr


def test_every_real_experiment_can_be_described():
    for name in discovery.experiment_names():
        experiment = discovery.load_experiment(name)
        setting = Setting("quick", experiment.data, experiment.model, "tensorflow")
        described = fingerprint.describe(name, experiment, next(iter(experiment.arms)), setting)
        assert f"experiments/{discovery.part_of(name)}/{name}.py" in described["sources"]
        assert {"lab/engines/fit.py", "lab/engines/fused.py", "lab/data/loading.py"} <= described[
            "sources"
        ].keys()
        assert "lab/report/writing.py" not in described["sources"]
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

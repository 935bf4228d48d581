"""A trial's files are whole or not there, and never believed when they were touched."""

import gzip
import json

import numpy as np
import pytest

from lab.claims.vocabulary import Setting
from lab.machine import files
from lab.records import store
from lab.records.store import Broken, Key, Missing

SETTING = Setting("quick", "digits", "mlp", "tensorflow")
KEY = Key("batch_size", SETTING, "small", 3)
ROWS = [(1, "loss", 0.1 + 0.2), (2, "loss", float("nan")), (None, "sharp@-0.5", -1e300)]


@pytest.fixture
def saved(tmp_path):
    store.save(tmp_path, KEY, ROWS, {"status": "done"})
    return tmp_path


def csv_of(folder):
    return folder / f"{KEY.path}.csv"


def test_rows_come_back_to_the_last_bit(saved):
    manifest, rows = store.read(saved, KEY)
    assert manifest["status"] == "done" and manifest["rows"] == 3
    for (epoch, metric, value), wanted in zip(rows, ROWS, strict=True):
        assert (epoch, metric) == wanted[:2]
        np.testing.assert_equal(value, wanted[2])


def test_the_file_is_where_and_what_the_design_says(saved):
    path = saved / "batch_size/quick-digits-mlp-tensorflow/small/seed-3.csv"
    first, second, *_ = path.read_text().splitlines()
    assert first == "experiment,arm,seed,scale,data,model,backend,epoch,metric,value"
    assert second == "batch_size,small,3,quick,digits,mlp,tensorflow,1,loss,0.30000000000000004"


@pytest.mark.parametrize(
    "nonsense",
    [{"declared_seeds": "many"}, {"seconds": None}, {"described": []}, {"declared_seeds": True}],
)
def test_a_manifest_with_nonsense_is_broken(saved, nonsense):
    path = saved / f"{KEY.path}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | nonsense))
    with pytest.raises(Broken, match=next(iter(nonsense))):
        store.read(saved, KEY)


def test_a_file_of_another_trial_is_broken(saved):
    other = Key("batch_size", SETTING, "large", 3)
    for ending in ("csv", "json"):
        target = saved / f"{other.path}.{ending}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes((saved / f"{KEY.path}.{ending}").read_bytes())
    with pytest.raises(Broken, match="another trial"):
        store.read(saved, other)


def test_a_missing_trial_is_missing_and_not_broken(tmp_path):
    with pytest.raises(Missing):
        store.read(tmp_path, KEY)
    csv_of(tmp_path).parent.mkdir(parents=True)
    csv_of(tmp_path).write_text("half")  # a kill between the two writes
    with pytest.raises(Missing):
        store.read(tmp_path, KEY)


def test_trials_lists_what_is_there_in_numeric_order(tmp_path):
    for seed in (10, 9, 0):
        store.save(tmp_path, Key("batch_size", SETTING, "small", seed), ROWS, {})
    (tmp_path / "batch_size/odd folder/small").mkdir(parents=True)
    (tmp_path / "batch_size/odd folder/small/seed-1.json").write_text("{}")
    (tmp_path / f"{KEY.path}x.json").write_text("{}")
    assert [key.seed for key in store.trials(tmp_path)] == [0, 9, 10]
    assert list(store.trials(tmp_path, "other")) == []


def test_compressed_trials_are_read_as_before(saved):
    before = repr(store.read(saved, KEY))
    assert store.compact(saved) == 1
    assert sorted(p.name for p in csv_of(saved).parent.iterdir()) == [
        "seed-3.csv.gz",
        "seed-3.json.gz",
    ]
    assert repr(store.read(saved, KEY)) == before
    assert list(store.trials(saved)) == [KEY]
    assert store.compact(saved) == 0


def test_compressing_again_gives_the_same_bytes(saved):
    store.compact(saved)
    first = {p.name: p.read_bytes() for p in csv_of(saved).parent.iterdir()}
    for path in csv_of(saved).parent.iterdir():
        path.unlink()
    store.save(saved, KEY, ROWS, {"status": "done"})
    store.compact(saved)
    assert {p.name: p.read_bytes() for p in csv_of(saved).parent.iterdir()} == first


def test_a_trial_that_was_run_again_counts_before_its_compressed_former_self(saved):
    store.compact(saved)
    store.save(saved, KEY, ROWS[:1], {"status": "done"})
    assert len(store.read(saved, KEY)[1]) == 1
    assert list(store.trials(saved)) == [KEY]


def test_a_small_file_that_holds_too_much_is_refused(saved, monkeypatch):
    store.compact(saved)
    monkeypatch.setattr(files, "LARGEST", 40_000)
    csv_of(saved).with_name("seed-3.csv.gz").write_bytes(gzip.compress(b"0" * 10_000_000))
    with pytest.raises(Broken, match="larger"):
        store.read(saved, KEY)


def test_what_is_broken_is_not_compressed(saved):
    csv_of(saved).write_text("touched")
    with pytest.raises(Broken):
        store.compact(saved)
    assert csv_of(saved).read_text() == "touched"

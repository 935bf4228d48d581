"""Files in the results that are damaged, strange or malign: named, left out, counted, never run."""

import ast
import gzip
import io
import json
import os
import pickle
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lab.claims import discovery
from lab.machine import files
from lab.records import kept, ledger, store
from lab.records.store import Broken, Key
from lab.report import writing
from tests import toy_report
from tests.toy_report import SETTING

KEY = Key("toy", SETTING, "large", 2)
GIANT = 2**30


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Trials of a toy of two arms and four seeds that the report knows."""
    monkeypatch.setattr(writing, "_known", {"toy": toy_report.EXPERIMENT}.get)
    monkeypatch.setattr(writing, "_pictures", lambda *_: [])  # they take seconds
    folder = tmp_path / "results"
    toy_report.save(folder)
    return folder


def rows_of(folder, key=KEY):
    return folder / f"{key.path}.csv"


def manifest_of(folder, key=KEY):
    return folder / f"{key.path}.json"


def left_out(folder, *says):
    """Checks that the report leaves the trial out and names it so, and judges without it."""
    (section,) = writing.gather(folder, list(store.trials(folder)))
    (sentence,) = section.measured.broken
    assert KEY.path in sentence
    for word in says:
        assert word in sentence, sentence
    assert (KEY.arm, KEY.seed) not in section.measured.manifests
    assert len(section.measured.manifests) == 7
    words = {v.claim.id: v.judgement.verdict for v in section.verdicts}
    assert words["A"] == "incomplete"


def sign(folder, text):
    """Write rows as one would who also mends count, checksum and seal."""
    content = text.encode()
    rows_of(folder).write_bytes(content)
    manifest = json.loads(manifest_of(folder).read_text())
    manifest |= {"sha256": store.hashlib.sha256(content).hexdigest()}
    manifest |= {"rows": len(text.splitlines()) - 1}
    manifest |= {"seal": store._seal(manifest)}
    manifest_of(folder).write_text(json.dumps(manifest))


def lines(folder):
    return rows_of(folder).read_text().splitlines(keepends=True)


SIGNED = {
    "duplicate row": (lambda r: [*r, r[2]], "line 9: says again what line 3 says"),
    "same metric, other value": (lambda r: [*r, r[1][:-5] + "7.5\n"], "line 9: says again"),
    "a column less": (lambda r: [*r[:2], r[2].replace(",quick", "", 1), *r[3:]], "line 3: not a"),
    "a column more": (lambda r: [*r[:4], "x," + r[4], *r[5:]], "line 5: not a row"),
    "other columns": (lambda r: [r[0].replace("arm,seed", "seed,arm"), *r[1:]], "line 1: not the"),
    "no columns": (lambda r: r[1:], "line 1: not the columns"),
    "another arm": (lambda r: [*r[:5], r[5].replace("large", "NA"), *r[6:]], "line 6: not a row"),
    "no number": (
        lambda r: [*r[:3], r[3].rsplit(",", 1)[0] + ",NA\n", *r[4:]],
        "line 4: could not",
    ),
    "no epoch": (lambda r: [*r[:-1], r[-1].replace(",2,loss", ",two,loss")], "line 8: invalid lit"),
    "not UTF-8": (lambda r: [*r[:-1], "\udcff"], "line"),
}


@pytest.mark.parametrize(("damage", "says"), SIGNED.values(), ids=SIGNED)
def test_rows_that_cannot_be_are_named_by_line_though_the_checksum_is_right(results, damage, says):
    text = "".join(damage(lines(results)))
    if "\udcff" in text:
        rows_of(results).write_bytes(text.encode(errors="surrogateescape"))
    else:
        sign(results, text)
    left_out(results, "seed-2.csv", says)


EDITED = {
    "a value": (lambda b: b.replace(b",1,loss,1.0", b",1,loss,2.0"), "checksum"),
    "CRLF": (lambda b: b.replace(b"\n", b"\r\n"), "checksum"),
    "BOM": (lambda b: b"\xef\xbb\xbf" + b, "line 1"),
    "a row more": (lambda b: b + b.splitlines()[1] + b"\n", "line 9: says again what line 2"),
    "a row less": (lambda b: b[: b[:-1].rindex(b"\n") + 1], "6 rows, manifest says 7"),
    "semicolons": (lambda b: b.replace(b",", b";"), "line 1"),
    "a zero byte": (lambda b: b + b"\0", "line 9"),
    "quotes that do not end": (lambda b: b + b'"', "line 9"),
    "nothing left": (lambda b: b"", "0 rows, manifest says 7"),
}


@pytest.mark.parametrize(("damage", "says"), EDITED.values(), ids=EDITED)
def test_edited_rows_are_named_with_line_or_reason(results, damage, says):
    rows_of(results).write_bytes(damage(rows_of(results).read_bytes()))
    left_out(results, "seed-2.csv", says, "checksum differs")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("which", [rows_of, manifest_of])
def test_a_file_that_was_cut_anywhere_is_never_believed(tmp_path, which, packed):
    toy_report.save(tmp_path)
    whole = store.read(tmp_path, KEY)
    if packed:
        store.compact(tmp_path)
    path = which(tmp_path)
    path = path.with_name(path.name + ".gz") if packed else path
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        try:
            found = store.read(tmp_path, KEY)
        except Broken as error:
            assert path.name.removesuffix(".gz") in str(error)
        else:  # all but the newline behind the manifest
            assert found == whole and content[length:] == b"\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [("declared_seeds", 2), ("device", "GPU"), ("seconds", 0.0), ("status", "failed"), ("more", 1)],
)
def test_an_edited_manifest_is_named(results, field, value):
    manifest = json.loads(manifest_of(results).read_text())
    manifest_of(results).write_text(json.dumps(manifest | {field: value}))
    left_out(results, "seed-2.json", "seal differs")


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[]", "null", "NaN", "\x00", "\ufeff{}", "[" * 100_000]
)
def test_a_manifest_that_is_no_object_of_ours_is_named(results, text):
    manifest_of(results).write_text(text)
    left_out(results, "seed-2.json")


def test_a_manifest_without_seal_counts_as_those_before_there_was_one(results):
    manifest = json.loads(manifest_of(results).read_text())
    del manifest["seal"]
    manifest_of(results).write_text(json.dumps(manifest))
    assert len(store.read(results, KEY)[1]) == 7


@pytest.mark.parametrize("which", [rows_of, manifest_of])
def test_a_file_of_a_gigabyte_is_refused_by_its_size(results, which):
    with open(which(results), "r+b") as file:
        file.truncate(GIANT)  # sparse: it takes no room
    tracemalloc.start()
    try:
        left_out(results, "larger than 64 MiB")
        writing._inputs(results, list(store.trials(results)), [], [])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < GIANT / 8


@pytest.mark.parametrize("which", [rows_of, manifest_of])
@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "dangling link"])
def test_what_is_no_plain_file_is_not_opened(results, tmp_path, which, kind):
    path = which(results)
    if kind == "link":
        path.rename(tmp_path / "outside")
        path.symlink_to(tmp_path / "outside")
    else:
        path.unlink()
        make = {"pipe": os.mkfifo, "folder": os.mkdir}
        make.get(kind, lambda p: p.symlink_to("/nowhere"))(path)
    left_out(results, "not a plain file")
    writing._inputs(results, list(store.trials(results)), [], [])


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_trials_behind_a_link_out_of_the_folder_are_left_out(results, tmp_path, depth):
    folder = results.joinpath(*Path(KEY.path).parts[:depth])
    folder.rename(tmp_path / "outside")
    folder.symlink_to(tmp_path / "outside")
    sections = writing.gather(results, list(store.trials(results)))
    behind = [sentence for s in sections for sentence in s.measured.broken]
    assert len(behind) == (8 if depth < 3 else 4)
    assert all("lies behind a link" in sentence for sentence in behind)


def test_arms_whose_names_look_like_nothing_are_arms(tmp_path, monkeypatch):
    arms = ("na", "nan", "null", "none", "inf", "true")
    experiment = toy_report.Experiment(
        *("t", "s"),
        arms={arm: {} for arm in arms},
        scales={"quick": {"seeds": 4}},
        run=print,
        claims=[
            toy_report.Claim("N", "n", toy_report.Contrast("m", {"nan": 1, "na": -1}), 0.1, "u", "")
        ],
    )
    monkeypatch.setattr(writing, "_known", {"odd": experiment}.get)
    monkeypatch.setattr(writing, "_pictures", lambda *_: [])
    rng = np.random.default_rng(0)
    effects = []
    for seed in range(4):
        values = rng.normal(size=len(arms)) / 10 + np.arange(len(arms))
        effects.append(values[1] - values[0])
        for arm, value in zip(arms, values, strict=True):
            told = {"status": "done", "declared_seeds": 4}
            store.save(tmp_path, Key("odd", SETTING, arm, seed), [(None, "m", value)], told)
    writing.write(tmp_path)
    (row,) = ledger.verdicts(tmp_path)
    assert row["verdict"] == "supported"
    assert float(row["effect"]) == pytest.approx(np.mean(effects))
    table = [line.split(",")[1] for line in (tmp_path / "odd.csv").read_text().splitlines()[1:]]
    assert sorted(table) == sorted(arms * 4)


def test_files_where_no_trial_can_be_are_named_on_page_and_in_markdown(results):
    setting = results / "toy" / SETTING.folder
    for path in ("NA/seed-0.csv", "NA/seed-0.json", "large/seed-007.json", "large/seed-x.csv"):
        (setting / path).parent.mkdir(exist_ok=True)
        (setting / path).write_text("x")
    (setting / "large/seed-1.log").write_text("a log is no trial")
    said = store.strangers(results)
    assert [sentence.split(":")[0].split("/", 2)[2] for sentence in said] == [
        *("NA/seed-0.csv", "NA/seed-0.json", "large/seed-007.json", "large/seed-x.csv")
    ]
    (section,) = writing.gather(results, list(store.trials(results)))
    assert len(section.measured.manifests) == 8
    writing.write(results)
    for name in ("REPORT.md", "report.html"):
        assert "NA/seed-0.csv: not where a trial can be" in (results / name).read_text()


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_the_results_is_ever_executed(project, tmp_path):
    sung = tmp_path / "sung"
    poison = pickle.dumps(Canary(sung))
    pickle.loads(poison)
    sung.rmdir()  # so the canary sings when it is asked
    array = io.BytesIO()
    np.save(array, np.array([Canary(sung)], dtype=object), allow_pickle=True)
    first = project.draws_nothing().run()
    assert first.returncode == 0
    setting = project.results / "toy/smoke-digits-none-tensorflow"
    good = {path: path.read_bytes() for path in setting.glob("*/seed-*")}
    small, large = setting / "small", setting / "large"
    (small / "seed-0.csv").write_bytes(poison)
    (small / "seed-1.json").write_bytes(poison)
    (small / "seed-2.json").write_bytes(array.getvalue())
    (large / "seed-0.csv").write_bytes(array.getvalue())
    for ending in ("csv", "json"):
        (large / f"seed-1.{ending}").unlink()
        (large / f"seed-1.{ending}.gz").write_bytes(gzip.compress(poison))
    names = ("verdicts.csv", "comparisons.csv", "toy.csv", ".report.json", "REPORT.md")
    for path in (setting / kept.FILE, *(project.results / name for name in names)):
        path.write_bytes(poison)
    for folder in (project.results, setting, small):
        for name in ("model.keras", "weights.h5", "rows.pkl", "rows.npy", "rows.npz"):
            (folder / name).write_bytes(array.getvalue() if "np" in name else poison)
    for command in ("list", "report", "compact"):
        project.lab(command)
        assert not sung.exists(), command
    assert (project.results / "REPORT.md").read_text().count("Left out: toy/") == 5
    again = project.run()
    assert again.returncode == 0 and "5 to run" in again.stdout
    assert not sung.exists()
    assert {path: path.read_bytes() for path in good if path.suffix == ".csv"} == {
        path: content for path, content in good.items() if path.suffix == ".csv"
    }


def test_no_source_reads_what_could_be_code():
    never = re.compile(
        r"^\s*(?:import|from) (?:_?c?pickle|cloudpickle|dill|joblib|marshal|shelve)\b|"
        r"\b(?:np|numpy)\.(?:load|fromfile)\(|\b(?:models|saving)\.load|load_weights|read_pickle|"
        r"allow_pickle",
        re.MULTILINE,
    )
    assert never.search("import pickle") and never.search("keras.models.load_model(path)")
    folders = [discovery.ROOT / name for name in ("lab", "callbacks", "models", "experiments")]
    sources = [path for folder in folders for path in folder.rglob("*.py")]
    assert len(sources) > 50
    for path in sources:
        code = ast.unparse(ast.parse(path.read_text("utf-8")))  # without comments
        assert not never.search(code), path.name


@pytest.mark.parametrize("name", [ledger.VERDICTS, ledger.COMPARISONS, writing.STAMP])
@pytest.mark.parametrize("kind", ["pipe", "giant", "link"])
def test_derived_files_are_read_with_the_same_care(results, tmp_path, name, kind):
    writing.write(results)
    path = results / name
    content = path.read_bytes()
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "giant":
        path.write_bytes(content)
        os.truncate(path, files.LARGEST + 1)
    else:
        (tmp_path / "outside").write_bytes(content)
        path.symlink_to(tmp_path / "outside")
    assert ledger.verdicts(results) == [] or name != ledger.VERDICTS
    assert ledger.comparisons(results) == [] or name != ledger.COMPARISONS
    assert writing.write(results)
    assert path.is_file() and not path.is_symlink() and path.read_bytes() == content

"""The report is made from the files alone, and text from files is inert in it."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import pytest

from lab.claims import wording
from lab.claims.stats import Judgement
from lab.records import inert, ledger, store
from lab.report import terminal, writing
from tests.toy_report import EXPERIMENT, SETTING, claim


def read(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_tables_are_what_the_design_says(undrawn):
    assert writing.write(undrawn)
    header = (undrawn / "verdicts.csv").read_text().splitlines()[0]
    assert header == (
        "experiment,claim,scale,data,model,backend,metric,n,effect,low,high,p,margin,verdict,reason"
    )
    rows = {row["claim"]: row for row in read(undrawn / "verdicts.csv")}
    assert [rows[c]["verdict"] for c in "ABC"] == ["supported", "supported", "incomplete"]
    assert rows["C"]["effect"] == ""
    (naive,) = read(undrawn / "comparisons.csv")
    assert naive["comparison"] == "naive" and float(naive["effect"]) == pytest.approx(2, abs=0.2)
    assert len(read(undrawn / "toy.csv")) == 8 * 7


def test_a_current_report_is_left_alone_and_a_changed_trial_renews_it(undrawn):
    assert writing.write(undrawn)
    assert not writing.write(undrawn)
    (undrawn / "verdicts.csv").unlink()
    assert writing.write(undrawn)
    key = store.Key("toy", SETTING, "small", 0)
    manifest, rows = store.read(undrawn, key)
    store.save(undrawn, key, [(None, "m", 9.0), *rows[1:]], manifest)
    assert writing.write(undrawn)


def test_nothing_from_files_is_live_in_markdown(undrawn):
    writing.write(undrawn)
    text = (undrawn / "REPORT.md").read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text
    ledger_rows = [line for line in text.splitlines() if line.startswith("| A &lt;")]
    assert ledger_rows and all(line.count("|") == 11 for line in ledger_rows)


def test_figures_are_well_formed_and_the_same_on_any_day(results):
    writing.write(results)
    drawn = sorted((results / "figures/toy" / SETTING.folder).glob("*.svg"))
    names = ["arms", "intervals", "learning_curves", "lines", "points", "seeds"]
    assert [path.stem for path in drawn] == names
    assert all(path.with_suffix(".png").is_file() for path in drawn)
    for path in drawn:
        root = ElementTree.fromstring(path.read_bytes())
        assert root.tag.endswith("svg")
        assert b"<script" not in path.read_bytes()
    before = {path: path.read_bytes() for path in drawn}
    for path in drawn:
        path.unlink()
    assert writing.write(results)
    assert {path: path.read_bytes() for path in drawn} == before


def test_a_broken_trial_is_named_and_left_out(undrawn):
    path = undrawn / "toy" / SETTING.folder / "large/seed-2.csv"
    path.write_bytes(path.read_bytes()[:-20])
    writing.write(undrawn)
    text = (undrawn / "REPORT.md").read_text()
    assert "large/seed-2.csv" in text and "Left out" in text
    verdicts = {row["claim"]: row["verdict"] for row in read(undrawn / "verdicts.csv")}
    assert verdicts["A"] == "incomplete"
    assert len(read(undrawn / "toy.csv")) == 7 * 7


def test_the_terminal_table_says_the_same(undrawn, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    writing.write(undrawn)
    terminal.show(undrawn, "toy", EXPERIMENT, SETTING)
    shown = capsys.readouterr().out
    for text in ("✔ supported", "… incomplete", "naive", "toy.csv", "literature"):
        assert text in shown


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe", b"experiment\n"])
def test_a_ledger_that_is_none_reads_as_empty(tmp_path, content):
    (tmp_path / "verdicts.csv").write_bytes(content)
    assert ledger.verdicts(tmp_path) == []


def test_text_is_made_inert():
    made = str(inert.markdown("a|b\n<i>*x*_`"))
    assert "|" not in made and "\n" not in made and "<" not in made and "*" not in made


@pytest.mark.parametrize(
    ("unit", "scale", "expected"),
    [
        ("points", 100, "50 [10, 90] points"),
        ("ratio", 1, "×1.65 [×1.11, ×2.46]"),
    ],
)
def test_effects_read_as_people_say_them(unit, scale, expected):
    judged = Judgement(0.5, 0.1, 0.9, 0.01, 5, "supported", "")
    one = claim("A", "m", unit=unit, scale_by=scale)
    assert wording.effect(one, judged) == expected

"""The report is made from the files alone, and text from files is inert in it."""

import csv
import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from lab import ledger, report, store, table, wording
from lab.figures import declared, intervals, seeds, svg
from lab.markdown import _inert
from lab.measured import Measured, load
from lab.stats import Judgement
from lab.verdicts import judge_all
from lab.vocabulary import Claim, Contrast, Curves, Experiment, Scatter, Setting

SETTING = Setting("quick", "digits", "mlp", "tensorflow")
NASTY = "<script>alert(1)</script> | `code` *b* =HYPERLINK(1)"


def claim(id, metric, **more):
    parts = {"says": NASTY, "margin": 0.1, "unit": "points", "literature": NASTY}
    return Claim(id, contrast=Contrast(metric, {"large": 1, "small": -1}), **(parts | more))


EXPERIMENT = Experiment(
    title=NASTY,
    source=NASTY,
    arms={"small": {}, "large": {}},
    scales={"quick": {"seeds": 4}},
    run=lambda trial: None,
    claims=[
        claim("A", "m", beside={"naive": Contrast("m", {"large": 1})}),
        Claim(
            "B",
            "says",
            Contrast("m", {"large": 1, "small": -1}, log=True),
            0.1,
            "ratio",
            "none",
        ),
        claim("C", "absent"),
    ],
    figures=[
        Scatter("points", NASTY, "m", "k", "m", "k", log_x=True),
        Curves("lines", NASTY, "x", {"y": [("a", "small", "curve"), ("b", "large", "curve")]}),
        Curves("nothing", "t", "x", {"y": [("a", "small", "gone")]}),
    ],
)


@pytest.fixture
def results(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for seed in range(4):
        for arm, mean in (("small", 1.0), ("large", 2.0)):
            rows = [(None, "m", mean + rng.normal(0, 0.1)), (None, "k", rng.normal())]
            rows += [(None, f"curve@{x:g}", x**2 + mean) for x in (-1.0, 0.0, 0.5)]
            rows += [(epoch, "loss", 1 / epoch) for epoch in (1, 2)]
            manifest = {"status": "done", "declared_seeds": 4, "seconds": 2.0, "device": NASTY}
            store.save(tmp_path, store.Key("toy", SETTING, arm, seed), rows, manifest)
    monkeypatch.setattr(report, "_known", lambda name: EXPERIMENT if name == "toy" else None)
    return tmp_path


def read(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


def test_tables_are_what_the_design_says(results):
    assert report.write(results)
    header = (results / "verdicts.csv").read_text().splitlines()[0]
    assert header == (
        "experiment,claim,scale,data,model,backend,metric,n,effect,low,high,p,margin,verdict,reason"
    )
    rows = {row["claim"]: row for row in read(results / "verdicts.csv")}
    assert [rows[c]["verdict"] for c in "ABC"] == ["supported", "supported", "incomplete"]
    assert rows["C"]["effect"] == ""
    (naive,) = read(results / "comparisons.csv")
    assert naive["comparison"] == "naive" and float(naive["effect"]) == pytest.approx(2, abs=0.2)
    assert len(read(results / "toy.csv")) == 8 * 7


def test_a_current_report_is_left_alone_and_a_changed_trial_renews_it(results):
    assert report.write(results)
    assert not report.write(results)
    (results / "verdicts.csv").unlink()
    assert report.write(results)
    key = store.Key("toy", SETTING, "small", 0)
    manifest, rows = store.read(results, key)
    store.save(results, key, [(None, "m", 9.0), *rows[1:]], manifest)
    assert report.write(results)


def test_nothing_from_files_is_live_in_markdown(results):
    report.write(results)
    text = (results / "REPORT.md").read_text()
    assert "<script>" not in text and "&lt;script&gt;" in text
    ledger_rows = [line for line in text.splitlines() if line.startswith("| ✔")]
    assert ledger_rows and all(line.count("|") == 10 for line in ledger_rows)


def test_figures_are_well_formed_and_the_same_on_any_day(results):
    report.write(results)
    drawn = sorted((results / "figures/toy" / SETTING.folder).glob("*.svg"))
    assert [path.stem for path in drawn] == ["intervals", "lines", "points", "seeds"]
    for path in drawn:
        root = ElementTree.fromstring(path.read_bytes())
        assert root.tag.endswith("svg")
        assert b"<script" not in path.read_bytes()
    before = {path: path.read_bytes() for path in drawn}
    for path in drawn:
        path.unlink()
    assert report.write(results)
    assert {path: path.read_bytes() for path in drawn} == before


def test_a_curve_is_drawn_through_the_recorded_points(results):
    (measured,) = load(results, list(store.trials(results)))
    figure = declared(EXPERIMENT.figures[1], measured)
    small, large = figure.axes[0].get_lines()
    np.testing.assert_allclose(small.get_xdata(), [-1, 0, 0.5])
    np.testing.assert_allclose(small.get_ydata(), [2, 1, 1.25])
    np.testing.assert_allclose(large.get_ydata(), [3, 2, 2.25])
    points = declared(EXPERIMENT.figures[0], measured)
    assert sum(len(c.get_offsets()) for c in points.axes[0].collections) == 8


def test_intervals_and_pairs_survive_missing_and_empty_measurements():
    empty = Measured("toy", SETTING)
    verdicts = judge_all("toy", EXPERIMENT, empty)
    assert svg(intervals(verdicts)).startswith(b"<?xml")
    assert svg(seeds(verdicts, empty)).startswith(b"<?xml")
    assert declared(EXPERIMENT.figures[0], empty) is None


def test_a_broken_trial_is_named_and_left_out(results):
    path = results / "toy" / SETTING.folder / "large/seed-2.csv"
    path.write_bytes(path.read_bytes()[:-20])
    report.write(results)
    text = (results / "REPORT.md").read_text()
    assert "large/seed-2.csv" in text and "Left out" in text
    verdicts = {row["claim"]: row["verdict"] for row in read(results / "verdicts.csv")}
    assert verdicts["A"] == "incomplete"
    assert len(read(results / "toy.csv")) == 7 * 7


def test_the_terminal_table_says_the_same(results, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    report.write(results)
    table.show(results, "toy", EXPERIMENT, SETTING)
    shown = capsys.readouterr().out
    for text in ("✔ supported", "… incomplete", "naive", "toy.csv", "literature"):
        assert text in shown


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\xff\xfe", b"experiment\n"])
def test_a_ledger_that_is_none_reads_as_empty(tmp_path, content):
    (tmp_path / "verdicts.csv").write_bytes(content)
    assert ledger.verdicts(tmp_path) == []


def test_text_is_made_inert():
    made = str(_inert("a|b\n<i>*x*_`"))
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

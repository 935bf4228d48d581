"""`report.html` shows all that was measured, needs nothing else, and no text in it is live."""

import csv
import html.parser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.claims.vocabulary import Setting
from lab.machine import files
from lab.records import ledger, store
from lab.report import writing
from tests import toy_report
from tests.toy_report import NASTY, SETTING

VOID = {"meta", "link", "input", "img", "br", "hr", "line", "circle", "path", "text"}


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text outside of styles and scripts."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self._quiet = [], [], False
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.words = " ".join(" ".join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._quiet = tag in ("style", "script")

    def handle_endtag(self, tag):
        self._quiet = False

    def handle_data(self, data):
        if not self._quiet:
            self.text.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def made(folder):
    writing.write(folder)
    return Page(folder / "report.html")


def test_every_claim_is_in_the_ledger_with_word_shape_and_numbers(results):
    page = made(results)
    entries = [attrs for attrs in page.all("tr") if "entry" in (attrs.get("class") or "")]
    assert [attrs["data-verdict"] for attrs in entries] == ["supported", "supported", "incomplete"]
    for shape, word in (("✔", "supported"), ("…", "incomplete")):
        assert f"{shape} {word}" in page.words
    (row,) = (row for row in ledger.verdicts(results) if row["claim"] == "A")
    assert f"{float(row['effect']):.3g}" in page.words
    bars = [attrs["aria-label"] for attrs in page.all("svg") if attrs.get("role") == "img"]
    assert len(bars) == 3 and all("margin" in label for label in bars)
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    targets = {attrs["href"][1:] for attrs in page.all("a") if attrs["href"].startswith("#")}
    assert targets <= set(ids)
    assert "make experiment NAME=toy SEEDS=" not in page.words and "NAME=toy" in page.words


def test_no_text_of_files_is_live_and_nothing_is_fetched(results):
    page = made(results)
    assert len(page.all("script")) == 1 and "alert(1)" not in page.source.split("<script>")[1]
    assert NASTY.split("|")[0].strip() in page.words  # shown as it is
    for tag, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on")], tag
        for name in ("src", "href"):
            assert re.match(r"#|data:", attrs.get(name, "#")), attrs
    (policy,) = (a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert "url(" not in page.source.split("</style>")[0] and "@import" not in page.source


def test_pictures_have_a_text_alternative_and_are_whole(results):
    from urllib.parse import unquote_to_bytes

    page = made(results)
    images = page.all("img")
    assert len(images) == len(list((results / "figures").rglob("*.svg")))
    assert all(len(image["alt"]) > 20 for image in images)
    shown = {unquote_to_bytes(image["src"].split(",", 1)[1]) for image in images}
    assert shown == {path.read_bytes() for path in (results / "figures").rglob("*.svg")}


def test_without_results_it_says_how_to_get_some(tmp_path):
    page = made(tmp_path)
    assert "There are no results yet" in page.words
    assert "make experiment NAME=batch_size" in page.words


def test_broken_and_diverged_trials_are_counted_and_named(results):
    folder = results / "toy" / SETTING.folder
    (folder / "large/seed-2.csv").write_bytes(b"\xff\x00")
    key = store.Key("toy", SETTING, "small", 3)
    manifest, rows = store.read(results, key)
    store.save(results, key, rows, manifest | {"status": "diverged"})
    page = made(results)
    assert "1 trial left out because of broken files; 1 trial diverged" in page.words.replace(
        " ;", ";"
    )
    assert "large/seed-2.csv" in page.words and "small, seed 3" in page.words


def test_an_experiment_it_has_never_heard_of_is_shown_and_not_judged(results):
    toy_report.save(results, experiment="unheard_of")
    page = made(results)
    assert "no experiment called unheard_of" in page.words
    assert {a["data-experiment"] for a in page.all("tr") if "data-experiment" in a} == {"toy"}
    assert (results / "tables/unheard_of" / SETTING.folder / "arms.csv").is_file()


def test_one_trial_is_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_known", {"toy": toy_report.EXPERIMENT}.get)
    toy_report.save(tmp_path, seeds=1)
    page = made(tmp_path)
    assert "1 seed;" in page.words and "incomplete" in page.words


def test_data_sets_stand_side_by_side(results):
    toy_report.save(results, setting=Setting("quick", "mnist1d", "mlp", "tensorflow"))
    page = made(results)
    grid = page.words.split("Where it holds and where not")[1][:200]
    assert "digits, mlp" in grid and "mnist1d, mlp" in grid


def test_the_reference_is_shown_beside_ones_own(results, tmp_path, monkeypatch):
    assert "reference" not in made(results).words
    reference = tmp_path / "elsewhere"
    toy_report.save(reference)
    writing.write(reference)
    monkeypatch.setattr(writing, "REFERENCE", reference, raising=True)
    (results / writing.STAMP).unlink()
    page = made(results)
    assert "reference" in page.words
    assert page.words.count("✔ supported") > 4


def test_deleting_what_is_derived_and_making_it_again_gives_the_same_bytes(results):
    def derived():
        files = (p for p in sorted(results.rglob("*")) if p.is_file())
        return {p: p.read_bytes() for p in files if not p.name.startswith("seed-")}

    writing.write(results)
    before = derived()
    assert {p.suffix for p in before} >= {".html", ".md", ".csv", ".tex", ".svg", ".png"}
    for path in before:
        path.unlink()
    writing.write(results)
    assert derived() == before


def test_tables_come_as_csv_latex_and_markdown_and_are_harmless(results):
    writing.write(results)
    texts = {path.name: path.read_text() for path in (results / "tables").rglob("*.*")}
    assert {"ledger.csv", "ledger.tex", "ledger.md", "arms.csv", "verdicts.tex"} <= texts.keys()
    for name, text in texts.items():
        if name.endswith(".md"):
            assert "<script>" not in text
        if name.endswith(".tex"):  # what is escaped how: test_tabular.py
            assert text.count("\\begin{") == text.count("\\end{") == 1
        if name.endswith(".csv"):
            cells = [cell for row in csv.reader(text.splitlines()) for cell in row]
            assert not [c for c in cells if c[:1] in ("=", "+", "@", "\t")]


BIG = r"""
import re, resource, sys
from pathlib import Path
sys.path.insert(0, "")
from lab.report import writing
from tests import toy_report
from lab.claims.vocabulary import Setting
import dataclasses
known = dataclasses.replace(toy_report.EXPERIMENT, scales={"quick": {"seeds": 2500}})
writing._known = {"toy": known}.get
folder = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
writing.write(folder)
used = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
# Not `ru_maxrss`: that begins with what the process held that started this one.
peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
print(used, int(peak) / 1024)
"""


@pytest.fixture
def ten_thousand(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "fsync", lambda handle: None)
    for data in ("digits", "mnist1d"):
        toy_report.save(tmp_path, setting=Setting("quick", data, "mlp", "tensorflow"), seeds=2500)
    return tmp_path


@pytest.mark.slow
def test_ten_thousand_trials_take_less_than_20_s_and_a_gigabyte(ten_thousand):
    done = subprocess.run(
        [sys.executable, "-c", BIG, str(ten_thousand)],
        cwd=Path(__file__).resolve().parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    seconds, megabytes = map(float, done.stdout.split())
    assert seconds < 20 and megabytes < 1024
    page = (ten_thousand / "report.html").stat().st_size
    assert page < 3 * 2**20


def test_the_committed_page_is_small_enough_to_be_sent_around():
    """Of five experiments on two data sets: under 3 MB, and of the ledger that is committed."""
    page = Page(writing.REFERENCE / "report.html")
    assert len(page.source.encode()) < 3e6
    entries = [attrs for attrs in page.all("tr") if "data-verdict" in attrs]
    told = sorted((a["data-experiment"], a["data-data"], a["data-verdict"]) for a in entries)
    rows = ledger.verdicts(writing.REFERENCE)
    assert (
        told == sorted((r["experiment"], r["data"], r["verdict"]) for r in rows) and len(rows) > 70
    )

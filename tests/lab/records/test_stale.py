"""What changed between runs is named, and trials that differ in it never share a verdict."""

import csv
import io

import pytest

from lab.claims.vocabulary import Setting
from lab.records import kept, store
from lab.records.verdicts import judge_all
from lab.report import writing
from tests.lab.records.test_verdicts import claim, experiment, measured

SETTING = Setting("smoke", "digits", "none", "tensorflow")


@pytest.fixture
def project(ran):
    """The toy has run; what is drawn of it does not matter here."""
    return ran.draws_nothing()


def verdicts(project):
    rows = csv.DictReader(io.StringIO((project.results / "verdicts.csv").read_text()))
    return {(row["claim"], row["metric"]): row for row in rows}


def edit(project, old, new):
    path = project.folder / "experiments/toy.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_another_library_is_named_and_its_trials_are_stale(project, tmp_path):
    told = tmp_path / "newer/scipy-9.9.9.dist-info/METADATA"
    told.parent.mkdir(parents=True)
    told.write_text("Metadata-Version: 2.1\nName: scipy\nVersion: 9.9.9\n")
    done = project.run("toy", "--dry", "1", PYTHONPATH=str(tmp_path / "newer"))
    assert "6 stale: versions scipy: " in done.stdout and "-> 9.9.9" in done.stdout
    assert "6 to run" in done.stdout


def test_a_run_that_stopped_halfway_after_a_change_gives_no_verdict(project):
    edit(project, "0.1)", "0.2)")
    worker = project.folder / "lab/sweeps/pool.py"  # no trial depends on it
    source = worker.read_text()
    stops = "                    yield key, outcome\n"
    assert stops in source
    worker.write_text(
        source.replace(stops, stops + "                    raise KeyboardInterrupt\n")
    )
    done = project.run()
    assert done.returncode == 130
    worker.write_text(source)
    assert project.lab("report").returncode == 0
    found = verdicts(project)
    assert {row["verdict"] for row in found.values()} == {"invalid"}
    says = "trials of different code are mixed (experiments/toy.py changed)"
    assert {row["reason"] for row in found.values()} == {says}
    assert "5 stale: experiments/toy.py changed" in project.run().stdout
    assert verdicts(project)["A1", "score"]["verdict"] == "supported"


def test_stale_trials_are_kept_on_request_alone_and_the_report_says_so(project):
    trials = project.results / "toy" / SETTING.folder
    edit(project, '"shift": 1.0', '"shift": 2.0')
    for ending in ("csv", "json"):
        (trials / f"large/seed-1.{ending}").unlink()
    before = {path: path.read_bytes() for path in trials.glob("large/seed-*.csv")}
    done = project.run("toy", "--keep-stale", "1")
    assert done.returncode == 0
    assert "2 kept: arm shift: 1.0 -> 2.0" in done.stdout and "1 to run" in done.stdout
    assert {path: path.read_bytes() for path in before} == before
    row = verdicts(project)["A1", "score"]
    assert row["verdict"] != "invalid" and "stale trials kept (KEEP_STALE=1): 2" in row["reason"]
    for name in ("REPORT.md", "report.html"):
        text = (project.results / name).read_text()
        assert "Stale trials kept (KEEP_STALE=1): 2." in text and "shift: 1.0 -&gt; 2.0" in text
    files = project.files()
    assert project.lab("report").returncode == 0 and project.files() == files
    again = project.run()  # without the request they are run
    assert "2 stale" in again.stdout and "2 to run" in again.stdout
    assert not (trials / kept.FILE).exists()
    assert "KEEP_STALE" not in (project.results / "REPORT.md").read_text()
    assert float(verdicts(project)["A1", "score"]["effect"]) == pytest.approx(2.0, abs=0.3)


def mixed(described, note=None):
    """A verdict where one trial of the larger arm was made by others, and is kept or not."""
    data = measured()
    for manifest in data.manifests.values():
        manifest |= {"described": {"versions": {"numpy": "1"}, "arm": {}}, "fingerprint": "now"}
    data.manifests["large", 0] |= {"described": described, "fingerprint": "before"}
    data.kept = note or {}
    (verdict,) = judge_all("toy", experiment(claim()), data)
    return verdict.judgement


@pytest.mark.parametrize(
    ("described", "says"),
    [
        ({"versions": {"numpy": "2"}, "arm": {}}, "versions are mixed (versions numpy: "),
        ({"versions": {"numpy": "1"}, "arm": {"rate": 1}}, "settings of large are mixed"),
        ({"versions": {"numpy": "1"}, "arm": {}, "threads": 2}, "threads are mixed"),
        ({}, "different settings of large, versions are mixed"),
        (
            {
                "versions": {"numpy": "1"},
                "arm": {},
                "code": "2",
                "sources": {"lab/engines/fit.py": "2"},
            },
            "different code are mixed (lab/engines/fit.py changed)",
        ),
    ],
)
def test_what_trials_must_share_is_named_where_they_do_not(described, says):
    judged = mixed(described)
    assert judged.verdict == "invalid" and says in judged.reason
    judged = mixed(described, {"before": "numpy changed"})
    assert judged.verdict == "supported"
    assert judged.reason.endswith("; stale trials kept (KEEP_STALE=1): 1")
    assert mixed(described, {"other": "numpy changed"}).verdict == "invalid"


def test_the_same_code_from_other_files_is_not_mixed():
    data = measured()
    for i, manifest in enumerate(data.manifests.values()):
        manifest |= {"described": {"code": "1", "sources": {f"lab/{i}.py": "1"}, "arm": {}}}
    (verdict,) = judge_all("toy", experiment(claim()), data)
    assert verdict.judgement.verdict == "supported"


def test_an_arm_that_the_experiment_no_longer_has_spoils_nothing():
    data = measured()
    data.manifests["gone", 0] = {"described": {"code": "older"}, "device": "CPU"}
    (verdict,) = judge_all("toy", experiment(claim()), data)
    assert verdict.judgement.verdict == "supported"


def test_different_machines_are_mixed_though_their_trials_were_kept():
    data = measured()
    data.manifests["large", 0] |= {"fingerprint": "before", "device": "GPU"}
    data.kept = {"before": "numpy changed"}
    (verdict,) = judge_all("toy", experiment(claim()), data)
    assert verdict.judgement.verdict == "invalid" and "device" in verdict.judgement.reason


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff", b"[" * 100_000])
def test_a_note_that_is_none_keeps_nothing(tmp_path, content):
    kept.write(tmp_path, "toy", SETTING, {"abc": "numpy changed"})
    assert kept.read(tmp_path, "toy", SETTING) == {"abc": "numpy changed"}
    (tmp_path / "toy" / SETTING.folder / kept.FILE).write_bytes(content)
    assert kept.read(tmp_path, "toy", SETTING) == {}


def test_trials_of_the_reference_are_judged_whatever_the_sources_are_now():
    keys = list(store.trials(writing.REFERENCE, "polyak_averaging"))
    before = [v for section in writing.gather(writing.REFERENCE, keys) for v in section.verdicts]
    assert len(before) > 10
    assert "mixed" not in " ".join(v.judgement.reason for v in before)
    assert {v.judgement.verdict for v in before} >= {"refuted", "inconclusive"}

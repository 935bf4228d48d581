"""The ledger of the README: a line per claim, a column per data set, however many there are."""

import csv

import pytest

from lab.claims import discovery
from lab.claims.measures import factor, points
from lab.claims.vocabulary import Experiment
from lab.records import ledger
from lab.report import findings, readme


def experiment(ids, model="mlp"):
    """Each claim has two measures."""
    claims = [
        measure(metric).claim(claim_id, f"Claim {claim_id} | holds", "a", "b", literature="none")
        for claim_id in ids
        for measure, metric in ((points, "test_accuracy"), (factor, "loss"))
    ]
    arms, scales = {"a": {}, "b": {}}, {"quick": {"seeds": 2}, "paper": {"seeds": 2}}
    return Experiment(
        "t", "s", arms, scales, claims, lambda trial: None, model=model, data="digits"
    )


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a ledger of made-up experiments; returns its folder."""

    def written(experiments, settings, words=("supported", "refuted")):
        monkeypatch.setattr(discovery, "load_experiment", experiments.__getitem__)
        with open(tmp_path / ledger.VERDICTS, "w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(ledger.VERDICT_COLUMNS)
            for name, where in settings:
                for i, claim in enumerate(experiments[name].claims):
                    numbers = (10, 0.1, 0.05, 0.15, 0.01, 0.005)
                    rows.writerow(
                        [name, claim.id, *where, claim.metric, *numbers, words[i % 2], "because"]
                    )
        return tmp_path

    return written


def table(text: str) -> list[list[str]]:
    """The cells of a Markdown table's rows, the header first."""
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    return [cells[0], *cells[2:]]


def test_56_claims_and_6_data_sets_are_56_lines_of_marks(write):
    ids = [f"{part}{number}" for part in "EGHORTB" for number in range(1, 9)]
    parts = {"first": experiment(ids[:30]), "second": experiment(ids[30:], model="none")}
    sets = ["digits", "mnist1d", "cifar10", "svhn", "emnist", "fashion_mnist"]
    where = [
        *(("first", ("quick", data, "mlp", "tensorflow")) for data in sets),
        *(("second", ("quick", data, "none", "tensorflow")) for data in sets[:2]),
    ]
    made = readme.marks(write(parts, where))
    head, *rows = table(made)
    assert head == ["claim", *sets] and len(rows) == 56
    assert all(len(row) == 7 for row in rows)
    ids = [row[0].split("]")[0][1:] for row in rows]
    assert ids == sorted(ids)  # not as they come
    assert {row[1] for row in rows} == {"✔✘"}
    assert sum(row[3] == "" for row in rows) == 26  # where nothing was measured, nothing stands
    text = (discovery.ROOT / "README.md").read_text("utf-8")
    shown = text.split(readme.START)[1].split(readme.END)[0]
    assert len(text.replace(shown, f"\n{made}").splitlines()) < 150


def test_a_column_says_what_is_not_as_in_most(write):
    one = {"one": experiment(["A1"])}
    settings = [
        ("quick", "digits", "mlp", "tensorflow"),
        ("quick", "mnist1d", "mlp", "tensorflow"),
        ("quick", "digits", "mlp", "jax"),
        ("paper", "cifar10", "resnet", "tensorflow"),
    ]
    made = readme.marks(write(one, [("one", where) for where in settings]))
    head, row = table(made)
    assert head[1:] == ["digits", "mnist1d", "digits<br>jax", "cifar10<br>resnet<br>paper"]
    assert row[1:] == ["✔✘"] * 4
    assert "scale quick, backend tensorflow" in made and "over 10 paired seeds" in made


def test_a_measure_that_a_setting_lacks_keeps_its_place(write):
    folder = write({"one": experiment(["A1"])}, [("one", ("quick", "digits", "mlp", "jax"))])
    lines = (folder / ledger.VERDICTS).read_text().splitlines(keepends=True)
    (folder / ledger.VERDICTS).write_text(lines[0] + lines[2])
    assert table(readme.marks(folder))[1][1] == "…✘"


def test_a_sentence_breaks_no_table_and_no_link(write):
    folder = write({"one": experiment(["A1"])}, [("one", ("quick", "digits", "mlp", "jax"))])
    assert "[A1](results/reference/report.html#one-a1) Claim A1 &#124; holds |" in readme.marks(
        folder
    )


def test_nothing_measured_is_an_empty_table(tmp_path):
    assert table(readme.marks(tmp_path)) == [["claim"]]
    assert readme.numbers(tmp_path).strip() == ""


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("README.md", readme.marks),
        ("docs/results.md", readme.numbers),
        ("docs/findings.md", findings.text),
    ],
)
def test_what_stands_between_the_markers_is_of_the_reference_results(name, made):
    text = (discovery.ROOT / name).read_text("utf-8")
    shown = text.split(readme.START, 1)[1].split(readme.END, 1)[0].strip()
    assert shown == made(discovery.ROOT / readme.REFERENCE).strip()
    assert len(ledger.verdicts(discovery.ROOT / readme.REFERENCE)) > 0


def test_only_the_reference_renews_them(tmp_path, monkeypatch):
    monkeypatch.setattr(discovery, "ROOT", tmp_path)
    monkeypatch.setattr(readme, "marks", lambda results: "marks\n")
    monkeypatch.setattr(readme, "numbers", lambda results: "numbers\n")
    monkeypatch.setattr(findings, "text", lambda results: "findings\n")
    reference = tmp_path / readme.REFERENCE
    between = f"a\n{readme.START}\nold\n{readme.END}\nb\n"
    pages = [tmp_path / name for name in ("README.md", "docs/results.md", "docs/findings.md")]
    for path in (*pages, reference / "report.html"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(between)
    assert not readme.update(tmp_path / "results")
    assert [path.read_text() for path in pages] == [between] * 3
    assert readme.update(reference)
    assert [path.read_text().split("\n")[2] for path in pages] == ["marks", "numbers", "findings"]
    assert not readme.update(reference)
    pages[1].unlink()  # a checkout without it has the other renewed
    pages[0].write_text(between)
    assert readme.update(reference)

"""What the README and the pages of `docs/` show, works as it stands there."""

import csv
import re
from pathlib import Path

import pytest

from lab.claims import stats, wording

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md")))
}
ALL_BLOCKS = {
    name: re.findall(r"```python\n(.*?)```", text, re.DOTALL) for name, text in PAGES.items()
}
BLOCKS = ALL_BLOCKS["README.md"]
(EXPERIMENT,) = [block for block in BLOCKS if "EXPERIMENT" in block]
# Where a link leads that tests check: files of the repository.
LINK = re.compile(r"\]\((?!\w+://)([^)\s#]*)#?([^)\s]*)\)")


def test_the_new_experiment_runs_as_it_stands(project):
    (path,) = re.findall(r"^# experiments/(.*)\.py\n", EXPERIMENT)
    (project.folder / "experiments" / path).parent.mkdir()
    project.experiment(path, EXPERIMENT)
    name = path.split("/")[-1]
    assert f"make experiment NAME={name}`" in PAGES["README.md"]
    done = project.run(name, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "O5" in done.stdout and "Momentum helps" in done.stdout
    assert len(list(project.results.rglob("seed-*.csv"))) == 4


def test_the_new_experiment_has_a_free_name_in_a_folder_that_there_is():
    from lab.claims import discovery

    (path,) = re.findall(r"^# experiments/(.*)\.py\n", EXPERIMENT)
    part, name = path.split("/")
    assert name not in discovery.experiment_names()
    assert (ROOT / "tests" / "experiments" / part).is_dir()


def surroundings(examples: int) -> dict:
    """What the blocks take for granted: compiled models of digits, and their data."""
    import keras
    from sklearn.datasets import load_digits

    def fresh(seed):
        keras.utils.set_random_seed(seed)
        layers = [keras.layers.Dense(16), keras.layers.BatchNormalization()]
        model = keras.Sequential(
            [keras.Input((64,)), *layers, keras.layers.ReLU(), keras.layers.Dense(10)]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, metrics=["accuracy"])
        return model

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    parts = {"x": x[:examples], "y": y[:examples], "xv": x[1000:], "yv": y[1000:]}
    probe = {"x_probe": x[:100], "y_probe": y[:100]}
    return parts | probe | {"model": fresh(0), "models": [fresh(1), fresh(2)]}


def ran(name: str, blocks=None, examples: int = 200) -> dict:
    """The names that a page's blocks leave, run one after the other."""
    scope = surroundings(examples)
    for block in ALL_BLOCKS[name] if blocks is None else blocks:
        exec(block, scope)
    return scope


@pytest.mark.both_backends
def test_the_blocks_of_the_readme_run_as_they_stand():
    import numpy as np

    scope = ran("README.md", [block for block in BLOCKS if block != EXPERIMENT])
    assert len(scope["history"].history["sharpness/lambda_max"]) == 4
    assert scope["average"].steps == 20 * 7
    losses = [history.history["loss"] for history in scope["histories"]]
    assert np.shape(losses) == (2, 5) and losses[0] != losses[1]
    assert all(each[-1] < each[0] for each in losses)


@pytest.mark.both_backends
def test_the_blocks_of_the_page_of_callbacks_run_as_they_stand(capsys):
    import numpy as np

    scope = ran("docs/callbacks.md")
    rates = scope["cycled"].history["learning_rate"]
    assert len(rates) == 20 and 0.001 <= min(rates) < max(rates) <= 0.01
    assert len(scope["snapshots"].snapshots) == 5 and scope["average"].steps == 20 * 7
    np.testing.assert_allclose(scope["snapshots"].predict(scope["x"]).sum(-1), 1, atol=1e-5)
    logs = scope["history"].history
    told = [f"sharpness{part}" for part in ("/lambda_max", "/trace", "/epsilon", "/adaptive")]
    assert all(len(logs[name]) == 4 for name in told)
    largest = scope["top_eigenvalues"](scope["model"], scope["x_probe"], scope["y_probe"], k=2)
    assert largest[0] > largest[1]
    weights = scope["model"].trainable_variables
    np.testing.assert_array_equal(scope["start"][0], np.asarray(weights[0]))  # as it was
    last = capsys.readouterr().out.strip().splitlines()[-3:]
    assert [line.split()[0] for line in last] == ["uniform", "ema", "last"]
    assert len(scope["plain"].snapshots) == 5 and scope["averages"].kept == ()
    # The mean of the layer's inputs, by hand: the statistics were left as those of all of x.
    dense, normalization = scope["model"].layers[:2]
    scope["recalibrate_batchnorm"](scope["model"], scope["x"])
    inputs = scope["x"] @ np.asarray(dense.kernel) + np.asarray(dense.bias)
    np.testing.assert_allclose(np.asarray(normalization.moving_mean), inputs.mean(0), atol=1e-5)


def test_the_page_of_callbacks_names_all_of_them():
    import callbacks

    for name in callbacks.__all__:
        assert re.search(rf"\b{name}\b", PAGES["docs/callbacks.md"]), name


@pytest.mark.both_backends
@pytest.mark.parametrize("engine", ["fused", "stacked"])
def test_the_blocks_of_the_page_of_the_engine_run_as_they_stand(engine, capsys):
    import keras
    import numpy as np

    if engine == "stacked" and keras.backend.backend() != "jax":
        pytest.skip("stacking needs JAX")
    blocks = ALL_BLOCKS["docs/engine.md"]
    asked = "train(fits)"
    assert blocks[-1].count(asked) == 1 and 'train(fits, engine="stacked")' in blocks[-1]
    few = blocks[-1].replace("range(10)", "range(3)").replace(asked, f"train(fits, {engine!r})")
    scope = ran("docs/engine.md", [*blocks[:-1], few], examples=1000)
    assert len(scope["history"].history["val_loss"]) == 5
    found = [history.history["val_accuracy"][-1] for history in scope["histories"]]
    assert len(set(found)) == 3 and min(found) > 0.7
    assert str(np.round(found[0], 3))[:4] in capsys.readouterr().out


def test_the_page_of_the_engine_names_all_of_a_training():
    from dataclasses import fields

    from lab.engines.fit import Fit
    from lab.engines.training import ENGINES

    for name in (*ENGINES, *(field.name for field in fields(Fit)), "data"):
        assert f"`{name}`" in PAGES["docs/engine.md"], name


def test_the_page_of_verdicts_says_what_the_rule_says(capsys):
    ran("docs/verdicts.md")
    assert f"# {capsys.readouterr().out.strip()}\n" in PAGES["docs/verdicts.md"]
    rows = re.findall(r"^\| (\S+ [a-z]+) \|", PAGES["docs/verdicts.md"], re.MULTILINE)
    assert rows == [wording.verdict(word) for word in stats.VERDICTS]


def test_every_block_of_python_is_run_by_a_test_above():
    run = {"README.md", "docs/callbacks.md", "docs/engine.md", "docs/verdicts.md"}
    assert {name for name, blocks in ALL_BLOCKS.items() if blocks} == run
    for name, text in PAGES.items():  # and none hides from the pattern
        assert len(re.findall(r"^\s*(?:```|~~~)\s*py", text, re.MULTILINE)) == len(ALL_BLOCKS[name])


def test_the_readme_is_short_and_has_one_picture():
    lines = PAGES["README.md"].splitlines()
    assert len(lines) < 150
    assert sum("![" in line for line in lines) == 1


def heading_anchors(text: str) -> set[str]:
    """As code hosts make them from headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", [*PAGES, "docs/tour.ipynb"])
def test_links_lead_to_files_and_places_that_there_are(name):
    path = ROOT / name
    links = LINK.findall(path.read_text("utf-8"))
    places: dict[Path, set[str]] = {}
    for target, place in links:
        file = (path.parent / target).resolve() if target else path
        assert file.is_file() and file.is_relative_to(ROOT), target
        if not place:
            continue
        if file not in places:
            text = file.read_text("utf-8")
            ids = set(re.findall(r'\bid="([^"]+)"', text))
            places[file] = ids if file.suffix == ".html" else heading_anchors(text)
        assert place in places[file], f"{target}#{place}"


def test_every_page_of_docs_is_linked_in_the_readme():
    linked = {target for target, _ in LINK.findall(PAGES["README.md"])}
    assert {name for name in PAGES if name.startswith("docs/")} <= linked


@pytest.mark.parametrize("name", PAGES)
def test_commands_and_their_options_exist(name):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    options = {*re.search(r"^OPTIONS := (.*)$", makefile, re.MULTILINE)[1].split(), "PYTHON"}
    code = re.findall(r"`((?:make|\.\.\.) [^`\n]+)`|^(make .+)$", PAGES[name], re.MULTILINE)
    for words in (one or other for one, other in code):
        told = words.split("#")[0].split()[1:]
        for target in (word for word in told if "=" not in word and word != "..."):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), words
        for option in (word.split("=")[0] for word in told if "=" in word):
            assert option in options, words
    from lab.cli import _parser

    for command in re.findall(r"python -m lab ([a-z]\w*)", PAGES[name]):
        _parser().parse_args([command, *(["--name=a"] if command == "experiment" else [])])


def test_the_page_of_commands_has_every_target_and_option():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    page = PAGES["docs/commands.md"]
    for target in re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE):
        assert f"`make {target}" in page, target
    for option in re.search(r"^OPTIONS := (.*)$", makefile, re.MULTILINE)[1].split():
        assert f"{option}=" in page, option


NETWORKS = {
    "MLP on digits, 32": "mlp_digits",
    "convnet on digits, 32": "convnet_digits",
    "convnet on 32x32x3, 128": "convnet_32",
    "ResNet-20 on 32x32x3, 128": "resnet20_32",
}
WAYS = {
    "plain `fit`": ["plain_fit"],
    "`fit`, epoch per execution": ["steps_per_execution"],
    "fused": ["fused_tensorflow"],
    "fused or stacked on JAX": ["fused_jax", "stacked_jax_8"],
    "hand-written loop": ["hand_written", "hand_written_xla"],
    "PyTorch, eager": ["pytorch"],
}


@pytest.mark.parametrize(("name", "networks"), [("README.md", 3), ("docs/engine.md", 4)])
def test_the_tables_of_speed_are_what_was_measured(name, networks):
    with open(ROOT / "results/reference/bench.csv", newline="") as file:
        found = {(r["benchmark"], r["way"]): r for r in csv.DictReader(file) if r["threads"] == "1"}
    rows = [line.strip("| ").split(" | ") for line in PAGES[name].splitlines() if " | " in line]
    (head,) = [row for row in rows if "fused" in row]
    shown = [row for row in rows if row[0] in NETWORKS]
    assert len(shown) == networks
    for network, *cells in shown:
        for way, cell in zip(head[1:], cells, strict=True):
            numbers = re.findall(r"(\d[\d,]*)(?: \(([\d.]+)\))?", cell.replace(", 8 seeds", ""))
            assert 1 <= len(numbers) <= 2, cell
            for us, ratio in numbers:
                fits = [
                    measured
                    for each in WAYS[way]
                    if (measured := found.get((NETWORKS[network], each)))
                    and abs(float(measured["us_per_step"]) / float(us.replace(",", "")) - 1) < 0.006
                ]
                assert fits, f"{network}, {way}: {us}"
                if ratio:
                    assert float(ratio) == pytest.approx(float(fits[0]["ratio_to_plain"]), abs=0.06)


def test_what_is_said_of_a_sweep_is_what_was_measured():
    from lab.bench import sweep

    with open(ROOT / "results/reference/bench.csv", newline="") as file:
        found = {r["way"]: r for r in csv.DictReader(file) if r["benchmark"] == "sweep"}
    steps = sweep.EPOCHS * sweep.STEPS_PER_EPOCH
    seconds = {way: float(row["us_per_step"]) * steps / 1e6 for way, row in found.items()}
    ours, shell = (sweep.TRIALS * seconds[way] for way in ("lab_experiment", sweep.PLAIN))
    ratio = float(found["lab_experiment"]["ratio_to_plain"])
    page = " ".join(PAGES["docs/engine.md"].split())
    assert f"A sweep of {sweep.TRIALS} trials of {steps} steps takes {ours:.1f} s" in page
    assert f"takes {shell:.0f} s ({ratio:.1f} times as long)" in page
    assert f"{1 / seconds['runner_alone']:.0f} empty trials a second" in page
    assert f"on a Ray cluster of this machine {1 / seconds['runner_on_ray']:.0f}." in page

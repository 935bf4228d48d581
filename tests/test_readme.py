"""What the README shows, works as it stands there."""

import re
from pathlib import Path

import pytest

from lab import ledger, readme

ROOT = Path(__file__).resolve().parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


def test_the_new_experiment_runs_as_it_stands(project):
    (source,) = [block for block in BLOCKS if "EXPERIMENT" in block]
    project.experiment("momentum", source)
    done = project.run("momentum", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "O5" in done.stdout and "Momentum helps" in done.stdout
    assert len(list(project.results.rglob("seed-*.csv"))) == 4


@pytest.mark.both_backends
def test_the_callbacks_run_as_they_stand():
    import keras
    import numpy as np

    (source,) = [block for block in BLOCKS if "SharpnessProbe(" in block]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 4)).astype("float32")
    y = (x[:, :1] > 0).astype("float32")
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("sgd", "mse")
    scope = {"model": model, "x": x, "y": y, "x_probe": x, "y_probe": y}
    exec(source.replace("epochs=20", "epochs=10, verbose=0"), scope)
    assert len(scope["history"].history["sharpness/lambda_max"]) == 2
    inputs = x @ np.asarray(layers[0].kernel) + np.asarray(layers[0].bias)
    np.testing.assert_allclose(np.asarray(layers[1].moving_mean), inputs.mean(0), atol=1e-5)


def test_the_ledger_is_the_one_of_the_reference_results():
    text = (ROOT / "README.md").read_text("utf-8")
    shown = text.split(readme.START, 1)[1].split(readme.END, 1)[0].strip()
    assert shown == readme.grid(ROOT / readme.REFERENCE).strip()
    assert len(ledger.verdicts(ROOT / readme.REFERENCE)) > 0
    for figure in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (ROOT / figure).is_file(), figure


def test_commands_in_the_readme_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"make ([a-z]+)", text)) - {"and", "has"}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

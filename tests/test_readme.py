"""What the README shows, works as it stands there."""

import re
from pathlib import Path

import pytest

from lab.records import ledger
from lab.report import readme

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


@pytest.mark.both_backends
def test_the_learning_rate_callbacks_run_as_they_stand():
    import keras
    import numpy as np

    (source,) = [block for block in BLOCKS if "SnapshotEnsemble(" in block]
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 4)).astype("float32"), rng.integers(0, 3, 64)
    layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    scope = {"model": model, "x": x, "y": y}
    source = source.replace("epochs=20", "epochs=10, verbose=0").replace(
        "(x, y)", "(x, y, verbose=0)"
    )
    exec(source, scope)
    assert len(scope["snapshots"].snapshots) == 5 and scope["average"].steps == 20
    np.testing.assert_allclose(scope["snapshots"].predict(x).sum(-1), 1, atol=1e-5)


@pytest.mark.both_backends
@pytest.mark.parametrize("engine", ["fused", "stacked"])
def test_many_models_train_as_the_readme_has_it(engine, capsys):
    import keras
    import numpy as np
    from sklearn.datasets import load_digits

    if engine == "stacked" and keras.backend.backend() != "jax":
        pytest.skip("stacking needs JAX")
    (source,) = [block for block in BLOCKS if "set_random_seed" in block]
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    scope = {"keras": keras, "x": x[:1000], "y": y[:1000], "xv": x[1000:], "yv": y[1000:]}
    exec(
        source.replace("range(10)", "range(3)").replace("train(fits)", f"train(fits, {engine!r})"),
        scope,
    )
    found = [history.history["val_accuracy"][-1] for history in scope["histories"]]
    assert len(set(found)) == 3 and min(found) > 0.7
    assert str(np.round(found[0], 3))[:4] in capsys.readouterr().out


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
    targets = set(re.findall(r"(?:`|^)make ([a-z]+)", text, re.MULTILINE))
    assert {"experiment", "test", "bench", "report"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target

"""A whole sweep, ours against the shell loop of one Python process per run that most write."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lab.claims.discovery import ROOT
from lab.machine import devices

PLAIN = "shell_loop"
NAMES = {
    PLAIN: "one `python train.py` per run",
    "lab_experiment": "`make experiment`, fused",
    "runner_alone": "the runner alone: trials that do nothing",
    "runner_on_ray": "the runner alone, on a Ray cluster of this machine",
}
TRIALS, SHELL_RUNS, NOTHING = 40, 4, 1000
EPOCHS, STEPS_PER_EPOCH = 16, 32  # of 1,000 digits in batches of 32: 512 steps a trial

EXPERIMENT = f'''
"""Learning rates on digits: what the sweep benchmark runs."""
from lab import Claim, Contrast, Experiment, Fit

ARMS = {{f"rate_{{i}}": {{"rate": r}} for i, r in enumerate((0.003, 0.01, 0.03, 0.1))}}

def run(trial):
    import keras
    data = trial.data()
    model = trial.model(data)
    model.compile(keras.optimizers.SGD(trial.arm["rate"], momentum=0.9),
                  keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"])
    history = yield Fit(model, (data.train.x, data.train.y), batch_size=32, epochs={EPOCHS},
                        validation=(data.validation.x, data.validation.y))
    trial.record_history(history)
    trial.record(accuracy=history.history["val_accuracy"][-1])

CLAIMS = [Claim(id="B1", says="A larger rate is better", margin=0.01, unit="fraction",
                literature="none", contrast=Contrast("accuracy", {{"rate_2": 1, "rate_0": -1}}))]
EXPERIMENT = Experiment(title="Rates", source="none", arms=ARMS, claims=CLAIMS, run=run,
                        scales={{"smoke": {{"seeds": 10}}}})
'''

NOTHING_EXPERIMENT = '''
"""Trials that do nothing: what is left is the runner."""
from lab import Experiment

def run(trial):
    trial.record(score=trial.seed)

EXPERIMENT = Experiment(title="Nothing", source="none", arms={"only": {}}, claims=[], run=run,
                        model="none", scales={"smoke": {"seeds": 10}})
'''

# What most people write, with the same split sizes, network, steps and validation as above.
TRAIN = f"""
import argparse

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int)
parser.add_argument("--rate", type=float)
options = parser.parse_args()

import keras
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

keras.utils.set_random_seed(options.seed)
x, y = load_digits(return_X_y=True)
x, _, y, _ = train_test_split(x / 16, y, train_size=1297, random_state=options.seed)
model = keras.Sequential([
    keras.Input((64,)),
    keras.layers.Dense(128, activation="relu"),
    keras.layers.Dense(128, activation="relu"),
    keras.layers.Dense(10),
])
model.compile(keras.optimizers.SGD(options.rate, momentum=0.9),
              keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
history = model.fit(x[:1000], y[:1000], batch_size=32, epochs={EPOCHS},
                    validation_data=(x[1000:], y[1000:]), verbose=0)
print(history.history["val_accuracy"][-1])
"""


def measure(quick: bool, say=print) -> tuple[list[tuple[str, int, list[float]]], str]:
    """Time the sweep, the shell loop and the runner alone.

    The shell loop is a few runs, scaled: its runs have nothing in common. Microseconds per step are
    wall time per trial over the steps of a trial, importing and compiling included.

    Returns:
        `(way, threads, microseconds per step of every timing)`, and the numbers in words.
    """
    seeds = 1 if quick else TRIALS // 4
    few, many = (2, 12) if quick else (10, NOTHING)
    jobs = min(2, devices.cores())
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as temporary:
        folder = _project(Path(temporary) / "project")
        start, nothing = _nothing(folder, few, many, jobs, "local", say)
        on_ray = None
        if importlib.util.find_spec("ray"):
            on_ray = _nothing(folder, few, many, jobs, "ray", say)
        say(f"sweep: {4 * seeds} trials, ours")
        ours = _lab(folder, "bench_sweep", seeds, jobs)
        busy = _trained(folder / "results")
        shell = []
        for run in range(1 if quick else SHELL_RUNS):
            say(f"sweep: run {run + 1} of the shell loop")
            command = [sys.executable, "train.py", f"--seed={run}", "--rate=0.01"]
            shell.append(_timed(command, folder))
    trials = 4 * seeds
    unit = 1e6 / (EPOCHS * STEPS_PER_EPOCH)
    timings = [
        (PLAIN, jobs, [seconds * unit for seconds in shell]),
        ("lab_experiment", jobs, [ours / trials * unit]),
        ("runner_alone", jobs, [nothing * unit]),
    ]
    ray_too = ""
    if on_ray:
        timings.append(("runner_on_ray", jobs, [on_ray[1] * unit]))
        ray_too = (
            f" On Ray it does {1 / on_ray[1]:.0f} trials per second, "
            f"{1000 * (on_ray[1] - nothing):.1f} ms more a trial, and starts and ends "
            f"{on_ray[0] - few * on_ray[1] - (start - few * nothing):.1f} s later."
        )
    mean = sum(shell) / len(shell)
    return timings, (
        f"Sweep: {trials} trials of {EPOCHS * STEPS_PER_EPOCH} steps on {jobs} workers took "
        f"{ours:.1f} s, {busy / jobs:.1f} s of them inside trials. The shell loop takes "
        f"{mean:.2f} s a run ({len(shell)} measured), {mean * trials:.0f} s scaled to {trials}: "
        f"{mean * trials / ours:.1f} times as long. The runner alone does {1 / nothing:.0f} trials "
        f"per second, {100 * nothing * trials / ours:.2f} % of the sweep; starting and reporting "
        f"without Keras take {start - few * nothing:.1f} s.{ray_too}"
    )


def _project(folder: Path) -> Path:
    """A copy of our code with the experiments of this file, so that no real result is touched."""
    for name in ("lab", "models", "callbacks", "requirements"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    (folder / "experiments").mkdir()
    (folder / "experiments" / "bench_sweep.py").write_text(EXPERIMENT, "utf-8")
    (folder / "experiments" / "bench_nothing.py").write_text(NOTHING_EXPERIMENT, "utf-8")
    (folder / "train.py").write_text(TRAIN, "utf-8")
    return folder


def _nothing(
    folder: Path, few: int, many: int, jobs: int, launcher: str, say
) -> tuple[float, float]:
    """Seconds of a run of few trials that do nothing, and of one trial more."""
    say(f"sweep: {many} trials that do nothing, launcher {launcher}")
    words = ("bench_nothing", few, jobs, launcher)
    start = min(_lab(folder, *words), _lab(folder, *words))  # the first also compiles our files
    # What starting and reporting take is in both; the difference is the trials.
    seconds = _lab(folder, "bench_nothing", many, jobs, launcher)
    return start, (seconds - start) / (many - few)


def _lab(folder: Path, name: str, seeds: int, jobs: int, launcher: str = "local") -> float:
    shutil.rmtree(folder / "results" / name, ignore_errors=True)
    options = {"name": name, "scale": "smoke", "seeds": seeds, "jobs": jobs, "engine": "fused"}
    options["launcher"] = launcher
    words = [f"--{key}={value}" for key, value in options.items()]
    return _timed([sys.executable, "-m", "lab", "experiment", *words], folder)


def _timed(command: list[str], folder: Path) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} failed in the benchmark:\n{done.stdout}{done.stderr}")
    return time.perf_counter() - started


def _trained(results: Path) -> float:
    """Seconds inside trials, as the manifests have it."""
    texts = (path.read_text("utf-8") for path in results.glob("bench_sweep/*/*/seed-*.json"))
    return sum(float(found[1]) for t in texts if (found := re.search(r'"seconds": ([\d.]+)', t)))

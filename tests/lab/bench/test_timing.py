import csv
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from lab.bench import cases, reporting, sweep, timing, ways
from lab.bench.cases import BENCHMARKS
from lab.claims.discovery import ROOT
from lab.engines.fit import Fit
from lab.engines.training import train


class Recorder:
    """A gate that is always open, and remembers what every epoch came to."""

    def __init__(self):
        self.epochs = []

    def begin(self):
        pass

    def end(self, loss, accuracy):
        self.epochs.append((float(loss), float(accuracy)))


@pytest.mark.slow
def test_quick_run_of_the_tiny_benchmark_times_every_way(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lab.bench", "--quick", "--only=tiny", f"--results={tmp_path}"],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "bench.csv", newline="") as file:
        table = csv.DictReader(file)
        rows = list(table)
    columns = "benchmark,way,threads,us_per_step,low,high,ratio_to_plain"
    assert ",".join(table.fieldnames or ()) == columns
    torch = importlib.util.find_spec("torch") is not None
    gpu = shutil.which("nvidia-smi") is not None
    assert [row["way"] for row in rows] == ways.ways(BENCHMARKS["tiny"], torch, gpu)
    plain = float(rows[0]["us_per_step"])
    for row in rows:
        assert (row["benchmark"], row["threads"]) == ("tiny", "1")
        us, low, high, ratio = (float(row[c]) for c in timing.COLUMNS[3:])
        assert 0 < low <= us <= high
        assert ratio == pytest.approx(plain / us, rel=1e-3)
        assert reporting.label(row["way"]) in done.stdout
    # Written atomically: nothing half-written is left beside them.
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert found == {"bench.csv", "figures/bench.svg", ".lock"}


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    (tmp_path / "bench.csv").write_text("old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="cannot write"):
        timing.write(tmp_path, timing.rows([timing.Timing("tiny", "plain_fit", 1, [1.0])]))
    assert {p.name for p in tmp_path.iterdir()} == {"bench.csv", ".lock"}
    assert (tmp_path / "bench.csv").read_text() == "old"


@pytest.mark.parametrize("options", [{}, {"model": "convnet", "options": {"widths": (4,)}}])
def test_the_hand_written_loop_computes_what_plain_training_does(options):
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the loop is written in TensorFlow")
    more = {"shape": (8, 8, 1)} | options
    if options:
        more["options"] = options["options"] | {"normalization": "batch"}
    benchmark = dataclasses.replace(BENCHMARKS["tiny"], **more)
    written = Recorder()
    ways.hand_written(benchmark, 2, written)
    model = cases.compiled(benchmark)
    history = train(
        Fit(model, cases.data(benchmark), benchmark.batch_size, epochs=2, seed=0), "plain"
    ).history
    # Float32 sums in another order.
    np.testing.assert_allclose([loss for loss, _ in written.epochs], history["loss"], rtol=1e-4)
    np.testing.assert_allclose([a for _, a in written.epochs], history["accuracy"], atol=1e-6)


def test_pytorch_trains_networks_of_the_same_size():
    torch = pytest.importorskip("torch")
    from lab.bench import pytorch

    for name, benchmark in BENCHMARKS.items():
        ours = cases.compiled(benchmark)
        theirs = pytorch.NETWORKS[benchmark.model](torch.nn, benchmark)
        trained = sum(p.numel() for p in theirs.parameters())
        assert trained == sum(int(np.prod(w.shape)) for w in ours.trainable_variables), name
        x = torch.zeros(2, *np.roll(benchmark.shape, 1).tolist())
        assert theirs(x).shape == (2, cases.CLASSES)


def test_a_gate_times_the_first_epoch_alone_then_shares_after_an_untimed_one():
    told, waited = [], []
    gate = ways.Gate(2, lambda: waited.append(len(told)), told.append)
    for epoch in range(7):
        gate.begin()
        gate.end(loss=epoch, accuracy=0)
    assert [answer["loss"] for answer in told] == [0, 3, 6]
    assert waited == [1, 2]
    assert all(answer["seconds"] >= 0 for answer in told)


def test_rows_have_medians_quartiles_and_ratios_of_the_same_benchmark_and_threads():
    found = timing.rows(
        [
            timing.Timing("a", "plain_fit", 1, [10, 20, 30, 40, 50]),
            timing.Timing("a", "fused_tensorflow", 1, [5, 6, 7]),
            timing.Timing("a", "fused_tensorflow", 2, [5, 6, 7]),
            timing.Timing("sweep", "shell_loop", 2, [12.0]),
            timing.Timing("sweep", "lab_experiment", 2, [4.0]),
        ]
    )
    assert [tuple(row.values())[3:] for row in found] == [
        ("30", "20", "40", "1"),
        ("6", "5.5", "6.5", "5"),
        ("6", "5.5", "6.5", "nan"),
        ("12", "12", "12", "1"),
        ("4", "4", "4", "3"),
    ]


def test_a_way_that_fails_is_named_with_what_it_said(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    timings, problems = timing.measure("tiny", 1, ["plain_fit"], 1, say=lambda _: None)
    assert timings == []
    assert problems[0].startswith("tiny, plain_fit, 1 threads: no answer.")


@pytest.mark.slow
def test_the_sweep_of_the_benchmark_trains_what_the_script_trains(tmp_path):
    folder = sweep._project(tmp_path / "project")
    sweep._lab(folder, "bench_sweep", 1, 2)
    manifests = [json.loads(p.read_text()) for p in folder.glob("results/bench_sweep/*/*/*.json")]
    assert [m["status"] for m in manifests] == ["done"] * 4
    assert sweep._trained(folder / "results") == sum(m["seconds"] for m in manifests)
    done = subprocess.run(
        [sys.executable, "train.py", "--seed=0", "--rate=0.1"],
        cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert float(done.stdout) > 0.9, done.stderr
    rows = next(folder.glob("results/bench_sweep/*/rate_3/seed-0.csv")).read_text()
    accuracy = next(line for line in rows.splitlines() if ",,accuracy," in line)
    assert float(accuracy.rsplit(",", 1)[1]) > 0.9

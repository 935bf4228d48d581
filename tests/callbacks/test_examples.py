"""Every public example runs where there is nothing of ours but the folder `callbacks`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.both_backends

SCRIPT = """
import doctest, sys
import callbacks

parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
for name in callbacks.__all__:
    thing = getattr(callbacks, name)  # what a script has after `from callbacks import name`
    example = parser.get_doctest(thing.__doc__, {name: thing}, name, None, None)
    assert example.examples, f"{name} has no example"
    runner.run(example)
assert not {"lab", "models", "experiments"} & set(sys.modules)
assert runner.summarize(verbose=False).failed == 0
print(runner.tries)
"""


def test_examples_run_as_scripts_that_import_keras_and_callbacks_alone(tmp_path):
    folder = Path(__file__).resolve().parents[2] / "callbacks"
    shutil.copytree(folder, tmp_path / "callbacks")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) > 50

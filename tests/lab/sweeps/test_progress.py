"""The live panel: what is there of every arm, and never more lines than the terminal has."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from lab.claims.vocabulary import Claim, Contrast, Experiment
from lab.records import store
from lab.sweeps.plan import Planned
from lab.sweeps.progress import Progress
from lab.sweeps.worker import Outcome
from tests.toy_report import SETTING

METRIC = "a_metric_with_a_name_of_many_words_that_nobody_would_like_to_read"


def shown(tmp_path, arms, width=80, height=24, claims=1, seeds=3):
    """A panel after: seed 0 of each arm was cached, seed 1 of the first two ended, one failed."""
    contrast = Contrast(METRIC, {arms[0]: 1, arms[1]: -1})
    unit = "points of a unit that is as long as units never should be"
    claims = [Claim(f"A{i}", "s " * 99, contrast, 0.1, unit, "l") for i in range(claims)]
    experiment = Experiment(
        title="t", source="s", arms={arm: {} for arm in arms}, scales={"quick": {"seeds": seeds}},
        run=lambda trial: None, claims=claims,
    )  # fmt: skip
    order = SimpleNamespace(
        **{"name": "toy", "experiment": experiment, "setting": SETTING},
        **{"results": tmp_path, "jobs": 2},
    )
    keys = [store.Key("toy", SETTING, arm, seed) for seed in range(seeds) for arm in arms]
    plan = [Planned(key, "missing" if key.seed else "cached", "", {}) for key in keys]
    progress = Progress(order, plan)
    text = io.StringIO()
    progress.console = Console(
        file=text, width=width, height=height, force_terminal=True, color_system=None
    )
    progress._live = object()
    for arm in arms[:2]:
        key = store.Key("toy", SETTING, arm, 1)
        done = Outcome("done", rows=[(None, METRIC, len(arm))], seconds=30.0)
        progress.finished(key, done, tmp_path)
    failed = Outcome("failed", error="no", seconds=30.0)
    progress.finished(store.Key("toy", SETTING, arms[0], 2), failed, tmp_path)
    text.truncate(0), text.seek(0)
    progress.console.print(progress._panel())
    return text.getvalue()


def test_every_arm_is_shown_with_what_is_there_of_it(tmp_path):
    panel = shown(tmp_path, ["long_name", "b", "c"])
    told = " ".join(panel.split())
    for arm, count in (("long_name", "2/3"), ("b", "2/3"), ("c", "1/3")):
        assert told.split(f"{arm} ", 1)[1].split()[1] == count
    assert "3/6 trials" in panel and "1 failed" in panel
    assert "about 45 s left" in panel  # three of 30 s for two workers, whatever imports took
    assert "interim, not a verdict" in panel
    assert panel.rstrip().splitlines()[-1].split()[2] == "8"  # 9 letters less 1


@pytest.mark.parametrize("arms, claims", [(3, 1), (12, 4), (40, 9), (3, 12)])
def test_it_fits_an_ordinary_terminal(tmp_path, arms, claims):
    panel = shown(tmp_path, [f"arm_with_a_name_{i}" for i in range(arms)], claims=claims)
    lines = panel.rstrip("\n").split("\n")
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    assert [line.split()[0] for line in lines[-claims:]] == [f"A{i}" for i in range(claims)]
    assert {line.split()[-1] for line in lines[-claims:]} == {"1"}  # seed
    if arms == 40:
        assert "arms: 0 done, 40 begun, 0 waiting" in panel

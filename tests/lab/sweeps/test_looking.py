"""UNTIL=decided: look after look, only what open claims need, and what the next look would cost."""

from collections import Counter

import pytest

TOY = '''
"""A toy with three looks: one claim is clear at the first, one at the second, one never."""
from lab import Claim, Contrast, Experiment

ARMS = {"base": {"of": 0.0}, "clear": {"of": 5.0}, "slow": {"of": 0.6}, "never": {"of": 0.3}}
SCALES = {"smoke": {"seeds": 4}, "quick": {"seeds": 9}}

def run(trial):
    # Alternating, so that means are the arm's at every look and spreads are known.
    spread = {"base": 0.0, "clear": 0.1, "slow": 0.3, "never": 0.9}[trial.arm_name]
    trial.record(score=trial.arm["of"] + spread * (-1) ** trial.seed)

CLAIMS = [
    Claim(id=arm, says=f"{arm} is more", contrast=Contrast("score", {arm: 1, "base": -1}),
          margin=0.3, unit="score", literature="none")
    for arm in ("clear", "slow", "never")
]
EXPERIMENT = Experiment(title="Looks", source="none", arms=ARMS, scales=SCALES, claims=CLAIMS,
                        run=run, model="none", looks=(4, 8, 16))
'''


@pytest.fixture
def looks(project):
    project.experiment("looks", TOY)
    return project


def trials(project):
    """The number of trials of each arm."""
    return Counter(p.parent.name for p in project.results.rglob("seed-*.csv"))


def verdicts(project):
    """Verdict and n of each claim."""
    import pandas as pd

    rows = pd.read_csv(project.results / "verdicts.csv")
    return {row.claim: (row.verdict, row.n) for row in rows.itertuples()}


def test_only_what_open_claims_need_is_run_until_they_are_decided(looks):
    first = looks.run("looks")
    assert first.returncode == 0, first.stderr
    go_on = "make experiment NAME=looks SCALE=smoke UNTIL=decided"
    assert f"Open: slow, never. On to more seeds, at declared looks: {go_on}\n" in first.stdout
    assert verdicts(looks) == dict(
        clear=("supported", 4), slow=("inconclusive", 4), never=("inconclusive", 4)
    )
    dry = looks.run("looks", "--until", "decided", "--dry", "1")
    assert "The next look, after 8 seeds: 12 trials of 3 arms, about" in dry.stdout
    assert "slow score: 0.6" in dry.stdout and "clear score" not in dry.stdout
    assert trials(looks) == {"base": 4, "clear": 4, "slow": 4, "never": 4}
    done = looks.run("looks", "--until", "decided")
    assert done.returncode == 0, done.stderr
    assert verdicts(looks) == dict(
        clear=("supported", 4), slow=("supported", 8), never=("inconclusive", 16)
    )
    assert trials(looks) == {"base": 16, "clear": 4, "slow": 8, "never": 16}
    assert "look 2 of 3" in done.stdout and "Open:" not in done.stdout
    again = looks.run("looks", "--until", "decided")
    assert "Nothing to do" in again.stdout
    assert trials(looks) == {"base": 16, "clear": 4, "slow": 8, "never": 16}
    over = looks.run("looks", "--until", "decided", "--dry", "1")
    assert "Nothing is open" in over.stdout
    report = (looks.results / "REPORT.md").read_text()
    assert "UNTIL=decided" in report  # the command that gives the same again


def test_what_an_earlier_look_has_left_is_run_again_if_it_is_stale(looks):
    looks.run("looks", "--until", "decided")
    changed = TOY.replace("trial.record(", "trial.record(other=1.0, ")
    looks.experiment("looks", changed)
    done = looks.run("looks", "--until", "decided")
    assert "44 stale" in done.stdout
    assert verdicts(looks)["slow"] == ("supported", 8)


def test_seeds_that_were_seen_before_have_a_look_of_their_own(looks):
    seen = TOY.replace("looks=(4, 8, 16)", 'looks=(9, 18, 36), seen={"digits": 9}')
    looks.experiment("looks", seen)
    words = ("experiment", "--name", "looks", "--jobs", "2")
    assert looks.lab(*words).returncode == 0
    assert verdicts(looks)["never"] == ("inconclusive", 9)
    done = looks.lab(*words, "--until", "decided")
    assert done.returncode == 0, done.stderr
    found = verdicts(looks)
    assert found["clear"] == ("supported", 9) and found["never"] == ("inconclusive", 36)
    assert trials(looks)["never"] == 9 + 36
    assert "from seed 9 on; the first 9, seen before" in (looks.results / "REPORT.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--until", "done"], "UNTIL"),
        (["--until", "decided", "--seeds", "6"], "looks at 4, 8, 16 seeds, as looks declares"),
    ],
)
def test_what_cannot_be_is_one_sentence(looks, words, sentence):
    refused = looks.run("looks", *words)
    assert refused.returncode == 2 and sentence in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_looks_that_do_not_grow_are_named_with_the_file(looks):
    looks.experiment("looks", TOY.replace("looks=(4, 8, 16)", "looks=(8, 4)"))
    refused = looks.run("looks")
    assert (
        refused.returncode == 2 and "`looks` must be numbers of seeds that grow" in refused.stderr
    )

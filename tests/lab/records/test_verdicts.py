"""From measurements to verdicts: gates, missing seeds, diverged trials, looks, Holm."""

import numpy as np
import pytest

from lab.claims.vocabulary import Claim, Contrast, Experiment, Gate, Setting
from lab.records.measured import Measured
from lab.records.verdicts import judge_all

SETTING = Setting("quick", "digits", "mlp", "tensorflow")
LARGER = Contrast("m", {"large": 1, "small": -1})


def experiment(*claims, seeds=10):
    return Experiment(
        title="t",
        source="s",
        arms={"small": {}, "large": {}, "other": {}},
        scales={"quick": {"seeds": seeds}},
        claims=claims,
        run=lambda trial: None,
    )


def claim(id="A", contrast=LARGER, margin=0.5, **more):
    return Claim(id, "says", contrast, margin, "u", "none", **more)


def measured(shift=1.0, seeds=10, declared=10, spread=0.2, manifest=None):
    rng = np.random.default_rng(0)
    all_of_it = Measured("toy", SETTING)
    for seed in range(seeds):
        for arm, mean in (("small", 0.0), ("large", shift), ("other", 0.0)):
            rows = [(None, "m", mean + rng.normal(0, spread)), (1, "m", 9.0)]
            told = {"declared_seeds": declared, "described": {"versions": 1}, "device": "CPU"}
            all_of_it.add(arm, seed, rows, told | (manifest or {}))
    return all_of_it


def words(verdicts):
    return [v.judgement.verdict for v in verdicts]


def test_a_planted_effect_is_supported_and_its_reverse_refuted():
    reverse = Contrast("m", {"large": -1, "small": 1})
    verdicts = judge_all("toy", experiment(claim("A"), claim("B", reverse)), measured())
    assert words(verdicts) == ["supported", "refuted"]
    assert verdicts[0].judgement.effect == pytest.approx(1.0, abs=0.2)
    assert verdicts[1].judgement.reason.startswith("reversed")


def test_the_interval_excludes_zero_exactly_when_adjusted_p_is_below_alpha():
    contrasts = [Contrast("m", {"large": 1, "small": -1}), Contrast("m", {"other": 1, "small": -1})]
    for shift in (0.0, 0.1, 0.2, 0.3):
        claims = [claim(str(i), c) for i, c in enumerate(contrasts * 2)]
        claims = [claim(str(i), c.contrast) for i, c in enumerate(claims)]
        for v in judge_all("toy", experiment(*claims), measured(shift)):
            excludes = v.judgement.low > 0 or v.judgement.high < 0
            assert excludes == (v.p < 0.05)


def test_a_failed_gate_makes_it_invalid_and_keeps_the_effect():
    gate = Gate("levels match", LARGER, -0.1, 0.1)
    (verdict,) = judge_all("toy", experiment(claim(gates=[gate])), measured())
    assert verdict.judgement.verdict == "invalid"
    assert "levels match" in verdict.judgement.reason
    assert verdict.judgement.effect == pytest.approx(1.0, abs=0.2)
    assert verdict.gates == (("levels match", False),)


def test_fewer_seeds_than_declared_are_incomplete():
    (verdict,) = judge_all("toy", experiment(claim()), measured(seeds=9))
    assert verdict.judgement.verdict == "incomplete"
    assert verdict.judgement.reason == "9 of 10 seeds"


def test_asking_for_fewer_seeds_does_not_make_few_enough():
    (verdict,) = judge_all("toy", experiment(claim()), measured(seeds=3, declared=3))
    assert verdict.judgement.verdict == "incomplete"


def test_more_seeds_were_asked_for_and_did_not_all_come():
    (verdict,) = judge_all("toy", experiment(claim()), measured(seeds=12, declared=20))
    assert verdict.judgement.verdict == "incomplete"


def test_a_second_look_at_more_seeds_costs_its_share_of_alpha():
    one = measured(seeds=20, declared=20)
    two = measured(seeds=20, declared=20)
    for (_, seed), manifest in two.manifests.items():
        manifest["declared_seeds"] = 10 if seed < 10 else 20
    (first,) = judge_all("toy", experiment(claim()), one)
    (second,) = judge_all("toy", experiment(claim()), two)
    assert (first.level, second.level) == (0.05, 0.025)
    assert second.judgement.low < first.judgement.low


@pytest.mark.parametrize(
    ("arm", "word"), [("small", "invalid"), ("large", "invalid"), ("other", "supported")]
)
def test_a_diverged_trial_counts_where_its_arm_is_used(arm, word):
    data = measured()
    data.add(arm, 4, [(None, "diverged", 1.0)], data.manifests[arm, 4] | {"status": "diverged"})
    (verdict,) = judge_all("toy", experiment(claim()), data)
    assert verdict.judgement.verdict == word
    if word == "invalid":
        assert f"diverged in {arm}" in verdict.judgement.reason


def test_a_metric_that_is_nan_is_invalid_and_not_dropped():
    data = measured()
    data.values[3]["small", "m"] = float("nan")
    (verdict,) = judge_all("toy", experiment(claim()), data)
    assert verdict.judgement.verdict == "invalid" and verdict.judgement.n == 10


@pytest.mark.parametrize("part", ["device", "described"])
def test_trials_of_different_machines_or_sources_are_never_mixed(part):
    data = measured()
    data.manifests["large", 0][part] = {"versions": 2} if part == "described" else "GPU"
    (verdict,) = judge_all("toy", experiment(claim()), data)
    assert verdict.judgement.verdict == "invalid" and "mixed" in verdict.judgement.reason


def test_nothing_measured_is_incomplete():
    (verdict,) = judge_all("toy", experiment(claim()), Measured("toy", SETTING))
    assert verdict.judgement.verdict == "incomplete" and verdict.judgement.n == 0


def test_the_naive_figure_stands_beside_it_unjudged():
    naive = Contrast("m", {"large": 1, "other": -1})
    (verdict,) = judge_all("toy", experiment(claim(beside={"naive": naive})), measured())
    values = measured().per_seed(naive)
    assert verdict.beside["naive"].effect == pytest.approx(np.mean(list(values.values())))


def test_the_first_claim_of_an_id_is_primary_and_the_others_wait_for_it():
    reverse = Contrast("m", {"large": -1, "small": 1})
    claims = [
        claim("A", reverse, under="first"),
        claim("A", under="second"),
        claim("B", under="first"),
        claim("B", under="second"),
    ]
    found = judge_all("toy", experiment(*claims), measured())
    assert words(found) == ["refuted", "untested", "supported", "supported"]
    assert [v.primary for v in found] == [True, False, True, False]
    assert found[3].level == found[2].level
    assert "not tested" in found[1].judgement.reason and np.isnan(found[1].p)


def test_looks_are_declared_and_the_number_of_the_one_that_decided_is_told():
    (verdict,) = judge_all("toy", experiment(claim()), measured())
    assert verdict.level == pytest.approx(0.05 / 3)
    assert verdict.looked.number == 1 and verdict.looked.closed
    assert "look 1 of 3" in verdict.judgement.reason
    (open_one,) = judge_all("toy", experiment(claim()), measured(0.5, spread=1.0))
    assert open_one.looked.next == 20
    assert "seeds would decide" in open_one.judgement.reason
    assert "next look after 20 seeds" in open_one.judgement.reason


def test_a_trial_that_diverged_after_the_deciding_look_changes_nothing():
    data = measured(seeds=20)
    data.add("large", 15, [(None, "diverged", 1.0)], {"status": "diverged", "declared_seeds": 10})
    data.manifests["large", 15] = data.manifests["large", 0] | {"status": "diverged"}
    (verdict,) = judge_all("toy", experiment(claim()), data)
    assert verdict.judgement.verdict == "supported" and verdict.judgement.n == 10


def test_a_diverged_trial_without_rows_is_no_missing_seed():
    data = measured()
    data.values[4].pop(("large", "m"))
    data.add(
        "large", 4, [(None, "diverged", 1.0)], data.manifests["large", 4] | {"status": "diverged"}
    )
    (verdict,) = judge_all("toy", experiment(claim()), data)
    assert verdict.judgement.verdict == "invalid" and "diverged" in verdict.judgement.reason


def test_what_the_finite_test_set_explains_is_told_where_its_size_is_known():
    accuracy = Contrast("test_accuracy", {"large": 1, "small": -1})
    data = measured()
    rng = np.random.default_rng(0)
    for seed, values in data.values.items():
        for arm in ("small", "large"):
            values[arm, "test_accuracy"] = rng.binomial(500, 0.9) / 500
            data.manifests[arm, seed]["examples"] = [{"data": "d", "test": 500}]
    (verdict,) = judge_all("toy", experiment(claim("A", accuracy)), data)
    assert 0.4 < verdict.test_share <= 1.0
    data.manifests["small", 3]["examples"] = "nonsense"
    (verdict,) = judge_all("toy", experiment(claim("A", accuracy)), data)
    assert np.isnan(verdict.test_share)

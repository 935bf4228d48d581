"""Gates hold and fail where they should."""

import pytest

from lab.claims.gates import at_target

ARMS = ("none", "dropout")


def failures(**metrics):
    """The gates that fail for one seed's metrics, each an arm's in the order of ARMS."""
    sound = {"reached": (1, 1), "matched_train_loss": (0.1, 0.1), "tuned_at_edge": (0, 0)}
    values = {
        (arm, metric): value
        for metric, both in (sound | metrics).items()
        for arm, value in zip(ARMS, both, strict=True)
    }
    return [gate.says for gate in at_target(*ARMS) if gate.failure([gate.of.value(values)])]


def test_a_comparison_at_a_target_needs_all_arms_there_at_one_loss_and_tuned():
    assert failures() == []
    assert failures(matched_train_loss=(0.1, 0.14)) == []


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ({"reached": (0, 1)}, "came down"),
        ({"reached": (1, 0.94)}, "came down"),
        ({"matched_train_loss": (0.1, 0.16)}, "losses match"),
        ({"matched_train_loss": (0.16, 0.1)}, "losses match"),
        ({"tuned_at_edge": (1, 0)}, "edge (none)"),
        ({"tuned_at_edge": (0, 1)}, "edge (dropout)"),
    ],
)
def test_what_spoils_it_is_told(metrics, says):
    (failed,) = failures(**metrics)
    assert says in failed

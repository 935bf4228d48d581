"""Gates that many experiments need."""

from lab.claims.contrasts import difference, ratio, recorded
from lab.claims.vocabulary import Contrast, Gate

MATCH = 0.405  # the logarithm of 1.5


def leaves_room(arm: str, most: float = 0.96, metric: str = "test_accuracy") -> Gate:
    """The baseline is off its ceiling, so that an effect can show.

    >>> leaves_room("plain").failure([0.99, 0.97]).split(" (")[0]
    'gate failed: plain leaves room: test_accuracy at most 0.96'
    """
    return Gate(f"{arm} leaves room: {metric} at most {most:g}", recorded(metric, arm), high=most)


def losses_match(of: str, to: str, metric: str = "train_loss", told: str = "") -> Gate:
    """Training losses of two arms are alike, so that neither is just further on (trap 5).

    Args:
        of: One arm.
        to: The other.
        metric: Name of the loss: plain cross-entropy in inference mode.
        told: What is added to the sentence, where a claim has several.

    >>> losses_match("large", "small").failure([0.5, 0.7]).split(" (")[0]
    'gate failed: training losses match within a factor of 1.5'
    """
    says = "training losses match within a factor of 1.5"
    return Gate(f"{says} ({told})" if told else says, ratio(metric, of, to), -MATCH, MATCH)


def tuned(of: str, base: str, *, room: float = 0.96, metric: str = "test_accuracy") -> list[Gate]:
    """What follows from tuning both arms: the base leaves room, no range of rates was too narrow.

    Args:
        of: The arm that a claim is about.
        base: The arm it is compared with.
        room: The most that the base may have reached.
        metric: What it has reached it in.
    """
    return [leaves_room(base, room, metric), *not_at_edge(of, base)]


def at_target(*arms: str) -> list[Gate]:
    """Tuned arms can be compared at a matched training loss: they reached it, each well tuned.

    Args:
        *arms: All arms of the comparison; losses must match that of the first. Each has recorded
            `reached` and `matched_train_loss`, as `lab.matched` gives them.

    >>> for gate in at_target("plain", "dropout")[:2]:
    ...     print(gate.says)
    all trainings, to one in 50, came down to the target
    training losses match within a factor of 1.5 (dropout)
    """
    reached = Contrast("reached", dict.fromkeys(arms, 1 / len(arms)))
    return [
        Gate("all trainings, to one in 50, came down to the target", reached, low=0.98 - 1e-9),
        *(losses_match(arm, arms[0], "matched_train_loss", told=arm) for arm in arms[1:]),
        *not_at_edge(*arms),
    ]


def not_at_edge(*arms: str, metric: str = "tuned_at_edge") -> list[Gate]:
    """The range that was tuned over was wide enough: at most half of the seeds chose its edge."""
    return [
        Gate(
            f"at most half of the seeds chose a rate at the edge ({arm})",
            recorded(metric, arm),
            high=0.5,
        )
        for arm in arms
    ]


def as_many_steps(of: str, to: str) -> Gate:
    """Two arms had equal budgets: their `steps` (updates of all their runs) are the same number.

    >>> as_many_steps("five_short", "one_long").failure([200.0]).split(" (mean")[0]
    'gate failed: as many steps (five_short, one_long)'
    """
    return Gate(f"as many steps ({of}, {to})", difference("steps", of, to), 0, 0)


def learned(arm: str, least: float, what: str = "source") -> Gate:
    """What an arm builds on (a pretraining, a teacher) was learned: there was something to gain.

    Args:
        arm: It has recorded the accuracy of it, as `source_accuracy` if that is what it is called.
        least: The least mean accuracy.
        what: What it is called.

    >>> learned("fine_tuned", 0.7).failure([0.5, 0.6]).split(" (")[0]
    'gate failed: the source was learned'
    """
    says = f"the {what} was learned ({arm}): accuracy at least {least:g}"
    return Gate(says, recorded(f"{what}_accuracy", arm), low=least)

"""Gates that many experiments need."""

from lab.claims.contrasts import recorded
from lab.claims.vocabulary import Gate


def leaves_room(arm: str, most: float = 0.96, metric: str = "test_accuracy") -> Gate:
    """The baseline is off its ceiling, so that an effect can show.

    >>> leaves_room("plain").failure([0.99, 0.97]).split(" (")[0]
    'gate failed: plain leaves room: test_accuracy at most 0.96'
    """
    return Gate(f"{arm} leaves room: {metric} at most {most:g}", recorded(metric, arm), high=most)


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

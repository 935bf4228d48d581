"""Numbers and verdicts as people read them: terminal, Markdown and figures say the same."""

import math

from lab.claims.stats import Judgement
from lab.claims.vocabulary import Claim, Setting

# Shape as well as colour: a verdict must survive grey printing and colour blindness.
SHAPES = {
    "supported": "✔",
    "refuted": "✘",
    "inconclusive": "?",
    "invalid": "!",
    "incomplete": "…",
    "untested": "·",
}
COLOURS = {
    "supported": "green",
    "refuted": "red",
    "inconclusive": "yellow",
    "invalid": "magenta",
    "incomplete": "bright_black",
    "untested": "bright_black",
}


def number(value: float) -> str:
    """Three significant digits, with a real minus sign.

    >>> number(-0.012345), number(1234.5), number(float("nan"))
    ('−0.0123', '1,234', '–')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-4:
        text = f"{value:.2e}"
    elif size >= 100:
        text = f"{value:,.0f}"
    else:
        text = f"{value:.3g}"
    return text.replace("-", "−")


def quantity(claim: Claim, value: float) -> str:
    """A contrast's value in the claim's unit: a factor for log ratios, points for accuracies."""
    if claim.unit == "ratio":
        return f"×{number(math.exp(value))}" if value < 700 else "×∞"
    return number(value * claim.scale_by)


def effect(claim: Claim, judged: Judgement) -> str:
    """Effect with its interval: "×1.42 [×1.18, ×1.71]" or "0.4 [−0.1, 0.9] points"."""
    text = quantity(claim, judged.effect)
    if not math.isnan(judged.low):
        text += f" [{quantity(claim, judged.low)}, {quantity(claim, judged.high)}]"
    return text if claim.unit == "ratio" else f"{text} {claim.unit}"


def setting(where: Setting) -> str:
    """Data and model, then how they were run: "digits, mlp (quick, tensorflow)"."""
    return f"{where.data}, {where.model} ({where.scale}, {where.backend})"


def verdict(word: str) -> str:
    """The word with its shape."""
    return f"{SHAPES[word]} {word}"


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(7.2), duration(75), duration(7322)
    ('7 s', '1:15 min', '2:02 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"


def clean(text: str) -> str:
    """Text from files or errors without control characters, for a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)

"""Text from files made harmless where it is shown: Markdown, spreadsheets, LaTeX."""

import re

from markupsafe import Markup, escape

# `$` begins a formula on code hosts and `~~` strikes out; a `_` inside a word does nothing.
MARKDOWN = re.compile(r"[|`*\[\]$~\\]|(?<![^\W_])_|_(?![^\W_])")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # a spreadsheet computes what begins with these
SIGNS = str.maketrans(  # what pandas leaves, and pdflatex cannot set or takes for an argument
    {
        "[": "{[}",  # behind `\\\\` it would be the length of a gap
        "*": "{*}",
        "−": "$-$",
        "×": r"$\times$",
        "±": r"$\pm$",
        "∞": r"$\infty$",
        "–": "--",
        "…": r"\ldots{}",
        "✔": r"$\surd$",
        "✘": r"$\times$",
    }
)


def markdown(value) -> Markup:
    """One line that says what `value` says, in a Markdown table and in the HTML made of it.

    >>> print(markdown("a|b <i> *x* test_accuracy"))
    a&#124;b &lt;i&gt; &#42;x&#42; test_accuracy
    """
    if isinstance(value, Markup):
        return value
    line = str(escape(" ".join(str(value).split())))
    return Markup(MARKDOWN.sub(lambda found: f"&#{ord(found[0])};", line))


def spreadsheet(text: str) -> str:
    """Text that no spreadsheet takes for a formula.

    >>> spreadsheet("=HYPERLINK(1)"), spreadsheet("accuracy")
    ("'=HYPERLINK(1)", 'accuracy')
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def as_written(cell: str) -> str:
    """The text that `spreadsheet` was given."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def line(text: str) -> str:
    r"""Text on one line, without control characters.

    >>> line("two\nlines")
    'two lines'
    """
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def latex(made: str) -> str:
    r"""What pandas made of text, with signs that every LaTeX can set.

    >>> print(latex("×2 [−1, 3]"))
    $\times$2 {[}$-$1, 3]
    """
    return made.translate(SIGNS)

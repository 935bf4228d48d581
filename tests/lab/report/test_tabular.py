"""A table says the same in every form, and its text is text in each of them."""

import csv
import io

import pytest

from lab.records import inert
from lab.report.tabular import Quantity, Table

NASTY = "<script>alert(1)</script> | `x` $x$ 50% a_b \\input{/etc/passwd} [l](javascript:1)\n* b"
FORMULAS = ["=HYPERLINK(1)", "+1", "-1", "@x", "\t=1"]


def table(*cells):
    return Table("t", "A \\input{caption}\nof two lines", ("arm", "value"), [cells])


def rows(text):
    return list(csv.reader(io.StringIO(text)))


def test_nothing_in_a_cell_is_live_in_markdown():
    text = table(NASTY, 1.5).markdown()
    assert text.count("\n") == 3 and text.count("|") == 9
    for live in ("<script", "`", "$", "\\", "[l]", "*"):
        assert live not in text
    assert "a_b" in text  # a name stays legible
    assert "&#95;b&#95;" in inert.markdown("_b_")


def test_nothing_in_a_cell_is_live_in_latex():
    text = table(NASTY, -1.5).latex()
    comment, body = text.split("\n", 1)
    assert comment.startswith("% ") and "of two lines" in comment
    assert "\\input" not in body and "input\\{/etc/passwd\\}" in body
    assert "\\$x\\$" in body and "50\\%" in body and "a\\_b" in body and "{[}l" in body
    assert "$-$1.5 \\\\" in body and "±" not in table("a", Quantity("1 ± 2", {})).latex()


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_spreadsheet_computes_a_text_cell(formula):
    assert rows(table(formula, 1).csv())[1][0] == "'" + formula
    assert inert.as_written("'" + formula) == formula


def test_numbers_stay_numbers_in_csv():
    assert rows(table("a", -1.5).csv())[1] == ["a", "-1.5"]
    assert rows(table("a", float("nan")).csv())[1] == ["a", ""]
    spread = Quantity("−1.5 ± 0.1 (3)", {"mean": -1.5, "sd": 0.1, "n": 3})
    assert rows(table("a", spread).csv()) == [
        ["arm", "value mean", "value sd", "value n"],
        ["a", "-1.5", "0.1", "3"],
    ]


def test_a_quantity_and_a_plain_cell_share_a_column():
    mixed = Table("t", "c", ("a",), [(Quantity("1 (2)", {"m": 1, "n": 2}),), ("gone",), (-3,)])
    assert rows(mixed.csv()) == [["a m", "a n"], ["1", "2"], ["gone", ""], ["-3", ""]]


def test_columns_of_numbers_are_set_flush_right():
    both = Table("t", "c", ("a", "b"), [("x", 1.5), ("2y", "−1.5 ± 2"), ("", "")])
    assert both.numeric == [False, True]
    assert "| --- | ---: |" in both.markdown()
    assert "{lr}" in both.latex()


def test_a_table_without_rows_is_a_heading():
    empty = Table("t", "c", ("a", "b"), [])
    assert empty.csv() == "a,b\n" and empty.numeric == [False, False]
    assert empty.markdown().startswith("| a | b |\n") and "a & b" in empty.latex()

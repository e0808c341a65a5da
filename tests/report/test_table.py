"""Tables and their numbers as text: in Markdown, in the terminal, and hostile."""

import sys

import numpy as np
import pytest
from pages import HOSTILE, markdown_tables
from rich.console import Console

from probbnn.errors import InputError
from probbnn.metrics import Interval
from probbnn.report.table import (
    NONE,
    Markdown,
    Table,
    escaped,
    interval,
    number,
    percent,
    setting,
    value_of,
)


def printed(table, width=80):
    console = Console(width=width, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table.rich())
    return capture.get()


def test_hostile_cells_are_text_in_markdown():
    text = Table("t", ["a", "b|c"], [[HOSTILE[2], HOSTILE[0]]]).markdown()
    assert len(markdown_tables(text + "\n")) == 3
    assert r"a\|b \# \`c\` \[d\](e) $x^" in text
    assert r"\<script\>" in text


def test_what_is_markdown_is_not_escaped_again():
    once = escaped("a_b")
    assert escaped(once) is once
    assert "| `x` |" in Table("t", ["h"], [[Markdown("`x`")]]).markdown()


def test_nothing_in_a_cell_is_markup_of_the_terminal():
    text = printed(Table("[bold]t", ["[i]h"], [["[red]x[/red]"]]))
    for literal in ("[bold]t", "[i]h", "[red]x[/red]"):
        assert literal in text


def test_labels_stand_left_and_numbers_right():
    lines = printed(Table("t", ["method", "number"], [["a", "1"], ["long label", "100"]]))
    assert " a                1 " in lines
    assert " long label     100 " in lines


def test_rows_come_in_groups_where_there_are_three_labels():
    rows = [["x", "a", "b", "1"], ["x", "c", "d", "2"], ["y", "a", "b", "3"]]
    grouped, plain = (printed(Table("t", list("efgh"), rows, num_labels=n)) for n in (3, 2))
    assert grouped.count("\n") == plain.count("\n") + 1


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, float("inf")])
def test_what_is_no_number_is_a_dash(missing):
    assert number(missing) == NONE
    assert interval(Interval(missing or np.nan, 0.0, 1.0), ".2f") == NONE
    assert interval(None, ".2f") == value_of(None, ".2f") == NONE


def test_shares_are_percentages():
    assert (percent(0.125), percent(1.0), percent(None)) == ("12.5 %", "100.0 %", NONE)


def test_a_bound_may_be_missing():
    assert interval(Interval(0.5, np.nan, 0.75), ".1f", 100) == "50.0 (–, 75.0)"


@pytest.mark.parametrize(
    ("value", "said"),
    [(True, "yes"), (None, "none"), (1e-8, "1e-08"), ({"a": {"b": False}}, "(a: (b: no))")],
)
def test_settings(value, said):
    assert setting(value) == said


def test_without_rich_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(InputError, match=r"needs rich.*pip install"):
        Table("t", ["h"], [["x"]]).rich()

"""A table as text, and how it and its numbers are written in Markdown and in the terminal."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from probbnn.errors import requires
from probbnn.metrics import Interval

if TYPE_CHECKING:
    import rich.table

__all__ = [
    "NONE",
    "Markdown",
    "Spec",
    "Table",
    "escaped",
    "interval",
    "number",
    "percent",
    "setting",
    "value_of",
]

NONE = "–"
"""What stands where there is no number."""

Spec = str | Callable[[float], str]
"""How a number is written: a format specification, or a function of it."""


@dataclass(frozen=True)
class Table:
    r"""A table as text.

    Attributes:
        title: one line.
        header: headings.
        rows: a cell for each heading.
        note: what the headings mean.
        num_labels: how many of the first columns say what a row is about, not what was measured.

    Examples:
        >>> print(Table("Speed", ["method", "steps/s"], [["a|b", "7"]]).markdown())
        | method | steps/s |
        | --- | --- |
        | a\|b | 7 |
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    num_labels: int = 1

    def markdown(self) -> "Markdown":
        """Header and rows in Markdown, without title and note."""
        lines: list[Sequence[str]] = [
            [escaped(heading) for heading in self.header],
            ["---"] * len(self.header),
            *([escaped(cell) for cell in row] for row in self.rows),
        ]
        return Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))

    def rich(self) -> "rich.table.Table":
        """Title, header and rows for the terminal; rows about the same thing come in groups."""
        with requires("a table in the terminal", extra="report"):
            from rich import box
            from rich.table import Table as RichTable
            from rich.text import Text

        # Text, so that nothing in a cell is taken for markup.
        table = RichTable(
            title=Text(self.title),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 0, 0, 1),
            pad_edge=False,
        )
        for column, heading in enumerate(self.header):
            is_label = column < self.num_labels
            table.add_column(
                Text(heading), justify="left" if is_label else "right", no_wrap=is_label
            )
        for row, following in zip(self.rows, [*self.rows[1:], None], strict=True):
            # With fewer labels a group is a row or two, and the gaps would be half of the table.
            ends_group = self.num_labels > 2 and following is not None and following[0] != row[0]
            table.add_row(*map(Text, row), end_section=ends_group)
        return table


class Markdown(str):
    """Text that is Markdown already, which `escaped` leaves as it is."""


def escaped(text: object) -> Markdown:
    r"""Text that Markdown shows as it is, on one line.

    Examples:
        >>> print(escaped("a|b\n# [c](d)"), escaped(Markdown("**e**")))
        a\|b \# \[c\](d) **e**
    """
    if isinstance(text, Markdown):
        return text
    return Markdown(re.sub(r"([\\`*_{}\[\]<>|#~&])", r"\\\1", " ".join(str(text).split())))


def number(value: float | None, spec: Spec = ".4g", factor: float = 1) -> str:
    """A number times ``factor``, or `NONE` for what is missing or not finite.

    Examples:
        >>> number(1234.5, ",.0f"), number(0.25, ".1f", 100), number(None)
        ('1,234', '25.0', '–')
    """
    if value is None or not math.isfinite(value):
        return NONE
    value = factor * value
    return spec(value) if callable(spec) else format(value, spec)


def percent(share: float | None) -> str:
    """A share as a percentage.

    Examples:
        >>> percent(0.5), percent(None)
        ('50.0 %', '–')
    """
    return number(share, "{:.1f} %".format, 100)


def value_of(found: Interval | None, spec: Spec, factor: float = 1) -> str:
    """The value of an interval, without its bounds."""
    return NONE if found is None else number(found.value, spec, factor)


def interval(found: Interval | None, spec: Spec, factor: float = 1) -> str:
    """A value and its bounds.

    Examples:
        >>> interval(Interval(0.5, 0.25, float("nan")), ".2f"), interval(None, ".2f")
        ('0.50 (0.25, –)', '–')
    """
    if found is None:
        return NONE
    value, low, high = (number(x, spec, factor) for x in found)
    return value if value == NONE else f"{value} ({low}, {high})"


def setting(value: object) -> str:
    """A setting as a person would say it.

    Examples:
        >>> setting({"start": 0.1, "end": None}), setting(True), setting("cosine")
        ('(start: 0.1, end: none)', 'yes', 'cosine')
    """
    if isinstance(value, Mapping):
        return f"({', '.join(f'{name}: {setting(item)}' for name, item in value.items())})"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)

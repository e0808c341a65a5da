"""Intervals as a table for people and as a dict for JSON."""

import html
from collections.abc import Mapping, Sequence
from typing import ClassVar

from probbnn.metrics.bootstrap import Interval

__all__ = ["BRACKETS", "Intervals", "Printed", "table"]

BRACKETS = "[95 % interval]"


class Printed:
    """What a notebook shows as it is printed."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


class Intervals(Printed):
    """A frozen dataclass whose fields are intervals, or intervals by name; None is undefined."""

    _title: ClassVar[str]

    def __str__(self) -> str:
        rows = [
            (name, "–" if interval is None else str(interval))
            for name, interval in self._named().items()
        ]
        return "\n".join(table([(self._title, f"value {BRACKETS}"), *rows]))

    def to_dict(self) -> dict[str, dict[str, float | None] | None]:
        """Name of metric -> value, low and high, for JSON."""
        return {
            name: None if interval is None else interval.to_dict()
            for name, interval in self._named().items()
        }

    def _named(self) -> dict[str, Interval | None]:
        named: dict[str, Interval | None] = {}
        for name, value in vars(self).items():
            named |= value if isinstance(value, Mapping) else {name: value}
        return named


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]

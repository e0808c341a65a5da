"""Intervals as a table for people and as a dict for JSON."""

from collections.abc import Sequence
from typing import ClassVar

__all__ = ["BRACKETS", "Intervals", "table"]

BRACKETS = "[95 % interval]"


class Intervals:
    """A frozen dataclass whose fields are intervals."""

    _title: ClassVar[str]

    def __str__(self) -> str:
        rows = [(name, str(interval)) for name, interval in vars(self).items()]
        return "\n".join(table([(self._title, f"value {BRACKETS}"), *rows]))

    def to_dict(self) -> dict[str, dict[str, float | None]]:
        """Name of metric -> value, low and high, for JSON."""
        return {name: interval.to_dict() for name, interval in vars(self).items()}


def table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Lines of text with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]

"""Rows of facts as people read them: columns, times and durations."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_NARROWEST = 8


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), elastic: int) -> list[str]:
    """Rows as lines, the first one the headings.

    Args:
        rows: Cells.
        right: Columns that are aligned to the right.
        elastic: The column that gives way where a terminal is too narrow.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sys.stdout.isatty():
        over = sum(widths) + 2 * (len(widths) - 1) - shutil.get_terminal_size().columns
        widths[elastic] -= min(max(0, over), max(0, widths[elastic] - _NARROWEST))
    return ["  ".join(_cells(row, widths, right)).rstrip() for row in rows]


def _cells(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> Iterator[str]:
    for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
        text = cell if len(cell) <= width else f"{cell[: width - 3]}..."
        yield text.rjust(width) if place in right else text.ljust(width)


def duration(seconds: float | None) -> str:
    """Seconds in the two largest units that matter, such as `7 h 10 min`; a dash for none."""
    if seconds is None:
        return "–"
    if seconds < 59.95:
        return f"{round(seconds, 1):g} s"
    left = round(seconds)
    largest = next(place for place, (_, size) in enumerate(_UNITS) if left >= size)
    parts = []
    for unit, size in _UNITS[largest : largest + 2]:
        parts.append(f"{left // size} {unit}")
        left %= size
    return " ".join(part for part in parts if part[0] != "0")


def age(seconds: float) -> str:
    """How long ago something was, in one unit."""
    return " ".join(duration(max(0, int(seconds))).split()[:2])


def or_dash(value: object) -> str:
    """A value as text; a dash for none."""
    return "–" if value is None else str(value)

"""Checks amounts: entries and seconds saved, as Anymate takes them. No I/O."""

from __future__ import annotations

from datetime import timedelta
from numbers import Real
from operator import index
from typing import SupportsIndex

LARGEST_ID = (1 << 63) - 1  # of a run: a 64-bit integer, which the journal can hold
MOST = 2_147_483_647  # the KPI fields of FinishRun are 32-bit integers
NANOSECONDS = 1_000_000_000  # a second has


def checked_entries(value: SupportsIndex) -> int:
    """Check a number of entries."""
    if isinstance(value, bool):
        raise TypeError(f"entries must be a whole number, got {value!r}")
    try:
        count = index(value)
    except TypeError:
        raise TypeError(f"entries must be a whole number, got {value!r}") from None
    if not 0 <= count <= MOST:
        raise ValueError(f"entries must be from 0 to {MOST}, got {value!r}")
    return count


def checked_nanoseconds(value: float | timedelta) -> int:
    """Check a number of seconds; whole nanoseconds add up without the error of floats."""
    if isinstance(value, timedelta):
        nanoseconds = value // timedelta(microseconds=1) * 1000
    elif isinstance(value, bool) or not isinstance(value, Real) or type(value).__name__ == "timedelta64":
        # numpy's time spans call themselves whole numbers, of any unit.
        raise TypeError(f"seconds saved must be a number or a timedelta, got {value!r}")
    else:
        try:
            nanoseconds = value * NANOSECONDS if isinstance(value, int) else round(float(value) * NANOSECONDS)
        except (ValueError, OverflowError):  # NaN and infinity have no nanoseconds
            raise ValueError(f"seconds saved must be a finite number, got {value!r}") from None
        if value < 0:  # by so little, maybe, that it rounds to 0
            nanoseconds = -1
    if not 0 <= nanoseconds <= MOST * NANOSECONDS:
        raise ValueError(f"seconds saved must be from 0 to {MOST}, got {value!r}")
    return nanoseconds

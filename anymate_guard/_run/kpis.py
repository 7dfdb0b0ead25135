"""Kpis: what work achieved, as a value. No I/O."""

from __future__ import annotations

from datetime import timedelta
from typing import SupportsIndex

import attrs

from anymate_guard._run.amounts import MOST, NANOSECONDS, checked_entries, checked_nanoseconds


def _count_or_none(value: SupportsIndex | None) -> int | None:
    return None if value is None else checked_entries(value)


def _seconds_or_none(value: float | timedelta | None) -> float | None:
    return None if value is None else checked_nanoseconds(value) / NANOSECONDS


@attrs.frozen
class Kpis:
    """What work achieved: returned by a worker or a task to the one place that holds the guard, and added with `+`.

    Frozen, comparable and picklable. None means "not recorded", which differs from 0: Anymate credits its defaults
    for what a run did not report, and nothing for a 0 (Anymate's Finish Run page).

    Args:
        entries: How many entries (invoices, mails, rows …) were worked on, from 0 to 2 147 483 647.
        seconds_saved: Work time saved, as seconds or a timedelta, from 0 to 2 147 483 647 s; read back as float.

    Raises:
        TypeError: For a value of another kind (bool included).
        ValueError: For a negative, infinite or NaN value, or one that is too large.
    """

    entries: int | None = attrs.field(default=None, converter=_count_or_none)
    seconds_saved: float | None = attrs.field(default=None, converter=_seconds_or_none)

    @property
    def whole_seconds(self) -> int | None:
        """Seconds saved as Anymate takes them: whole, rounded half up."""
        if self.seconds_saved is None:
            return None
        return min(MOST, (checked_nanoseconds(self.seconds_saved) + NANOSECONDS // 2) // NANOSECONDS)

    def __add__(self, other: Kpis) -> Kpis:
        """Add field by field; None and a number make that number. Raises ValueError when a sum is too large."""
        if not isinstance(other, Kpis):
            return NotImplemented
        nanoseconds = [
            checked_nanoseconds(kpis.seconds_saved) for kpis in (self, other) if kpis.seconds_saved is not None
        ]
        entries = [kpis.entries for kpis in (self, other) if kpis.entries is not None]
        return Kpis(
            sum(entries) if entries else None,
            sum(nanoseconds) / NANOSECONDS if nanoseconds else None,
        )

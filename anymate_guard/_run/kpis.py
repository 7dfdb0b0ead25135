"""Kpis: what work achieved, as a value. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import SupportsIndex

from anymate_guard._run.amounts import MOST, NANOSECONDS, checked_entries, checked_nanoseconds


@dataclass(frozen=True, init=False)
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

    entries: int | None
    seconds_saved: float | None

    def __init__(self, entries: SupportsIndex | None = None, seconds_saved: float | timedelta | None = None) -> None:
        count = None if entries is None else checked_entries(entries)
        seconds = None if seconds_saved is None else checked_nanoseconds(seconds_saved) / NANOSECONDS
        object.__setattr__(self, "entries", count)
        object.__setattr__(self, "seconds_saved", seconds)

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

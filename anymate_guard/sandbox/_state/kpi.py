"""How Anymate credits work time saved."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Credit:
    """What is logged as KPIs."""

    entries: int = 0
    seconds: int = 0

    def __add__(self, other: Credit) -> Credit:
        """Return both together."""
        return Credit(self.entries + other.entries, self.seconds + other.seconds)


@dataclass(frozen=True)
class Overrides:
    """What a finish brings along; None leaves it to the defaults of the process, 0 is a value."""

    entries: int | None = None
    seconds: int | None = None


@dataclass(frozen=True)
class Defaults:
    """The KPI settings of a process.

    Simple mode knows seconds per run (or task) only, so `entries` is None there. Advanced mode has a default
    number of entries and `seconds` for each of them.
    """

    seconds: int
    entries: int | None = None

    def credit(self, overrides: Overrides) -> Credit:
        """Return what is logged for one run or one solved task.

        Overridden seconds win whatever the entries are; the entries are logged all the same. Assumed, since
        nothing public says so: in simple mode a run counts as one entry, and n overridden entries as n times
        its seconds.
        """
        entries = overrides.entries
        if entries is None:
            entries = 1 if self.entries is None else self.entries
        seconds = entries * self.seconds if overrides.seconds is None else overrides.seconds
        return Credit(entries, seconds)

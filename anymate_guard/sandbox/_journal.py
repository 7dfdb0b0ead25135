"""What the page shows of a bot's journal, handed in by a program that can read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypedDict


class JournalRow(TypedDict):
    """A run that is open on this machine, or a finish that it owes; `age` is in seconds."""

    processKey: str
    runId: int | None
    state: Literal["open", "owed", "refused"]
    entries: int | None
    secondsSaved: float | None
    age: float
    reason: str


class Journal(Protocol):
    """The journal of this machine."""

    def rows(self, most: int) -> tuple[Sequence[JournalRow], int]:
        """Return up to so many rows, what is open and refused before what is owed, and how many more there are."""
        ...  # pyright wants to see that there is no body

    def deliver(self) -> str:
        """Send what is owed to this sandbox, and return what came of it, for a person to read."""
        ...  # as above

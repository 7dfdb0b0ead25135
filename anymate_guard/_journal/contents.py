"""What people see of a journal: its rows, the history of finished runs, and dropping what will never be delivered."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from anymate_guard._journal.journal import Journal
from anymate_guard._journal.rows import OUTCOMES, Row
from anymate_guard._journal.view import View
from anymate_guard._process_key import is_process_key

_DIGITS = 14  # of an id, in hexadecimal
_END = 32_503_680_000.0  # the year 3000: a system may know no later one
_PATIENCE = 10.0  # seconds for one look at the journal

State = Literal["open", "owed", "maybe open", "refused"]
Run = tuple[str, int]


class Item(NamedTuple):
    """A row, as people see it.

    Attributes:
        row: The row.
        state: "open" while a live program is in its run; "owed"; "refused"; "maybe open" where a program died while it
            started a run, or just after: it had recorded nothing yet.
    """

    row: Row
    state: State

    @property
    def id(self) -> str:
        """What people call it, the beginning of which will do."""
        return f"{self.row.id:0{_DIGITS}x}"


class Seen(NamedTuple):
    """What a look at a journal has found.

    Attributes:
        items: The rows that people want to see first.
        counts: How many rows there are in each state.
        senseless: How many rows make no sense: they are set aside.
    """

    items: list[Item]
    counts: Counter[State]
    senseless: int


@dataclass(frozen=True)
class Line:
    """A finished run.

    Attributes:
        address: The API's address.
        username: The mate's user name.
        process_key: Which process.
        run_id: Anymate's number of the run.
        began: When it began, in seconds since 1970.
        ended: When its finish was acknowledged.
        outcome: How its body ended.
        entries: Entries that were sent; None for Anymate's default.
        seconds_saved: Seconds saved that were sent; None for Anymate's default.
        delivered: How the finish was delivered.
    """

    address: str
    username: str
    process_key: str
    run_id: int | None
    began: float
    ended: float
    outcome: str
    entries: int | None
    seconds_saved: float | None
    delivered: str

    @property
    def makes_sense(self) -> bool:
        """Whether it can be shown: somebody may have changed the file."""
        return (
            not any(isinstance(value, bytes) for value in vars(self).values())
            and all(isinstance(time, float) and 0 <= time < _END for time in (self.began, self.ended))
            and isinstance(self.process_key, str)
            and is_process_key(self.process_key)
            and self.outcome in OUTCOMES
            and all(
                isinstance(kpi, int | float) and kpi < math.inf for kpi in (self.entries or 0, self.seconds_saved or 0)
            )
        )


class Day(NamedTuple):
    """What was finished on one day, such as `2026-11-24`, by this machine's clock."""

    date: str
    runs: int
    seconds_saved: float


def rows_of(journal: Journal) -> list[tuple[Row, bool]]:
    """Every row, and whether a live program is at it.

    Raises:
        Unavailable: The journal can't be read.
    """
    return journal.read("", lambda view: [(row, view.in_use(row)) for row in view.table.all()], _PATIENCE)


def look(journal: Journal, most: int | None, *, only: State | None = None) -> Seen:
    """Look at the rows that people want to see first, and count all.

    Args:
        journal: Where to look.
        most: How many rows to give; None gives all.
        only: In which state; None gives those in any.

    Raises:
        Unavailable: The journal can't be read.
    """

    def rule(view: View) -> Seen:
        live = _live(view)
        items = (Item(row, _state(row, live)) for row in view.table.all())
        chosen = (item for item in items if only in {None, item.state})
        return Seen(list(itertools.islice(chosen, most)), *_counts(view, live))

    return journal.read("", rule, _PATIENCE)


def refused_in(journal: Journal) -> list[Item]:
    """The refused rows, without counting others.

    Raises:
        Unavailable: The journal can't be read.
    """
    return journal.read("", lambda view: [Item(row, "refused") for row in view.table.refused()], _PATIENCE)


def named(journal: Journal, name: str) -> list[Item]:
    """Rows with an id that begins like this in hexadecimal, two at most.

    Raises:
        Unavailable: The journal can't be read.
    """
    if not re.fullmatch(f"[0-9a-f]{{1,{_DIGITS}}}", name):
        return []
    low, high = (int(name.ljust(_DIGITS, digit), 16) for digit in "0f")

    def rule(view: View) -> list[Item]:
        live = _live(view)
        return [Item(row, _state(row, live)) for row in view.table.between(low, high, 2)]

    return journal.read("", rule, _PATIENCE)


def history_of(
    journal: Journal, since: float = 0.0, process_key: str | None = None, most: int | None = None
) -> tuple[list[Line], list[Day], int]:
    """The finished runs since a time, newest first, what they add up to for each day, and how many make no sense.

    Args:
        journal: Where to look.
        since: From when on, in seconds since 1970.
        process_key: Of which process; None for all.
        most: How many runs to read; None for all. The days are complete.

    Raises:
        Unavailable: The journal can't be read.
    """

    def rule(view: View) -> tuple[list[Line], list[Day], int]:
        lines = [Line(*line) for line in view.table.history(since, process_key, most)]
        days = [Day(*day) for day in view.table.days(since, process_key)]
        sensible = [line for line in lines if line.makes_sense]
        return sensible, [day for day in days if day.date and day.seconds_saved < math.inf], len(lines) - len(sensible)

    return journal.read("", rule, _PATIENCE)


def drop(journal: Journal, numbers: Sequence[int]) -> list[Row]:
    """Delete rows that nobody is at, by their ids; the deleted ones.

    Raises:
        Unavailable: The journal can't be written.
    """

    def rule(view: View) -> list[Row]:
        rows = [row for number in numbers for row in view.table.between(number, number, 1) if not view.in_use(row)]
        for row in rows:
            view.drop(row)
        return rows

    return journal.apply("", rule, _PATIENCE)


def empty(journal: Journal) -> None:
    """Delete everything, for the next test.

    Raises:
        Unavailable: The journal can't be written.
    """

    def rule(view: View) -> None:
        for row in view.table.all():
            view.drop(row)
        view.table.empty()

    journal.apply("", rule, _PATIENCE)


def _live(view: View) -> dict[Run, Row]:
    """The runs that live programs are in, each with a row of one."""
    rows = (row for owner in view.table.owners() for row in view.table.of_owner(owner))
    return {_run(row): row for row in rows if view.in_use(row)}


def _run(row: Row) -> Run:
    return row.address, row.run_id or -row.id


def _state(row: Row, live: Container[Run]) -> State:
    if row.state == "refused":
        return "refused"
    if _run(row) in live:
        return "open"
    return "maybe open" if row.state == "starting" else "owed"


def _counts(view: View, live: Mapping[Run, Row]) -> tuple[Counter[State], int]:
    """How many rows there are in each state, and how many make no sense."""
    known = view.table.count()
    opened = {row.id: row.state for one in live.values() for row in view.written_of(one) if _run(row) in live}
    known.subtract(Counter(opened.values()))
    owed = known["open"] + known["finishing"] + known["done"]
    counts: dict[State, int] = {"open": len(opened), "owed": owed}
    return Counter({**counts, "maybe open": known["starting"], "refused": known["refused"]}), known[None]

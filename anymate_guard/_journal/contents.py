"""What people see of a journal: its rows, the history of finished runs, and dropping what will never be delivered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import attrs

from anymate_guard._journal.journal import Journal
from anymate_guard._journal.rows import Row
from anymate_guard._journal.tables import Tables
from anymate_guard._journal.view import View

_PATIENCE = 10.0  # seconds for one look at the journal


@attrs.frozen
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


def rows_of(journal: Journal) -> list[tuple[Row, bool]]:
    """Every row, oldest first, and whether a live program is in its run.

    Raises:
        Unavailable: The journal can't be read.
    """

    def rule(view: View) -> list[tuple[Row, bool]]:
        return [(row, view.in_use(row)) for row in cast(Tables, view.table).all()]

    return journal.read("", rule, _PATIENCE)


def history_of(journal: Journal, since: float = 0.0) -> list[Line]:
    """The finished runs since a time, newest first.

    Raises:
        Unavailable: The journal can't be read.
    """
    return journal.read("", lambda view: [Line(*line) for line in cast(Tables, view.table).history(since)], _PATIENCE)


def drop(journal: Journal, numbers: Sequence[int]) -> list[Row]:
    """Delete rows that nobody is at, by their ids; the deleted ones.

    Raises:
        Unavailable: The journal can't be written.
    """

    def rule(view: View) -> list[Row]:
        rows = [row for row in cast(Tables, view.table).all() if row.id in numbers and not view.in_use(row)]
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
        tables = cast(Tables, view.table)
        for row in tables.all():
            view.drop(row)
        tables.empty()

    journal.apply("", rule, _PATIENCE)

"""The rows of the journal, and the finishes that they are part of. No I/O.

A row's life:

- `starting`, before StartRun is sent: others that leave the same process see it and don't finish the run.
- `open`, while the body runs.
- `finishing`, while its owner sends the finish: others that enter the same process wait for it.
- `done`, when the body has ended, nobody is sending the finish, and it is not acknowledged.
- `refused`, when Anymate will never take it: for people to see and drop.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args

from anymate_guard._process.locks import Lock
from anymate_guard._process_key import is_process_key
from anymate_guard._run.amounts import MOST, NANOSECONDS
from anymate_guard._run.kpis import Kpis
from anymate_guard._run.run import SEVERITY, Outcome, Recorded

State = Literal["starting", "open", "finishing", "done", "refused"]

_STATES = frozenset(get_args(State))
OUTCOMES = frozenset(get_args(Outcome))


class Unavailable(Exception):
    """The journal can't be used now."""


class RowTaken(Exception):
    """Another program has taken a row of this one, as it believed this one dead.

    Attributes:
        number: The row's id.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


NO_ID = -1  # of no row that makes sense


def new_id() -> int:
    """A number that no other row or finish has."""
    return int.from_bytes(os.urandom(7), "big") + 1


class Row(NamedTuple):
    """A guard's stay in a run, or its finish.

    Attributes:
        address: The API's address.
        username: The mate's user name.
        process_key: Which process.
        run_id: Anymate's number of the run; None until StartRun named it.
        owner: The program that is at it, by its owner id; 0 for nobody.
        state: Where in its life it is, see the module's docstring.
        entries: Entries recorded.
        nanoseconds: Time saved recorded.
        zeros: Whether KPIs that were not recorded count as 0.
        outcome: How the body ended, or would have if its owner died now.
        failure: The message of a failure that is to be reported.
        adopted: Whether the run was started by somebody else.
        finish: The number of the finish that it is part of, when that may have been sent; else 0.
        again: Whether the run was found closed once, and the row got a run of its own.
        reason: Why it was refused, or could not be sent.
        id: The row's own number.
        began: When it was made, in seconds since 1970: what is owed longest is settled first.
        recorded: When its own program wrote it last, in seconds since 1970.
    """

    address: str
    username: str
    process_key: str
    run_id: int | None = None
    owner: int = 0
    state: State = "starting"
    entries: int | None = None
    nanoseconds: int | None = None
    zeros: bool = False
    outcome: Outcome = "interrupted"
    failure: str | None = None
    adopted: bool = False
    finish: int = 0
    again: bool = False
    reason: str | None = None
    id: int = 0
    began: float = 0.0
    recorded: float = 0.0

    @classmethod
    def of(cls, columns: Sequence[Any]) -> Row | None:
        """The row of these columns, in the order of the fields; None if they make no sense."""
        if tuple(map(type, columns)) in _KINDS:
            row = cls._make(columns)
            numbers = (row.run_id or 0, row.owner, row.entries or 0, row.nanoseconds or 0, row.finish, row.id)
            if (
                min(numbers) >= 0
                and row.state in _STATES
                and row.outcome in OUTCOMES
                and is_process_key(row.process_key)
            ):
                return row
        return None

    def but(self, **changes: Any) -> Row:
        """The row with these changes."""
        return self._replace(**changes)

    @property
    def columns(self) -> list[object]:
        """The fields for sqlite, which asks the program how to keep any other type, and its clock may be a mock."""
        return [None if value is None else plain(value) for plain, value in zip(_PLAIN, self, strict=True)]

    @property
    def process(self) -> tuple[str, str]:
        """Where guards share a run."""
        return self.address, self.process_key


_DEFAULTS = Row("", "", "")._asdict()
_OR_NONE = {"run_id": int, "entries": int, "nanoseconds": int, "failure": str, "reason": str}
_TYPES = [  # of the columns: sqlite knows no bool
    _OR_NONE[name] if value is None else int if value is False else type(value) for name, value in _DEFAULTS.items()
]
# `str` would give the name of an enum's member.
_PLAIN: list[Callable[[Any], object]] = [str.__str__ if kind is str else kind for kind in _TYPES]
_KINDS = frozenset(  # every way in which sqlite may give the columns of a row
    product(
        *(
            (NoneType, kind) if value is None else (kind,)
            for kind, value in zip(_TYPES, _DEFAULTS.values(), strict=True)
        )
    )
)


@dataclass(eq=False)
class Entry:
    """A guard's own row, as it is now.

    Attributes:
        row: The row.
        totals: What was recorded so far: entries and nanoseconds.
        taken: What was in rows of this guard that other programs took, by their ids: they send it, as they believed
            this one dead.
    """

    row: Row
    totals: Callable[[], Recorded]
    taken: dict[int, Recorded] = field(default_factory=dict)
    _lock: AbstractContextManager[Any] = field(default_factory=Lock)

    def change(self, **changes: Any) -> None:
        """Change the row."""
        self._exchange(lambda row: row.but(**changes))

    def recorded(self, **changes: Any) -> Row:
        """The row with what was recorded so far, but for what was taken; and with other changes."""

        def up_to_date(row: Row) -> Row:
            # But for the row itself, which is being given up if it is among them.
            taken = [what for number, what in self.taken.items() if number != row.id]
            entries, nanoseconds = map(_less, self.totals(), *taken)
            if not changes and (entries, nanoseconds) == (row.entries, row.nanoseconds):
                return row
            return row.but(entries=entries, nanoseconds=nanoseconds, recorded=time.time(), **changes)

        return self._exchange(up_to_date)

    def _exchange(self, changed: Callable[[Row], Row]) -> Row:
        """Put a changed row in place of the one that it was made from: the recorder changes it, too."""
        while True:
            old = self.row
            new = changed(old)  # without the lock: the garbage collector may come here, and leave guards
            with self._lock:
                if self.row is old:
                    self.row = new
                    return new

    def begin(self) -> Row:
        """Note when it is written first, which is not before the file with the locks is there."""
        now = time.time()
        self.change(began=now, recorded=now)
        return self.row

    def begin_anew(self, taken: Row) -> Row:
        """Leave a row to the program that took it, with what was in it; the rest goes into a new one."""
        self.taken[taken.id] = taken.entries, taken.nanoseconds
        failure = None if self.row.failure == taken.failure else self.row.failure
        self.change(id=new_id(), finish=0, failure=failure)
        return self.recorded()


@dataclass(frozen=True)
class Finish:
    """One FinishRun to be sent, for rows of one run.

    Attributes:
        rows: The rows that it settles.
        known: Whether it may have been sent before.
    """

    rows: tuple[Row, ...]
    known: bool = False

    @property
    def numbers(self) -> set[int]:
        """The ids of its rows."""
        return {row.id for row in self.rows}

    @property
    def process_key(self) -> str:
        """Which process."""
        return self.rows[0].process_key

    @property
    def run_id(self) -> int | None:
        """The run; None when it has to be started first."""
        return self.rows[0].run_id

    @cached_property  # it is sent, noted in the history and logged
    def kpis(self) -> Kpis:
        """What the rows add up to."""
        entries = [row.entries for row in self.rows if row.entries is not None]
        nanoseconds = [row.nanoseconds for row in self.rows if row.nanoseconds is not None]
        unrecorded = 0 if all(row.zeros for row in self.rows) else None
        return Kpis(
            min(MOST, sum(entries)) if entries else unrecorded,
            min(MOST, sum(nanoseconds) / NANOSECONDS) if nanoseconds else unrecorded,
        )

    @property
    def outcome(self) -> Outcome:
        """The worst one."""
        return max((row.outcome for row in self.rows), key=SEVERITY.index)

    @property
    def failure(self) -> str | None:
        """What is to be reported once it is finished."""
        return next((row.failure for row in self.rows if row.failure is not None), None)

    @property
    def facts(self) -> dict[str, object]:
        """What log lines say of it."""
        kpis = self.kpis
        return {
            "process_key": self.process_key,
            "run_id": self.run_id,
            "entries": kpis.entries,
            "seconds_saved": kpis.seconds_saved,
        }


def released(row: Row, unsent: Collection[int] = ()) -> Row | None:
    """What is left of a row when nobody is at it any more; None for one whose run was never started.

    Args:
        row: The row.
        unsent: The ids of rows whose finish was not sent, for sure.
    """
    if row.state == "starting" and row.run_id is None:
        return None
    return row.but(owner=0, state="done", finish=0 if row.id in unsent else row.finish)


def _less(number: int | None, *taken: int | None) -> int | None:
    gone = sum(filter(None, taken))
    return None if number is None or (gone and number <= gone) else number - gone

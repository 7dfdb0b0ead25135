"""The rows of the journal, and the rules who owes what. No I/O.

A row's life:

- `starting`, before StartRun is sent: others that leave the same process key see it and don't finish the run.
- `open`, while the body runs.
- `done`, when the body has ended but the finish is not acknowledged.
- `finishing`, while its owner sends the finish: others that enter the same process key wait for it.

A row whose owner is dead stays as it is until a guard, or `anymate-guard journal deliver`, settles it.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import attrs

from anymate_guard._run import MOST, Kpis

State = Literal["starting", "open", "done", "finishing"]
Account = tuple[str, str]  # the API's address, and the mate's user name

_STATES = frozenset(get_args(State))
_BATCH = 32  # finishes claimed at once: others can't enter those process keys meanwhile
_NS = 1_000_000_000


class Damaged(ValueError):
    """What was read can't be a row."""


def _new_id() -> int:
    return int.from_bytes(os.urandom(7), "big")


@attrs.define
class Row:
    """A run in use by one program, or its finish.

    Attributes:
        address: The API's address.
        username: The mate's user name.
        process_key: Which process.
        run_id: Anymate's number of the run; None until StartRun named it.
        owner: The program, by its owner id; 0 is nobody's.
        state: Where in its life it is, see the module's docstring.
        entries: Entries recorded.
        nanoseconds: Time saved recorded.
        zeros: Whether KPIs that were not recorded count as 0; for a row whose owner died, whether that was asked for.
        sent: Whether a FinishRun may have reached Anymate.
        id: The row's own number.
        at: When it was made, in seconds since 1970: what is owed longest is settled first.
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
    sent: bool = False
    id: int = attrs.field(factory=_new_id)
    at: float = attrs.field(factory=time.time)

    @classmethod
    def of(cls, columns: Sequence[Any]) -> Row:
        """The row of these columns, in the order of `values`."""
        number, address, username, key, run_id, owner, state, entries, nanoseconds, zeros, sent, at = columns
        texts = all(type(text) is str for text in (address, username, key))
        numbers = type(at) is float and all(type(value) is int for value in (number, owner, zeros, sent))
        maybe = all(value is None or (type(value) is int and value >= 0) for value in (run_id, entries, nanoseconds))
        if not (texts and numbers and maybe and state in _STATES):
            raise Damaged(f"a row makes no sense: {columns!r}")
        return cls(
            address, username, key, run_id, owner, state, entries, nanoseconds, bool(zeros), bool(sent), number, at
        )

    def values(self) -> tuple[object, ...]:
        """What the columns hold."""
        return (
            self.id,
            self.address,
            self.username,
            self.process_key,
            self.run_id,
            self.owner,
            self.state,
            self.entries,
            self.nanoseconds,
            self.zeros,
            self.sent,
            self.at,
        )

    @property
    def account(self) -> Account:
        """Whose it is."""
        return self.address, self.username


@attrs.frozen
class Owed:
    """One FinishRun to be sent, for all rows of a run.

    Attributes:
        process_key: Which process.
        run_id: The run; None when it has to be started first.
        kpis: What the rows add up to.
        sent: Whether it may have reached Anymate before.
        rows: The rows that it settles.
        outage: Whether the address was unreachable less than a minute ago.
        written: Whether the journal holds it.
    """

    process_key: str
    run_id: int | None
    kpis: Kpis
    sent: bool
    rows: tuple[Row, ...]
    outage: bool = False
    written: bool = False

    @property
    def facts(self) -> dict[str, object]:
        """What log lines say of it."""
        return {
            "process_key": self.process_key,
            "run_id": self.run_id,
            "entries": self.kpis.entries,
            "seconds_saved": self.kpis.seconds_saved,
        }


@attrs.frozen
class Entered:
    """What an entering guard meets.

    Attributes:
        busy: Another guard is sending a finish for this process key; try again when it is done.
        owed: Finishes claimed for it to settle first; it is not in yet when there are any.
        carried: Rows that a dead owner left on this process key, to be carried into the run.
        outage: Whether the address was unreachable less than a minute ago.
    """

    busy: bool = False
    owed: tuple[Owed, ...] = ()
    carried: tuple[Row, ...] = ()
    outage: bool = False


@attrs.define
class Claims:
    """The rows that one entering or leaving has claimed, so that they can be given back however it ends.

    Attributes:
        held: By their ids.
        tried: The ids of all that were claimed, which are not claimed again.
    """

    held: dict[int, Row] = attrs.field(factory=dict)
    tried: set[int] = attrs.field(factory=set)

    def add(self, rows: Sequence[Row]) -> None:
        """Note rows before they are claimed."""
        self.held.update((row.id, row) for row in rows)
        self.tried.update(row.id for row in rows)

    def drop(self, rows: Sequence[Row]) -> None:
        """Note that rows are settled or given back."""
        for row in rows:
            self.held.pop(row.id, None)


class View:
    """The rows of an account at one moment, and who of their owners is alive.

    Attributes:
        rows: The rows that are left.
        changed: Those that the rules changed.
        dropped: Those that the rules dropped.
    """

    def __init__(self, rows: Sequence[Row], me: int, alive: Callable[[int], bool], *, outage: bool) -> None:
        self.rows = list(rows)
        self.changed: list[Row] = []
        self.dropped: list[Row] = []
        self.outage = outage
        self._me = me
        self._alive = {owner: alive(owner) for owner in {me, *(row.owner for row in rows)}}

    def enter(self, row: Row, claims: Claims, *, settle: bool) -> Entered:
        """Let a guard in, unless there is something to do first."""
        if any(other.state == "finishing" and self._is_alive(other) for other in self._of_key(row.process_key)):
            return Entered(busy=True)
        owed = self.claim(claims, entering=row) if settle else ()
        if owed:
            return Entered(owed=owed, outage=self.outage)
        row.owner = self._me
        self.changed.append(row)
        return Entered(carried=tuple(filter(self._left_behind, self._of_key(row.process_key))), outage=self.outage)

    def claim(self, claims: Claims, entering: Row | None = None) -> tuple[Owed, ...]:
        """Claim finishes that are owed, but for what the entering guard carries into its own run."""
        self.dropped = [row for row in self.rows if row.state == "starting" and not self._is_alive(row)]
        self.rows = [row for row in self.rows if row not in self.dropped]  # their bodies never ran
        runs: defaultdict[int, list[Row]] = defaultdict(list)
        for row in self.rows:
            runs[row.run_id or -row.id].append(row)  # a run without an id is a row of its own
        claimed: list[Owed] = []
        for rows in runs.values():
            untried = claims.tried.isdisjoint(row.id for row in rows)
            if len(claimed) < _BATCH and untried and self._is_owed(rows, entering):
                claimed.append(self._take(rows, claims))
        return tuple(claimed)

    def leave(self, row: Row, claims: Claims) -> Owed | None:
        """Let a guard out; the last one of its run gets the finish for all of them."""
        row.owner, row.state = self._me, "done"
        self.changed.append(row)
        others = [other for other in self.rows if other.id != row.id]
        for other in others:
            same = other.run_id == row.run_id
            nameless = other.run_id is None and other.process_key == row.process_key
            if (same or (nameless and other.state != "open")) and self._in_use(other):
                return None
        return self._take([row, *(other for other in others if other.run_id == row.run_id)], claims)

    def start_late(self, row: Row, claims: Claims) -> Owed | None:
        """Claim a row whose run has no id, to start and finish it; None while another finish is under way."""
        others = [other for other in self._of_key(row.process_key) if other.id != row.id]
        if any(other.state == "finishing" and self._is_alive(other) for other in others):
            return None
        return self._take([row], claims)

    def _is_alive(self, row: Row) -> bool:
        return self._alive[row.owner]

    def _in_use(self, row: Row) -> bool:
        """Whether a live program is in the row's run, or about to start or finish it."""
        return row.state != "done" and self._is_alive(row)

    def _left_behind(self, row: Row) -> bool:
        """Whether a row's body ran when its owner died."""
        return row.state == "open" and not self._is_alive(row)

    def _of_key(self, process_key: str) -> list[Row]:
        return [row for row in self.rows if row.process_key == process_key]

    def _take(self, rows: Sequence[Row], claims: Claims) -> Owed:
        owed = total(rows, outage=self.outage, written=True)
        claims.add(rows)
        for row in rows:
            row.owner, row.state, row.sent = self._me, "finishing", owed.sent
        self.changed += rows
        return owed

    def _is_owed(self, rows: Sequence[Row], entering: Row | None) -> bool:
        run_id, key = rows[0].run_id, rows[0].process_key
        if any(self._in_use(row) for row in rows):
            return False
        # A finish sent while somebody starts this process could end the run that they resume; and a run without an id
        # would be started into the one that somebody is in.
        others = [row for row in self._of_key(key) if self._in_use(row)]
        if any(run_id is None or (row.run_id is None and row.state != "open") for row in others):
            return False
        if entering is None or key != entering.process_key:
            return True
        return (run_id is None or run_id != entering.run_id) and not any(self._left_behind(row) for row in rows)


def total(rows: Sequence[Row], *, outage: bool = False, written: bool = False) -> Owed:
    """What one FinishRun for these rows of a run has to say."""
    entries = [row.entries for row in rows if row.entries is not None]
    nanoseconds = [row.nanoseconds for row in rows if row.nanoseconds is not None]
    unrecorded = 0 if all(row.zeros for row in rows) else None
    kpis = Kpis(
        min(MOST, sum(entries)) if entries else unrecorded,
        min(MOST, sum(nanoseconds) / _NS) if nanoseconds else unrecorded,
    )
    # A row that its dead owner was finishing may have been sent.
    sent = any(row.sent or (row.state == "finishing" and row.run_id is not None) for row in rows)
    return Owed(rows[0].process_key, rows[0].run_id, kpis, sent, tuple(rows), outage, written)

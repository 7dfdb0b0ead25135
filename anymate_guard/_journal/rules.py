"""The rows of the journal, and the rules who owes what. No I/O.

A row's life:

- `starting`, before StartRun is sent: others that leave the same process see it and don't finish the run.
- `open`, while the body runs.
- `finishing`, while its owner sends the finish: others that enter the same process wait for it.
- `done`, when the body has ended, nobody is sending the finish, and it is not acknowledged.
- `refused`, when Anymate will never take it: for people to see and drop.

A process of Anymate has at most one open run, so *the run* of a process is shared by all guards that are in it. A
*finish* is one FinishRun for some rows of one run. Once it may have been sent, it stays as it is: no row is added to it
or taken away, so that whatever its answer turns out to be, it holds for each of its rows.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Literal, Protocol, get_args

import attrs

from anymate_guard._run import MOST, NANOSECONDS, SEVERITY, Kpis, Outcome

Standing = Literal["entering", "inside", "outside"]
State = Literal["starting", "open", "finishing", "done", "refused"]

BATCH = 32  # finishes claimed at once: others can't enter those processes meanwhile

Recorded = tuple["int | None", "int | None"]  # entries and nanoseconds

_STATES = frozenset(get_args(State))
_OUTCOMES = frozenset(get_args(Outcome))


class Damaged(ValueError):
    """What was read can't be a row."""


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


def new_id() -> int:
    """A number that no other row or finish has."""
    return int.from_bytes(os.urandom(7), "big") + 1


@attrs.frozen
class Row:
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
    id: int = attrs.field(factory=new_id)
    began: float = attrs.field(factory=time.time)
    recorded: float = 0.0

    @classmethod
    def of(cls, columns: Sequence[Any]) -> Row:
        """The row of these columns, in the order of the fields.

        Raises:
            Damaged: They make no sense.
        """
        row = cls(*columns)
        texts = all(type(text) is str for text in (row.address, row.username, row.process_key))
        maybe_texts = all(text is None or type(text) is str for text in (row.failure, row.reason))
        times = type(row.began) is float and type(row.recorded) is float
        numbers = (row.owner, row.finish, row.id, row.zeros, row.adopted, row.again)
        maybe = (number for number in (row.run_id, row.entries, row.nanoseconds) if number is not None)
        whole = all(type(number) is int and number >= 0 for number in (*numbers, *maybe))
        named = row.state in _STATES and row.outcome in _OUTCOMES
        if not (texts and maybe_texts and times and whole and named):
            raise Damaged(f"a row makes no sense: {tuple(columns)!r}")
        return row

    def but(self, **changes: Any) -> Row:
        """The row with these changes."""
        return attrs.evolve(self, **changes)

    @property
    def process(self) -> tuple[str, str]:
        """Where guards share a run."""
        return self.address, self.process_key


FIELDS = tuple(field.name for field in attrs.fields(Row))


@attrs.define(eq=False)
class Entry:
    """A guard's own row, as it is now.

    Attributes:
        row: The row.
        totals: What was recorded so far: entries and nanoseconds.
        taken: What was in rows of this guard that other programs took, as they believed this one dead: they send it.
    """

    row: Row
    totals: Callable[[], Recorded]
    taken: tuple[int, int] = (0, 0)

    def recorded(self) -> Row:
        """The row with what was recorded so far, but for what was taken."""
        entries, nanoseconds = map(_less, self.totals(), self.taken)
        if (entries, nanoseconds) != (self.row.entries, self.row.nanoseconds):
            self.row = self.row.but(entries=entries, nanoseconds=nanoseconds, recorded=time.time())
        return self.row

    def begin_anew(self, taken: Row) -> Row:
        """Leave a row to the program that took it, with what was in it; the rest goes into a new one."""
        self.taken = (self.taken[0] + (taken.entries or 0), self.taken[1] + (taken.nanoseconds or 0))
        self.row = self.row.but(id=new_id(), finish=0)
        return self.recorded()


@attrs.frozen
class Finish:
    """One FinishRun to be sent, for rows of one run.

    Attributes:
        rows: The rows that it settles.
        known: Whether it may have been sent before.
    """

    rows: tuple[Row, ...]
    known: bool = False

    @property
    def process_key(self) -> str:
        """Which process."""
        return self.rows[0].process_key

    @property
    def run_id(self) -> int | None:
        """The run; None when it has to be started first."""
        return self.rows[0].run_id

    @property
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


class Table(Protocol):
    """What rules read; each read is small, however much is in the journal."""

    def of_process(self, address: str, process_key: str) -> list[Row]:
        """The rows of a process, but for refused ones."""

    def abandoned(self, address: str, username: str, most: int) -> list[Row]:
        """The rows of an account that nobody is at, those that are owed longest first, but for `starting` ones."""

    def owners(self) -> list[int]:
        """All owners of rows."""

    def of_owner(self, owner: int) -> list[Row]:
        """The rows of an owner."""


@attrs.define
class View:
    """What a rule sees of the journal in one transaction, and what it changes there.

    Attributes:
        table: What is in the journal.
        me: This program's owner id.
        alive: Whether the program with an owner id, which has had a row since a time, runs.
        mine: Whether this program wants to have a row of its own id: others were left over by an interrupted write.
        written: Whether the journal held a row of this id, and it was this program's.
        now: Seconds since 1970.
        boot: When the machine was started.
        outage: Whether the address was unreachable less than a minute ago.
        look: Whether it is time to look for programs that died.
        puts: The rows that the rule changed.
        drops: Those that it dropped.
        history: Finishes that were acknowledged, and how each was delivered.
        reachable: What the rule noted about its address: True for an answer, False for none.
    """

    table: Table
    me: int
    alive: Callable[[int, float], bool]
    mine: Callable[[int], bool]
    written: Callable[[int], bool]
    now: float
    boot: float = 0.0
    outage: bool = False
    look: bool = True
    puts: dict[int, Row] = attrs.field(factory=dict)
    drops: set[int] = attrs.field(factory=set)
    history: list[tuple[Finish, str]] = attrs.field(factory=list)
    reachable: bool | None = None

    def put(self, row: Row, **changes: Any) -> Row:
        """Change a row, or add it."""
        row = row.but(**changes) if changes else row
        self.puts[row.id] = row
        self.drops.discard(row.id)
        return row

    def drop(self, row: Row) -> None:
        """Delete a row."""
        self.puts.pop(row.id, None)
        self.drops.add(row.id)

    def rows_of(self, row: Row) -> list[Row]:
        """The rows of a row's process, as they are now."""
        rows = (self.puts.get(other.id, other) for other in self.table.of_process(*row.process))
        return [other for other in rows if other.id not in self.drops]

    def of_process(self, row: Row) -> list[Row]:
        """The other rows of a row's process, as they are now."""
        return [other for other in self.rows_of(row) if other.id != row.id]

    def in_use(self, row: Row) -> bool:
        """Whether a live program is in the row's run, or about to start or finish it."""
        if row.state in {"done", "refused"} or row.owner == 0:
            return False
        return self.mine(row.id) if row.owner == self.me else self.alive(row.owner, row.began)

    def check_not_taken(self, row: Row) -> None:
        """Raise `RowTaken` for a row of this program that another one has taken."""
        if self.written(row.id):
            rows = (other for other in self.table.of_process(*row.process) if other.id == row.id)
            if not any(other.owner == self.me or can_be_taken_back(other) for other in rows):
                raise RowTaken(row.id)

    def ours(self, finish: Finish) -> list[Row]:
        """The rows of a claimed finish, but for those that another program took, as it believed this one dead."""
        held = {row.id: row for row in self.table.of_process(*finish.rows[0].process)}
        return [row for row in finish.rows if row.id in held and self._is_still_claimed(held[row.id])]

    def _is_still_claimed(self, row: Row) -> bool:
        return row.owner == self.me or (row.owner == 0 and row.state == "finishing")


def can_be_taken_back(row: Row) -> bool:
    """Whether a row that others have made nobody's, as they believed its program dead, was not sent by anybody."""
    return row.owner == 0 and row.finish == 0 and row.state != "refused"


@attrs.define(eq=False)
class Claims:
    """The rows that a guard has claimed, by their ids, so that they are given back however that ends.

    Attributes:
        rows: Those that it has claimed now.
        unsent: Those whose finish was not sent, for sure.
        tried: Those that it does not claim again.
    """

    rows: set[int] = attrs.field(factory=set)
    unsent: set[int] = attrs.field(factory=set)
    tried: set[int] = attrs.field(factory=set)


@attrs.frozen
class Entered:
    """What an entering guard meets.

    Attributes:
        busy: Another guard is sending a finish for this process: try again when it is done.
        owed: Finishes claimed for it to settle before its StartRun.
        outage: Whether the address was unreachable less than a minute ago.
    """

    busy: bool = False
    owed: tuple[Finish, ...] = ()
    outage: bool = False


@attrs.frozen
class Left:
    """What a leaving guard meets.

    Attributes:
        busy: Another guard is sending a finish for this process: try again when it is done.
        finishes: What the last one out has to send, in this order; empty for others.
        owed: Whether something else is owed to the account.
        outage: Whether the address was unreachable less than a minute ago.
    """

    busy: bool = False
    finishes: tuple[Finish, ...] = ()
    owed: bool = False
    outage: bool = False


def is_busy(view: View, row: Row) -> bool:
    """Whether somebody else is sending a finish for the process of a row."""
    return any(other.state == "finishing" and view.in_use(other) for other in view.of_process(row))


def enter(view: View, row: Row, claims: Claims) -> Entered:
    """Put the row of an entering guard into the journal, and claim what is owed for its process or account."""
    others = view.of_process(row)
    if is_busy(view, row):
        return Entered(busy=True, outage=view.outage)
    row = view.put(row, began=view.now, recorded=view.now)
    claims.tried.add(row.id)
    if not row.adopted:
        for other in others:
            if other.state == "starting" and not view.in_use(other):
                view.drop(other)  # its body never ran
    return Entered(owed=claim(view, row, claims, "entering"), outage=view.outage)


def opened(view: View, row: Row, *, reachable: bool) -> bool:
    """Note that a guard's body begins; whether dead programs left something of another run on its process."""
    view.check_not_taken(row)
    view.reachable = reachable or None
    view.put(row, recorded=view.now)
    others = (other for other in view.of_process(row) if other.state == "open" and not view.in_use(other))
    return row.run_id is not None and any(other.run_id not in {None, row.run_id} for other in others)


def others_in_run(view: View, row: Row) -> bool:
    """Whether somebody else is in the run of a row, or may be about to be."""
    if row.run_id is None:
        return is_busy(view, row)
    return any(_in_run(view, other, row.run_id) for other in view.of_process(row))


def claim(view: View, row: Row, claims: Claims, standing: Standing = "outside") -> tuple[Finish, ...]:
    """Claim finishes that are owed, those of the row's own process first.

    Args:
        view: The journal.
        row: Whose process and account.
        claims: What the guard has claimed.
        standing: Where the guard with this row is. While it enters, what may belong to the run that its StartRun
            resumes is left alone; inside, what would need or end the process's run.
    """
    if view.look:
        _find_dead(view)
    # During an outage only what has to come before the own StartRun is worth the one try.
    spared = view.outage and standing != "outside"
    others = [] if spared else view.table.abandoned(row.address, row.username, BATCH)
    found = _owed(view, row, standing)
    for process in dict.fromkeys(other.process for other in others):
        if process != row.process:
            found += _owed(view, next(other for other in others if other.process == process), "outside")
    fresh = [finish for finish in found if claims.tried.isdisjoint(other.id for other in finish.rows)][:BATCH]
    claims.tried.update(other.id for finish in fresh for other in finish.rows)
    return tuple(_take(view, finish.rows, claims) for finish in fresh)


def leave(view: View, row: Row, claims: Claims) -> Left:
    """Mark a guard's row done; the last one out of its run gets what is to be sent for all rows of it."""
    view.check_not_taken(row)
    if not view.mine(row.id):  # it was given back, as leaving was interrupted
        return Left(outage=view.outage)
    others = view.of_process(row)
    if row.run_id is None and is_busy(view, row):
        return Left(busy=True, outage=view.outage)
    row = view.put(row, owner=0, state="done", recorded=view.now)
    if row.run_id is not None and others_in_run(view, row):
        return Left(outage=view.outage)
    finishes = _of_run(view, [row], others, claims)
    return Left(finishes=finishes, owed=_anything_owed(view, row), outage=view.outage)


def name(view: View, finish: Finish, run_id: int, claims: Claims) -> tuple[Finish, ...]:
    """Note the run that was started for a finish that had none; what is to be sent, nothing if others are in it.

    What the same guard sends later, its own StartRun and other finishes that it claimed, is not in the run yet.
    """
    rows = [row.but(run_id=run_id) for row in view.ours(finish)]
    if not rows:
        return ()
    others = [other for other in view.of_process(rows[0]) if other.id not in {row.id for row in rows}]
    later = {other.id for other in others if other.run_id is None and other.id in claims.tried}
    if any(_in_run(view, other, run_id) for other in others if other.id not in later):
        give_back(view, rows)
        return ()
    return _of_run(view, rows, others, claims)


def acknowledge(view: View, finish: Finish, how: str) -> None:
    """Drop the rows of a finish that Anymate has, and note it in the history."""
    view.reachable = True
    view.history.append((finish, how))
    for row in finish.rows:
        view.drop(row)


def not_open(view: View, finish: Finish, claims: Claims) -> tuple[Finish | None, list[Row], list[Row]]:
    """Decide about a finish that was never sent before, and whose run turns out to be closed.

    Returns:
        The same rows without a run, to be started and finished anew, if there are any and nobody is in the process;
        rows that may have been finished before the machine went down, which are settled; and refused ones.
    """
    view.reachable = True
    ours = view.ours(finish)
    refused = [row for row in ours if row.adopted or row.again]
    old = [row for row in ours if row not in refused and row.recorded < view.boot]
    rest = [row for row in ours if row not in refused and row not in old]
    if old:
        view.history.append((Finish(tuple(old)), "before the machine was started"))
    for row in old:
        view.drop(row)
    refuse(view, refused, "the run was not open any more")
    rows = [row.but(run_id=None, finish=0, again=True) for row in rest]
    if not rows:
        return None, old, refused
    ids = {row.id for row in finish.rows}
    if any(view.in_use(other) for other in view.of_process(rows[0]) if other.id not in ids):
        give_back(view, rows)
        return None, old, refused
    return _take(view, rows, claims), old, refused


def put_off(view: View, finish: Finish, reason: str, claims: Claims, *, reachable: bool) -> None:
    """Keep a finish that could not be delivered, so that it is owed."""
    view.reachable = reachable
    rows = (row.but(finish=0) if row.id in claims.unsent else row for row in view.ours(finish))
    give_back(view, [row.but(reason=reason) for row in rows])


def refuse(view: View, rows: Iterable[Row], reason: str) -> None:
    """Keep rows that Anymate will never take, for people to see."""
    for row in rows:
        view.put(row, owner=0, state="refused", reason=reason)


def give_back(view: View, rows: Iterable[Row]) -> None:
    """Let go of rows: their finish is owed, or they are left to others in their run."""
    for row in rows:
        view.put(row, owner=0, state="done")


def released(row: Row, unsent: Collection[int] = ()) -> Row | None:
    """What is left of a row when nobody is at it any more; None for one whose body never ran.

    Args:
        row: The row.
        unsent: The ids of rows whose finish was not sent, for sure.
    """
    if row.state == "starting":
        return None
    state: State = "done" if row.state in {"open", "finishing"} else row.state
    return row.but(owner=0, state=state, finish=0 if row.id in unsent else row.finish)


def _less(number: int | None, taken: int) -> int | None:
    return None if number is None or (taken and number <= taken) else number - taken


def _find_dead(view: View) -> None:
    """Find rows of dead programs: they are nobody's from now on, as what is abandoned is found by that."""
    for owner in view.table.owners():
        if owner != view.me and not view.alive(owner, view.now):
            for row in view.table.of_owner(owner):
                if not view.alive(owner, row.began) and row.id not in view.drops:
                    view.put(view.puts.get(row.id, row), owner=0)


def _owed(view: View, of: Row, standing: Standing) -> list[Finish]:
    """The finishes that are owed to the account of a row, for its process, and may be sent now."""
    rows = view.rows_of(of)
    if standing != "outside":
        rows = [row for row in rows if row.id != of.id]
    live = [row for row in rows if view.in_use(row)]
    if any(row.state == "finishing" for row in live):
        return []
    adopts = standing == "entering" and of.run_id is not None
    present = [*live, of] if standing == "inside" or adopts else live
    starting = any(row.run_id is None and row.state == "starting" for row in live)
    runs = {row.run_id for row in present}
    found = []
    for finish in _finishes([row for row in rows if row not in live and row.state in {"open", "done", "finishing"}]):
        ours = any(row.username == of.username for row in finish.rows)
        carried = standing == "entering" and not finish.known and finish.rows[0].state == "open"
        blocked = bool(present) if finish.run_id is None else starting or finish.run_id in runs
        if ours and not carried and not blocked:
            found.append(finish)
    return found


def _finishes(rows: Sequence[Row]) -> list[Finish]:
    """Sort idle rows into finishes: those that may have been sent as they are, others by their run."""
    groups: defaultdict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row.finish:
            groups["finish", row.finish].append(row)
        elif row.run_id is not None:
            groups["run", row.run_id].append(row)
        else:
            groups["row", row.id].append(row)
    return [Finish(tuple(group), known=kind == "finish") for (kind, _), group in groups.items()]


def _in_run(view: View, row: Row, run_id: int) -> bool:
    """Whether a live program is in the run, or may be about to be."""
    same = row.run_id == run_id
    about = row.run_id is None and row.state in {"starting", "finishing"}
    return (same or about) and view.in_use(row)


def _of_run(view: View, rows: Sequence[Row], others: Sequence[Row], claims: Claims) -> tuple[Finish, ...]:
    """Claim all that the last one out of a run has to send; what may have been sent before comes first, as it was."""
    run_id = rows[0].run_id
    idle = [row for row in others if not view.in_use(row) and row.state in {"open", "done", "finishing"}]
    same = [row for row in idle if row.run_id == run_id is not None]
    # A run without an id whose owner died is carried into the next one; one that was left waits for a run of its own.
    carried = [row.but(run_id=run_id) for row in idle if row.run_id is None and row.state == "open"]
    every = [*same, *rows]
    known = [finish.rows for finish in _finishes([row for row in every if row.finish])]
    fresh = [*(row for row in every if not row.finish), *carried]
    number = new_id() if run_id is not None and not known else 0
    return tuple(_take(view, group, claims, number=number) for group in [*known, fresh] if group)


def begin(view: View, finish: Finish) -> Finish | None:
    """Note that a claimed finish is about to be sent; None when it is not ours any more."""
    number, ours = new_id(), view.ours(finish)
    return Finish(tuple(view.put(row, finish=number) for row in ours)) if ours else None


def _take(view: View, rows: Sequence[Row], claims: Claims, *, number: int = 0) -> Finish:
    """Claim rows for one finish; a number says that it may be sent from now on."""
    numbers = {row.id for row in rows}
    known = rows[0].finish != 0
    claims.rows |= numbers
    if not known:
        claims.unsent |= numbers
    taken = (view.put(row, owner=view.me, state="finishing", finish=rows[0].finish or number) for row in rows)
    return Finish(tuple(taken), known)


def _anything_owed(view: View, row: Row) -> bool:
    owed = view.table.abandoned(row.address, row.username, len(view.puts) + 1)
    return any(other.id not in view.puts for other in owed)

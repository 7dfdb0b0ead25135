"""The rules who owes what. No I/O.

A process of Anymate has at most one open run, so *the run* of a process is shared by all guards that are in it. A
*finish* is one FinishRun for some rows of one run. Once it may have been sent, it stays as it is: no row is added to it
or taken away, so that whatever its answer turns out to be, it holds for each of its rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Literal, NamedTuple

from anymate_guard._journal.rows import Finish, Row, new_id
from anymate_guard._journal.view import Claims, View

Standing = Literal["entering", "inside", "outside"]
Rows = tuple[Row, ...]
Finishes = tuple[Finish, ...]  # of one run, in the order in which they have to be sent


class Entered(NamedTuple):
    """What an entering guard meets.

    Attributes:
        busy: Another guard is sending a finish for this process: try again when it is done.
        owed: Finishes claimed for it to settle before its StartRun, together those of one run.
        left: The runs of the process that dead programs were in: its StartRun resumes one of them, maybe.
        outage: Whether the address was unreachable less than a minute ago.
    """

    busy: bool = False
    owed: tuple[Finishes, ...] = ()
    left: frozenset[int] = frozenset()
    outage: bool = False


class Left(NamedTuple):
    """What a leaving guard meets.

    Attributes:
        busy: Another guard is sending a finish for this process: try again when it is done.
        finishes: What the last one out has to send, in this order; empty for others.
        owed: Whether something else is owed to the account.
        outage: Whether the address was unreachable less than a minute ago.
    """

    busy: bool = False
    finishes: Finishes = ()
    owed: bool = False
    outage: bool = False


class Closed(NamedTuple):
    """What becomes of the rows of a finish that was never sent before, and whose run turns out to be closed.

    Attributes:
        again: Those that get a run of their own: without one, to be started and finished anew.
        left: Those that wait for it, as somebody is in the process.
        old: Those that may have been finished before the machine went down.
        taken: Those that may be finished by now, by a program that took them, as it believed this one dead.
        refused: Those that get none.
    """

    again: Finish | None
    left: Rows
    old: Rows
    taken: Rows
    refused: Rows


def is_busy(view: View, row: Row) -> bool:
    """Whether somebody else is sending a finish for the process of a row."""
    return _any_sends(view, view.of_process(row))


def _any_sends(view: View, rows: Iterable[Row]) -> bool:
    return any(row.state == "finishing" and view.in_use(row) for row in rows)


def enter(view: View, row: Row, claims: Claims) -> Entered:
    """What the guard of a row, which is in the journal already, meets there; what is owed is claimed for it."""
    others = view.of_process(row)
    if _any_sends(view, others):
        return Entered(busy=True, outage=view.outage)
    claims.tried.add(row.id)
    if not row.adopted:
        for other in others:
            if other.state == "starting" and not view.in_use(other):
                view.drop(other)  # its body had hardly begun
    owed = claim(view, row, claims, "entering")
    dead = (other for other in view.current(others) if other.state == "open" and not view.in_use(other))
    left = frozenset(other.run_id for other in dead if other.run_id is not None)
    return Entered(owed=owed, left=left, outage=view.outage)


def deferred(view: View, row: Row, *, reachable: bool | None) -> None:
    """Note that the run of a guard could not be started, so that others need not take it for being in theirs."""
    view.reachable = reachable
    view.check_not_taken(row)
    view.put(row, recorded=view.now)


def others_in_run(view: View, row: Row) -> bool:
    """Whether somebody else is in the run of a row, or may be about to be; for one without an id it may be any run."""
    others = view.of_process(row)
    return any(view.in_use(other) if row.run_id is None else _in_run(view, other, row.run_id) for other in others)


def claim(view: View, row: Row, claims: Claims, standing: Standing = "outside") -> tuple[Finishes, ...]:
    """Claim finishes that are owed, those of the row's own process first, together those of one run.

    Args:
        view: The journal.
        row: Whose process and account.
        claims: What the guard has claimed.
        standing: Where the guard with this row is. While it enters, what may belong to the run that its StartRun
            resumes is left alone; inside, what would need or end the process's run.
    """
    dead = view.look and _find_dead(view)
    waiting = view.table.waiting(row, claims.batch, claims.tried) if view.owed else ()
    found = _owed(view, row, view.current(waiting), standing)
    # During an outage only what has to come before the own StartRun is worth the one try.
    spared = not view.owed or (view.outage and standing != "outside")
    others = [] if spared else view.table.abandoned(row.address, row.username, claims.batch, claims.place)
    of_processes: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for other in view.current(others):
        of_processes[other.process].append(other)
    for process, some in of_processes.items():
        if process != row.process:
            found += _owed(view, some[0], some, "outside")
    untried = [finishes for finishes in found if claims.tried.isdisjoint(numbers_of(finishes))]
    chosen = untried[: claims.batch]
    if dead:
        claims.more = True  # they are among what is owed at the next look
    elif chosen == untried:  # else they are come across again
        claims.more = len(others) == claims.batch
        claims.place = next(((other.began, other.id) for other in reversed(others)), claims.place)
    for finishes in chosen:
        claims.tried |= numbers_of(finishes)
    return tuple(tuple(_take(view, finish.rows, claims) for finish in finishes) for finishes in chosen)


def leave(view: View, row: Row, claims: Claims) -> Left:
    """Let go of a guard's row; the last one out of its run gets what is to be sent for all rows of it."""
    others = view.of_process(row)
    view.check_not_taken(row)
    if row.owner != view.me or not view.mine(row.id):  # it was given back, and may be claimed by another guard of ours
        return Left(outage=view.outage)
    if row.run_id is None and _any_sends(view, others):
        return Left(busy=True, outage=view.outage)
    row = row.but(recorded=view.now)
    if row.run_id is not None and any(_in_run(view, other, row.run_id) for other in others):
        give_back(view, [row])
        return Left(outage=view.outage)
    finishes = _of_run(view, [row], others, claims)
    owed = view.table.abandoned(row.address, row.username, len(view.puts) + 1) if view.owed else []
    return Left(finishes=finishes, owed=any(other.id not in view.puts for other in owed), outage=view.outage)


def name(view: View, finish: Finish, run_id: int, claims: Claims) -> Finishes:
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


def not_open(view: View, finish: Finish, claims: Claims) -> Closed:
    """Decide about a finish that was never sent before, and whose run turns out to be closed."""
    view.reachable = True
    ours = view.ours(finish)
    refused = tuple(row for row in ours if row.adopted or row.again)
    old = tuple(row for row in ours if row not in refused and row.recorded < view.boot)
    rest = tuple(row.but(run_id=None, finish=0, again=True) for row in ours if row not in refused + old)
    taken = tuple(row for row in finish.rows if row.id in view.taken)
    _refuse(view, refused, "the run was not open any more")
    if any(view.in_use(other) for row in rest[:1] for other in view.of_process(row) if other.id not in finish.numbers):
        give_back(view, rest)
        return Closed(None, rest, old, taken, refused)
    return Closed(_take(view, rest, claims) if rest else None, (), old, taken, refused)


def put_off(view: View, finish: Finish, reason: str, claims: Claims, *, reachable: bool) -> None:
    """Keep a finish that could not be delivered, so that it is owed."""
    view.reachable = reachable
    rows = (row.but(finish=0) if row.id in claims.unsent else row for row in view.ours(finish))
    give_back(view, [row.but(reason=reason) for row in rows])


def refuse(view: View, finish: Finish, reason: str) -> None:
    """Keep a finish that Anymate will never take, for people to see."""
    _refuse(view, view.ours(finish), reason)


def _refuse(view: View, rows: Iterable[Row], reason: str) -> None:
    for row in rows:
        view.put(row, owner=0, state="refused", reason=reason)


def give_back(view: View, rows: Iterable[Row]) -> None:
    """Let go of rows: their finish is owed, or they are left to others in their run."""
    for row in rows:
        view.put(row, owner=0, state="done")


def _find_dead(view: View) -> bool:
    """Find rows of dead programs: they are nobody's from now on, as what is abandoned is found by that."""
    found = False
    for owner in view.table.owners():
        if owner != view.me and not view.alive(owner, view.now):
            for row in view.table.of_owner(owner):
                taken = view.mine(row.id)  # by the dead one; this program still has to find that out
                if not (taken or view.alive(owner, row.began) or row.id in view.drops):
                    view.put(view.puts.get(row.id, row), owner=0)
                    found = True
    return found


def _owed(view: View, of: Row, some: Sequence[Row], standing: Standing) -> list[Finishes]:
    """The finishes that are owed to the account of a row, for its process, and may be sent now.

    What waits to be sent may be much: those for some of its rows, and what else is of their runs.
    """
    outside = standing == "outside"
    of_runs = {one.run_id: view.rows_of(one, itself=outside or one is not of) for one in (of, *some)}
    every = {row.id: row for rows in (some, *of_runs.values()) for row in rows}
    oldest_first = sorted(every.values(), key=attrgetter("began"))
    rows = [row for row in oldest_first if outside or row.id != of.id]
    live = [row for row in rows if view.in_use(row)]
    if any(row.state == "finishing" for row in live):
        return []
    adopts = standing == "entering" and of.run_id is not None
    present = [*live, of] if standing == "inside" or adopts else live
    starting = any(row.run_id is None and row.state == "starting" for row in live)
    runs = {row.run_id for row in present}
    idle: defaultdict[tuple[int | None, int], list[Row]] = defaultdict(list)
    for row in rows:
        if row not in live and row.state in {"open", "done", "finishing"}:
            idle[row.run_id, row.id if row.run_id is None else 0].append(row)
    found = []
    for (run_id, _), group in idle.items():
        blocked = bool(present) if run_id is None else starting or run_id in runs
        finishes = _known(group)
        fresh = tuple(row for row in group if not row.finish)
        if fresh and not (standing == "entering" and fresh[0].state == "open"):  # else it is carried
            finishes.append(Finish(fresh))
        ours = any(row.username == of.username for finish in finishes for row in finish.rows)
        if ours and not blocked:
            found.append(tuple(finishes))
    return found


def _known(rows: Iterable[Row]) -> list[Finish]:
    """The finishes among rows of one run that may have been sent: they go before others, as they were."""
    groups: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.finish:
            groups[row.finish].append(row)
    return [Finish(tuple(group), known=True) for group in groups.values()]


def numbers_of(finishes: Iterable[Finish]) -> set[int]:
    """The ids of the rows of all of them."""
    return {number for finish in finishes for number in finish.numbers}


def _in_run(view: View, row: Row, run_id: int) -> bool:
    """Whether a live program is in the run, or may be about to be."""
    same = row.run_id == run_id
    about = row.run_id is None and row.state in {"starting", "finishing"}
    return (same or about) and view.in_use(row)


def _of_run(view: View, rows: Sequence[Row], others: Sequence[Row], claims: Claims) -> Finishes:
    """Claim all that the last one out of a run has to send; what may have been sent before comes first, as it was."""
    run_id = rows[0].run_id
    idle = [row for row in others if not view.in_use(row) and row.state in {"open", "done", "finishing"}]
    same = [row for row in idle if row.run_id == run_id is not None]
    # A run without an id whose owner died is carried into the next one; one that was left waits for a run of its own.
    carried = [row.but(run_id=run_id) for row in idle if row.run_id is None and row.state == "open"]
    every = [*same, *carried, *rows]
    known = [finish.rows for finish in _known(every)]
    fresh = [row for row in every if not row.finish]
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
    number = new_id() if known else number  # so that whoever sent it before sees that it may be sent again
    return Finish(tuple(view.put(row, owner=view.me, state="finishing", finish=number) for row in rows), known)

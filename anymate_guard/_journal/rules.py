"""The rules by which a guard enters and leaves a run, and by which its finish is sent. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from anymate_guard._journal.owed import Finishes, claim, known_finishes, take
from anymate_guard._journal.rows import Finish, Row, new_id
from anymate_guard._journal.view import Claims, View

Rows = tuple[Row, ...]


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
    if not rest:
        return Closed(None, (), old, taken, refused)
    if any(view.in_use(other) for other in view.of_process(rest[0]) if other.id not in finish.numbers):
        give_back(view, rest)
        return Closed(None, rest, old, taken, refused)
    return Closed(take(view, rest, claims), (), old, taken, refused)


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


def _in_run(view: View, row: Row, run_id: int) -> bool:
    """Whether a live program is in the run, or may be about to be."""
    same = row.run_id == run_id
    about = row.run_id is None and row.state in {"starting", "finishing"}
    return (same or about) and view.in_use(row)


def _of_run(view: View, rows: Sequence[Row], others: Sequence[Row], claims: Claims) -> Finishes:
    """Claim all that the last one out of a run has to send; what may have been sent before comes first, as it was.

    Its own rows are the last ones: what becomes of them is what it is told.
    """
    run_id = rows[0].run_id
    idle = [row for row in others if not view.in_use(row) and row.state in {"open", "done", "finishing"}]
    same = [row for row in idle if row.run_id == run_id is not None]
    # A run without an id whose owner died is carried into the next one; one that was left waits for a run of its own.
    carried = [row.but(run_id=run_id) for row in idle if row.run_id is None and row.state == "open"]
    every = [*same, *carried, *rows]
    known = [finish.rows for finish in known_finishes(every)]
    fresh = [row for row in every if not row.finish]
    number = new_id() if run_id is not None and not known else 0
    return tuple(take(view, group, claims, number=number) for group in [*known, fresh] if group)


def begin(view: View, finish: Finish) -> Finish | None:
    """Note that a claimed finish is about to be sent; None when it is not ours any more."""
    number, ours = new_id(), view.ours(finish)
    return Finish(tuple(view.put(row, finish=number) for row in ours)) if ours else None

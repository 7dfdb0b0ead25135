"""What is owed, and who may send it: found in the journal, and claimed. No I/O.

A process of Anymate has at most one open run, so *the run* of a process is shared by all guards that are in it. A
*finish* is one FinishRun for some rows of one run. Once it may have been sent, it stays as it is: no row is added to it
or taken away, so that whatever its answer turns out to be, it holds for each of its rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Literal

from anymate_guard._journal.rows import Finish, Row, new_id
from anymate_guard._journal.view import Claims, View

Standing = Literal["entering", "inside", "outside"]
Finishes = tuple[Finish, ...]  # of one run, in the order in which they have to be sent


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
    return tuple(tuple(take(view, finish.rows, claims) for finish in finishes) for finishes in chosen)


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
        finishes = known_finishes(group)
        fresh = tuple(row for row in group if not row.finish)
        if fresh and not (standing == "entering" and fresh[0].state == "open"):  # else it is carried
            finishes.append(Finish(fresh))
        ours = any(row.username == of.username for finish in finishes for row in finish.rows)
        if ours and not blocked:
            found.append(tuple(finishes))
    return found


def take(view: View, rows: Sequence[Row], claims: Claims, *, number: int = 0) -> Finish:
    """Claim rows for one finish; a number says that it may be sent from now on."""
    numbers = {row.id for row in rows}
    known = rows[0].finish != 0
    claims.rows |= numbers
    if not known:
        claims.unsent |= numbers
    number = new_id() if known else number  # so that whoever sent it before sees that it may be sent again
    return Finish(tuple(view.put(row, owner=view.me, state="finishing", finish=number) for row in rows), known)


def known_finishes(rows: Iterable[Row]) -> list[Finish]:
    """The finishes among rows of one run that may have been sent: they go before others, as they were."""
    groups: defaultdict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.finish:
            groups[row.finish].append(row)
    return [Finish(tuple(group), known=True) for group in groups.values()]


def numbers_of(finishes: Iterable[Finish]) -> set[int]:
    """The ids of the rows of all of them."""
    return {number for finish in finishes for number in finish.numbers}

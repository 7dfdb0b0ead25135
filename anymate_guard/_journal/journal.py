"""What is open and what is owed, in sqlite: one row for every run in use and every finish not acknowledged."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import attrs

from anymate_guard._deadline import Deadline
from anymate_guard._journal.database import Connection, Database, Statement, begin, execute
from anymate_guard._journal.owners import Owner
from anymate_guard._journal.rules import Account, Claims, Entered, Owed, Row, View, total
from anymate_guard._process.fork import importing, in_child

T = TypeVar("T")

_VERSION = 1
_SCHEMA = (
    """CREATE TABLE rows (
    id INTEGER PRIMARY KEY,
    address TEXT NOT NULL,
    username TEXT NOT NULL,
    process_key TEXT NOT NULL,
    run_id INTEGER,
    owner INTEGER NOT NULL,
    state TEXT NOT NULL,
    entries INTEGER,
    nanoseconds INTEGER,
    zeros INTEGER NOT NULL,
    sent INTEGER NOT NULL,
    at REAL NOT NULL
    )""",
    "CREATE TABLE outages (address TEXT PRIMARY KEY, at REAL NOT NULL)",
)
_COLUMNS = "id, address, username, process_key, run_id, owner, state, entries, nanoseconds, zeros, sent, at"
_READ = f"SELECT {_COLUMNS} FROM rows"  # noqa: S608  # nothing of it comes from outside
_READ_ALL = f"{_READ} ORDER BY at"
_READ_ACCOUNT = f"{_READ} WHERE address = ? AND username = ? ORDER BY at"
_PUT = "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Put a row unless the rules would have to look at others: those of other programs, what is owed, what is on the same
# process key or run, or an outage.
_PUT_ALONE = """
    INSERT OR REPLACE INTO rows SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
    WHERE NOT EXISTS (
        SELECT 1 FROM rows WHERE address = ? AND username = ? AND id <> ?
        AND (owner <> ? OR state = 'done' OR process_key = ? OR run_id = ?)
    ) AND NOT EXISTS (SELECT 1 FROM outages WHERE address = ?)
"""
_PUT_BACK = (
    "UPDATE rows SET state = 'done', sent = sent OR run_id NOTNULL WHERE id = ? AND owner = ? AND state = 'finishing'"
)
_DELETE = "DELETE FROM rows WHERE id = ?"
_OUTAGE = 60.0  # seconds for which an address counts as unreachable
_LEAST = 0.5  # seconds to wait for a locked journal where a finish would else have to be kept in memory


class Journal:
    """The journal in one folder; `Journal.at` gives the one of this process.

    Nothing here raises for a journal that can't be used: it warns once per process, and the operation goes on as if
    there were none.
    """

    def __init__(self, folder: Path) -> None:
        self._database = Database(folder, _VERSION, _SCHEMA)
        self.path = self._database.path

    @staticmethod
    def at(folder: Path | None) -> Journal:
        """The journal in a folder, or in the user's state directory; one per folder and process."""
        name = os.path.abspath(folder or _user_folder())  # noqa: PTH100
        with _opening:
            journal = _journals.get(name)
            if journal is None:
                real = os.path.realpath(name)
                journal = _journals.get(real) or Journal(Path(real))
                _journals[name] = _journals[real] = journal
            return journal

    @property
    def behind(self) -> bool:
        """Whether there is something that could not be written yet."""
        return self._database.behind

    def enter(self, row: Row, claims: Claims, deadline: Deadline, *, settle: bool) -> Entered:
        """Put a row into the journal before its StartRun, unless there is something to do first.

        Args:
            row: `starting`, or `open` with the id of a run that is adopted.
            claims: Gets the rows that are claimed.
            deadline: When to give up waiting for a locked journal.
            settle: Whether to claim finishes that are owed to the account; the row is put only if there are none.
        """

        def rule(view: View) -> Entered:
            return view.enter(row, claims, settle=settle)

        return self._rule(row.account, rule, Entered(), deadline, (row, claims))

    def claim(self, account: Account, claims: Claims, deadline: Deadline) -> Entered:
        """Claim finishes that are owed to an account, without entering."""

        def rule(view: View) -> Entered:
            return Entered(owed=view.claim(claims), outage=view.outage)

        return self._rule(account, rule, Entered(), deadline)

    def named(self, row: Row, carried: Iterable[Row], deadline: Deadline) -> None:
        """Note the run that StartRun named, and carry into it what dead owners left without one."""
        row.state = "open"
        statements: list[Statement] = [(_PUT, row.values())]
        if row.run_id is not None:
            carry = "UPDATE rows SET run_id = ? WHERE id = ? AND run_id IS NULL AND state = 'open'"
            statements += [(carry, (row.run_id, other.id)) for other in carried]
        self._database.do(lambda connection: execute(connection, statements), None, deadline, _LEAST)

    def record(self, rows: Iterable[tuple[Row, int | None, int | None]], deadline: Deadline) -> bool:
        """Write the KPIs so far, entries and nanoseconds, of rows that are open; False if that was not possible."""

        def work(connection: Connection) -> bool:
            begin(connection)
            for row, entries, nanoseconds in rows:
                if row.state == "open":  # who leaves changes that first, and then waits for us
                    row.owner = self._database.me().id
                    connection.execute(_PUT, attrs.evolve(row, entries=entries, nanoseconds=nanoseconds).values())
            return True

        return self._database.do(work, False, deadline)

    def start_late(self, row: Row, claims: Claims, deadline: Deadline) -> Owed | None:
        """Claim a row whose run never got an id, to start and finish it; None while another finish is under way."""
        alone: Owed | None = total([row])
        return self._rule(row.account, lambda view: view.start_late(row, claims), alone, deadline, (row, claims))

    def leave(self, row: Row, claims: Claims, deadline: Deadline) -> Owed | None:
        """Mark a row done. The last one out gets the finish to be sent for all rows of its run; others get None."""
        row.state = "done"
        alone: Owed | None = total([row])
        return self._rule(row.account, lambda view: view.leave(row, claims), alone, deadline, (row, claims))

    def store(self, owed: Owed, claims: Claims, deadline: Deadline, *, sent: bool, unreachable: bool = False) -> bool:
        """Give a claimed finish back, as it could not be delivered; False when the journal does not hold it.

        Args:
            owed: The finish.
            claims: Where it was claimed.
            deadline: When to give up waiting for a locked journal.
            sent: Whether it may have reached Anymate.
            unreachable: Whether to note that its address was unreachable just now.
        """
        rows = [attrs.evolve(row, state="done", sent=sent, run_id=owed.run_id) for row in owed.rows]
        statements: list[Statement] = [(_PUT, row.values()) for row in rows]
        if unreachable:
            statements.append(_outage(owed.rows[0].address))
        stored = self._database.write(statements, deadline, _LEAST)
        claims.drop(owed.rows)
        return stored or owed.written

    def give_back(self, owed: Iterable[Owed], claims: Claims, deadline: Deadline) -> None:
        """Give back claimed finishes that were not tried."""
        rows = [row for one in owed for row in one.rows]
        statements = [(_PUT, attrs.evolve(row, state="done").values()) for row in rows]
        self._database.write(statements, deadline, _LEAST)
        claims.drop(rows)

    def forget(self, rows: Sequence[Row], deadline: Deadline, *, reachable: bool = False) -> None:
        """Delete rows that are settled, and the note of an outage that is over."""
        statements: list[Statement] = [(_DELETE, (row.id,)) for row in rows]
        if reachable:
            statements.append(_no_outage(rows[0].address))
        self._database.write(statements, deadline, _LEAST)

    def put_back(self, claims: Claims, deadline: Deadline, row: Row | None = None) -> None:
        """Give back what a call that was interrupted has claimed, and keep what a row that it leaves is owed."""
        me = self._database.owner_id
        statements: list[Statement] = [(_PUT_BACK, (number, me)) for number in claims.held]
        if row is not None:
            row.state, row.owner, row.sent = "done", row.owner or me, row.sent or row.id in claims.tried
            statements.append((_PUT, row.values()))
        if statements:
            self._database.write(statements, deadline, _LEAST)
        claims.held.clear()

    def unreachable(self, address: str, deadline: Deadline) -> None:
        """Note that an address was unreachable just now."""
        self._database.do(lambda connection: execute(connection, [_outage(address)]), None, deadline)

    def reachable(self, address: str, deadline: Deadline) -> None:
        """Note that an address answers again."""
        self._database.do(lambda connection: execute(connection, [_no_outage(address)]), None, deadline)

    def rows(self, deadline: Deadline) -> list[tuple[Row, bool]]:
        """Every row, and whether its owner is alive."""

        def work(connection: Connection) -> list[tuple[Row, bool]]:
            rows = [Row.of(columns) for columns in connection.execute(_READ_ALL)]
            return [(row, self._database.me().alive(row.owner)) for row in rows]

        return self._database.do(work, [], deadline)

    def close(self) -> None:
        """Write what could not be written yet, and close the file; the next operation opens it again."""
        if self.behind:
            self._database.write([], Deadline.after(_LEAST), _LEAST)
        self._database.close()

    def _rule(
        self,
        account: Account,
        rule: Callable[[View], T],
        otherwise: T,
        deadline: Deadline,
        mine: tuple[Row, Claims] | None = None,
    ) -> T:
        """Apply a rule to the rows of an account, and write what it changed.

        A rule about one row is tried as if there were no others, as is most often so: that takes a single statement.
        """

        def work(connection: Connection) -> T:
            owner = self._database.me()
            if mine is not None:
                put, result = _put_alone(connection, owner, rule, *mine)
                if put:
                    return result
            begin(connection)
            rows = [Row.of(columns) for columns in connection.execute(_READ_ACCOUNT, account)]
            found = connection.execute("SELECT at FROM outages WHERE address = ?", account[:1]).fetchone()
            outage = found is not None and abs(time.time() - found[0]) < _OUTAGE
            if found is not None and not outage:
                execute(connection, [_no_outage(account[0])])
            view = View(rows, owner.id, owner.alive, outage=outage)
            result = rule(view)
            execute(connection, [(_PUT, row.values()) for row in view.changed])
            execute(connection, [(_DELETE, (row.id,)) for row in view.dropped])
            return result

        return self._database.do(work, otherwise, deadline)


def _put_alone(
    connection: Connection, owner: Owner, rule: Callable[[View], T], row: Row, claims: Claims
) -> tuple[bool, T]:
    """Apply a rule to a row as if there were no others; False, and nothing is changed, where there are some."""
    before = row.state, row.owner, row.sent, dict(claims.held), set(claims.tried)
    result = rule(View([], owner.id, owner.alive, outage=False))
    condition = (*row.account, row.id, owner.id, row.process_key, row.run_id, row.address)
    put = False
    try:
        put = connection.execute(_PUT_ALONE, (*row.values(), *condition)).rowcount == 1
    except Exception:  # not for an interruption, before which the row may have been put
        row.state, row.owner, row.sent, claims.held, claims.tried = before
        raise
    if not put:
        row.state, row.owner, row.sent, claims.held, claims.tried = before
    return put, result


def _user_folder() -> str:
    with importing():
        import platformdirs  # 4 ms

    return platformdirs.user_state_dir("anymate_guard", appauthor=False)


def close_all() -> None:
    """Close every journal of this process."""
    for journal in all_journals():
        journal.close()


def all_journals() -> set[Journal]:
    """Every journal that this process has used."""
    with _opening:
        return set(_journals.values())


def _outage(address: str) -> Statement:
    return "INSERT OR REPLACE INTO outages VALUES (?, ?)", (address, time.time())


def _no_outage(address: str) -> Statement:
    return "DELETE FROM outages WHERE address = ?", (address,)


_opening = threading.Lock()
_journals: dict[str, Journal] = {}


def _after_fork() -> None:
    global _opening, _journals
    _opening, _journals = threading.Lock(), {}


in_child(_after_fork)

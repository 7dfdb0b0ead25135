"""What is open and what is owed, in sqlite: one row for every run in use and every finish not acknowledged."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs

from anymate_guard._deadline import Deadline
from anymate_guard._fork import around, importing
from anymate_guard._log import emit
from anymate_guard._owner import Owner
from anymate_guard._rows import Account, Claims, Damaged, Entered, Owed, Row, View, total

T = TypeVar("T")
Statement = tuple[str, tuple[object, ...]]

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
_PUT_BACK = (
    "UPDATE rows SET state = 'done', sent = sent OR run_id NOTNULL WHERE id = ? AND owner = ? AND state = 'finishing'"
)
_DELETE = "DELETE FROM rows WHERE id = ?"
_OUTAGE = 60.0  # seconds for which an address counts as unreachable
_PATIENCE = 2.0  # seconds to wait for a locked journal, at most
_LEAST = 0.5  # seconds to wait for it where a finish would else have to be kept in memory
_FORKING = 1.0  # seconds that a fork waits for it: a signal handler may fork in the middle of it all
_POLL = 0.01
_TROUBLE = (sqlite3.Error, OSError, OverflowError, UnicodeError, Damaged)


class Journal:
    """The journal in one folder; `Journal.at` gives the one of this process.

    Nothing here raises for a journal that can't be used: it warns once per process, and the operation goes on as if
    there were none.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.sqlite3"
        self._names = str(self.path), str(self.path.with_name("owners.lock"))  # a Path takes longer to look at
        # Never held while waiting for a locked file, so that a fork may wait for it. Reentrant, as the garbage
        # collector may close a generator, and leave the guard in it, anywhere.
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._inode = 0
        self._owner: Owner | None = None
        self._warned = False
        self._later: list[Statement] = []  # what could not be written when it was due

    @staticmethod
    def at(folder: Path | None) -> Journal:
        """The journal in a folder, or in the user's state directory; one per folder and process."""
        name = os.path.abspath(folder or _user_folder())  # noqa: PTH100
        with _opening:
            journal = _journals.get(name)
            if journal is None:
                real = os.path.realpath(name)
                journal = _journals[name] = _journals.setdefault(real, Journal(Path(real)))
            return journal

    @property
    def behind(self) -> bool:
        """Whether there is something that could not be written yet."""
        return bool(self._later)

    def enter(self, row: Row, claims: Claims, deadline: Deadline, *, settle: bool) -> Entered:
        """Put a row into the journal before its StartRun, unless there is something to do first.

        Args:
            row: `starting`, or `open` with the id of a run that is adopted.
            claims: Gets the rows that are claimed.
            deadline: When to give up waiting for a locked journal.
            settle: Whether to claim finishes that are owed to the account; the row is put only if there are none.
        """
        return self._rule(row.account, lambda view: view.enter(row, claims, settle=settle), Entered(), deadline)

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
        self._do(lambda database: _execute(database, statements), None, deadline, _LEAST)

    def record(self, rows: Iterable[tuple[Row, int | None, int | None]], deadline: Deadline) -> bool:
        """Write the KPIs so far, entries and nanoseconds, of rows that are open; False if that was not possible."""

        def work(database: sqlite3.Connection) -> bool:
            for row, entries, nanoseconds in rows:
                if row.state == "open":  # who leaves changes that first, and then waits for us
                    row.owner = self._me().id
                    database.execute(_PUT, attrs.evolve(row, entries=entries, nanoseconds=nanoseconds).values())
            return True

        return self._do(work, False, deadline)

    def start_late(self, row: Row, claims: Claims, deadline: Deadline) -> Owed | None:
        """Claim a row whose run never got an id, to start and finish it; None while another finish is under way."""
        alone: Owed | None = total([row])
        return self._rule(row.account, lambda view: view.start_late(row, claims), alone, deadline)

    def leave(self, row: Row, claims: Claims, deadline: Deadline) -> Owed | None:
        """Mark a row done. The last one out gets the finish to be sent for all rows of its run; others get None."""
        row.state = "done"
        alone: Owed | None = total([row])
        return self._rule(row.account, lambda view: view.leave(row, claims), alone, deadline)

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
        stored = self._write(statements, deadline)
        claims.drop(owed.rows)
        return stored or owed.written

    def give_back(self, owed: Iterable[Owed], claims: Claims, deadline: Deadline) -> None:
        """Give back claimed finishes that were not tried."""
        rows = [row for one in owed for row in one.rows]
        self._write([(_PUT, attrs.evolve(row, state="done").values()) for row in rows], deadline)
        claims.drop(rows)

    def forget(self, rows: Sequence[Row], deadline: Deadline, *, reachable: bool = False) -> None:
        """Delete rows that are settled, and the note of an outage that is over."""
        statements: list[Statement] = [(_DELETE, (row.id,)) for row in rows]
        if reachable:
            statements.append(_no_outage(rows[0].address))
        self._write(statements, deadline)

    def put_back(self, claims: Claims, deadline: Deadline, row: Row | None = None) -> None:
        """Give back what a call that was interrupted has claimed, and keep what a row that it leaves is owed."""
        me = self._owner.id if self._owner else 0
        statements: list[Statement] = [(_PUT_BACK, (number, me)) for number in claims.held]
        if row is not None:
            row.state, row.owner, row.sent = "done", row.owner or me, row.sent or row.id in claims.tried
            statements.append((_PUT, row.values()))
        if statements:
            self._write(statements, deadline)
        claims.held.clear()

    def unreachable(self, address: str, deadline: Deadline) -> None:
        """Note that an address was unreachable just now."""
        self._do(lambda database: _execute(database, [_outage(address)]), None, deadline)

    def reachable(self, address: str, deadline: Deadline) -> None:
        """Note that an address answers again."""
        self._do(lambda database: _execute(database, [_no_outage(address)]), None, deadline)

    def rows(self, deadline: Deadline) -> list[tuple[Row, bool]]:
        """Every row, and whether its owner is alive."""

        def work(database: sqlite3.Connection) -> list[tuple[Row, bool]]:
            rows = [Row.of(columns) for columns in database.execute(_READ_ALL)]
            return [(row, self._me().alive(row.owner)) for row in rows]

        return self._do(work, [], deadline)

    def close(self) -> None:
        """Write what could not be written yet, and close the file; the next operation opens it again."""
        if self.behind:
            self._write([], Deadline.after(_LEAST))
        with self._lock:
            self._disconnect()

    def _rule(self, account: Account, rule: Callable[[View], T], otherwise: T, deadline: Deadline) -> T:
        """Apply a rule to the rows of an account, and write what it changed."""

        def work(database: sqlite3.Connection) -> T:
            rows = [Row.of(columns) for columns in database.execute(_READ_ACCOUNT, account)]
            found = database.execute("SELECT at FROM outages WHERE address = ?", account[:1]).fetchone()
            outage = found is not None and abs(time.time() - found[0]) < _OUTAGE
            owner = self._me()
            view = View(rows, owner.id, owner.alive, outage=outage)
            result = rule(view)
            _execute(database, [(_PUT, row.values()) for row in view.changed])
            _execute(database, [(_DELETE, (row.id,)) for row in view.dropped])
            return result

        return self._do(work, otherwise, deadline)

    def _write(self, statements: Sequence[Statement], deadline: Deadline) -> bool:
        """Write now, or with the next change; False for the latter."""

        def work(database: sqlite3.Connection) -> bool:
            _execute(database, statements)
            return True

        written = self._do(work, False, deadline, _LEAST)
        if not written:
            with self._lock:
                self._later = [*self._later, *statements]
        return written

    def _do(self, work: Callable[[sqlite3.Connection], T], otherwise: T, deadline: Deadline, least: float = 0.0) -> T:
        """Do one transaction, or without the journal."""
        end = time.monotonic() + max(least, min(_PATIENCE, deadline.left() / 4))
        while True:
            with self._lock:
                try:
                    return self._transact(work)
                except _TROUBLE as error:
                    if not _is_locked(error) or time.monotonic() >= end:
                        self._warn(error, self._recover(error))
                        return otherwise
            time.sleep(random.uniform(0, _POLL))  # so that many that wait don't ask in step

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        database = self._connect()
        later = self._later
        try:
            with database:  # commits or rolls back in one step, which no signal's exception can come between
                database.execute("BEGIN IMMEDIATE")
                _execute(database, later)
                result = work(database)
                self._later = []
        except BaseException:
            self._later = later
            raise
        return result

    def _me(self) -> Owner:
        name = self._names[1]
        if self._owner is None:
            self._owner = Owner(Path(name))
        elif _inode(name) != self._owner.inode:  # somebody cleaned up: be seen in the new file, too
            self._owner = Owner(Path(name), self._owner.id)
        return self._owner

    def _connect(self) -> sqlite3.Connection:
        if self._database is not None and _inode(self._names[0]) != self._inode:
            self._disconnect()  # it was moved aside or deleted
        if self._database is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._inode = _inode(self._names[0])
            database = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                _prepare(database)
            except BaseException:
                database.close()
                raise
            self._database = database
        return self._database

    def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _recover(self, error: Exception) -> str:
        """See that the next operation can start afresh; what people can do comes back."""
        if _is_locked(error):
            return "close the program that holds it"
        self._disconnect()
        if isinstance(error, _Newer):
            return "upgrade anymate_guard, or set ANYMATE_STATE_DIR to another folder"
        if _is_damaged(error):
            return f"it was moved to {self._move_aside()}; what it held may still be read from there"
        return "make room and make the folder writable, or set ANYMATE_STATE_DIR to another one"

    def _move_aside(self) -> Path:
        aside = self.path.with_name(f"{self.path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        with contextlib.suppress(OSError), self._me().alone():
            if _inode(self._names[0]) == self._inode:  # else another program has moved it and made a new one
                for suffix in ("-wal", "-shm", ""):
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")  # noqa: PTH104  # a suffix, not a path
        return aside

    def _warn(self, error: object, remedy: str) -> None:
        if not self._warned:
            self._warned = True
            emit("warning", "anymate.journal_unavailable", path=str(self.path), error=str(error), remedy=remedy)


class _Newer(sqlite3.Error):
    """The file has a schema that this version does not know."""


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


def _execute(database: sqlite3.Connection, statements: Iterable[Statement]) -> None:
    for statement, values in statements:
        database.execute(statement, values)


def _inode(path: str) -> int:
    """Which file a path leads to; 0 for none."""
    try:
        return os.stat(path).st_ino  # noqa: PTH116  # half the time of Path.stat
    except FileNotFoundError:
        return 0


def _is_locked(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "lock" in str(error)


def _is_damaged(error: Exception) -> bool:
    """Whether the file is no database, a malformed one, or somebody else's."""
    foreign = isinstance(error, sqlite3.OperationalError) and any(
        sign in str(error) for sign in ("no such", "columns", "decode", "already exists")
    )
    return foreign or isinstance(error, (Damaged, sqlite3.IntegrityError)) or type(error) is sqlite3.DatabaseError


def _prepare(database: sqlite3.Connection) -> None:
    """Set up a connection, and the tables in a new file."""
    database.execute("PRAGMA page_size = 1024")  # in a new file; a page is written for every change
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA wal_autocheckpoint = 4000")
    database.execute("PRAGMA synchronous = NORMAL")
    with database:
        database.execute("BEGIN IMMEDIATE")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise _Newer(f"its schema {version} is newer than {_VERSION}")
        if version == 0:
            for statement in _SCHEMA:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_VERSION}")


_opening = threading.Lock()
_journals: dict[str, Journal] = {}
_stopped: list[Any] = []  # locks that are held while the process forks
_leaked: list[object] = []


def _before_fork() -> None:
    # sqlite keeps note of its locks in memory: a child that inherited an open file would believe that it holds the
    # locks of its parent. So no file is open, and nobody is at it, while a process forks.
    locks: list[Any] = [_opening, *(journal._lock for journal in set(_journals.values()))]
    _stopped.extend(lock for lock in locks if lock.acquire(timeout=_FORKING))
    for journal in _journals.values():
        if journal._lock in _stopped:
            journal._disconnect()


def _after_fork_in_parent() -> None:
    while _stopped:
        _stopped.pop().release()


def _after_fork() -> None:
    # Closed, a parent's lock file would take nobody's lock away, but its number may be needed; kept, it does no harm.
    global _opening, _journals
    _stopped.clear()
    _leaked.append(_journals)
    _opening, _journals = threading.Lock(), {}


around(_before_fork, _after_fork_in_parent, _after_fork)

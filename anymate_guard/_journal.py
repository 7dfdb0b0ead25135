"""What is open and what is owed, in sqlite: one row for every run in use and every finish not acknowledged.

The rules of a row's life:

- `starting`, before StartRun is sent: others that leave the same process key see it and don't finish the run.
- `open`, while the body runs.
- `done`, when the body has ended but the finish is not acknowledged.
- `finishing`, while its owner sends the finish: others that enter the same process key wait for it.

A row whose owner is dead stays as it is until a guard, or `anymate-guard journal deliver`, settles it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import attrs
import platformdirs

from anymate_guard._deadline import Deadline
from anymate_guard._fork import in_child
from anymate_guard._log import emit
from anymate_guard._owner import Owner
from anymate_guard._run import MOST, Kpis

State = Literal["starting", "open", "done", "finishing"]
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
    sent INTEGER NOT NULL
    )""",
    "CREATE INDEX rows_of_account ON rows (address, username)",
    "CREATE TABLE outages (address TEXT PRIMARY KEY, at REAL NOT NULL)",
)
_COLUMNS = "id, address, username, process_key, run_id, owner, state, entries, nanoseconds, zeros, sent"
_PUT = f"INSERT OR REPLACE INTO rows ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_PATIENCE = 2.0  # seconds to wait for a locked journal, at most
_BATCH = 32  # finishes claimed at once: others can't enter those process keys meanwhile
_OUTAGE = 60.0  # seconds for which an address counts as unreachable


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
        owner: The program, by its owner id.
        state: Where in its life it is, see the module's docstring.
        entries: Entries recorded.
        nanoseconds: Time saved recorded.
        zeros: Whether KPIs that were not recorded count as 0; for a row whose owner died, whether that was asked for.
        sent: Whether a FinishRun may have reached Anymate.
        id: The row's own number.
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

    @classmethod
    def of(cls, columns: Sequence[Any]) -> Row:
        """The row of these columns."""
        number, address, username, key, run_id, owner, state, entries, nanoseconds, zeros, sent = columns
        return cls(
            address, username, key, run_id, owner, state, entries, nanoseconds, bool(zeros), bool(sent), number
        )

    def values(self) -> tuple[object, ...]:
        """In the order of the columns."""
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
        )


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
    """

    process_key: str
    run_id: int | None
    kpis: Kpis
    sent: bool
    rows: tuple[Row, ...]
    outage: bool = False


@attrs.frozen
class Entered:
    """What an entering guard meets.

    Attributes:
        busy: Another program is sending a finish for this process key; try again when it is done.
        owed: Finishes claimed for it to settle first; it is not in yet when there are any.
        carried: Rows that a dead owner left on this process key, to be carried into the run.
        outage: Whether the address was unreachable less than a minute ago.
    """

    busy: bool = False
    owed: tuple[Owed, ...] = ()
    carried: tuple[Row, ...] = ()
    outage: bool = False


class Journal:
    """The journal in one folder; `Journal.at` gives the one of this process.

    Nothing here raises for a journal that can't be used: it warns once per process, and the operation goes on as if
    there were none.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.sqlite3"
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._inode = 0
        self._owner: Owner | None = None
        self._warned = False
        self._forgotten: set[tuple[int]] = set()  # settled rows that could not be deleted yet

    @staticmethod
    def at(folder: Path | None) -> Journal:
        """The journal in a folder, or in the user's state directory; one per folder and process."""
        folder = Path(os.path.realpath(folder or platformdirs.user_state_dir("anymate_guard", appauthor=False)))
        with _opening:
            journal = _journals.get(folder)
            if journal is None:
                journal = _journals[folder] = Journal(folder)
            return journal

    def enter(self, row: Row, deadline: Deadline, *, settle: bool) -> Entered:
        """Put a row into the journal before its StartRun, unless there is something to do first.

        Args:
            row: `starting`, or `open` with the id of a run that is adopted.
            deadline: When to give up waiting for a locked journal.
            settle: Whether to claim finishes that are owed to the account; the row is put only if there are none.
        """

        def work(database: sqlite3.Connection) -> Entered:
            view = self._view(database, row)
            if any(other.state == "finishing" and view.alive(other) for other in view.of_key(row.process_key)):
                return Entered(busy=True)
            view.drop_dead_starts()
            owed = view.claim(entering=row) if settle else ()
            if owed:
                return Entered(owed=owed, outage=view.outage)
            row.owner = view.me
            database.execute(_PUT, row.values())
            carried = tuple(other for other in view.of_key(row.process_key) if view.left_behind(other))
            return Entered(carried=carried, outage=view.outage)

        return self._do(work, Entered(), deadline)

    def claim(self, account: Row, deadline: Deadline) -> Entered:
        """Claim finishes that are owed to an account, without entering."""

        def work(database: sqlite3.Connection) -> Entered:
            view = self._view(database, account)
            view.drop_dead_starts()
            return Entered(owed=view.claim(entering=None), outage=view.outage)

        return self._do(work, Entered(), deadline)

    def named(self, row: Row, carried: Iterable[Row], deadline: Deadline) -> None:
        """Note the run that StartRun named, and carry into it what dead owners left without one."""

        def work(database: sqlite3.Connection) -> None:
            database.execute(_PUT, row.values())
            for other in carried:
                if other.run_id is None and row.run_id is not None:
                    database.execute("UPDATE rows SET run_id = ? WHERE id = ?", (row.run_id, other.id))

        self._do(work, None, deadline)

    def record(self, row: Row, deadline: Deadline) -> None:
        """Write the KPIs so far of a row that is open."""
        values = (row.entries, row.nanoseconds, row.zeros, row.id)
        self._change(
            "UPDATE rows SET entries = ?, nanoseconds = ?, zeros = ? WHERE id = ? AND state = 'open'", values, deadline
        )

    def late_start(self, row: Row, deadline: Deadline) -> Owed | None:
        """Claim a row whose run never got an id, to start and finish it; None while another finish is under way."""

        def work(database: sqlite3.Connection) -> Owed | None:
            view = self._view(database, row)
            others = [other for other in view.of_key(row.process_key) if other.id != row.id]
            if any(other.state == "finishing" and view.alive(other) for other in others):
                return None
            owed = view.take([row])
            database.execute(_PUT, row.values())
            return owed

        return self._do(work, total([row]), deadline)

    def leave(self, row: Row, deadline: Deadline) -> Owed | None:
        """Mark a row done. The last one out gets the finish to be sent for all rows of its run; others get None."""
        row.state = "done"

        def work(database: sqlite3.Connection) -> Owed | None:
            view = self._view(database, row)
            row.owner = view.me
            database.execute(_PUT, row.values())
            others = [other for other in view.rows if other.id != row.id]
            for other in others:
                same = other.run_id == row.run_id
                nameless = other.run_id is None and other.process_key == row.process_key
                if (same or (nameless and other.state in {"starting", "finishing"})) and view.in_use(other):
                    return None
            return view.take([row, *(other for other in others if other.run_id == row.run_id)])

        return self._do(work, total([row]), deadline)

    def store(self, owed: Owed, deadline: Deadline, *, sent: bool) -> bool:
        """Give a claimed finish back, as it could not be delivered; False when it could not be stored either."""
        rows = [attrs.evolve(row, state="done", sent=sent, run_id=owed.run_id).values() for row in owed.rows]

        def work(database: sqlite3.Connection) -> bool:
            database.executemany(_PUT, rows)
            return True

        return self._do(work, False, deadline)

    def forget(self, rows: Iterable[Row], deadline: Deadline) -> None:
        """Delete rows that are settled; what can't be deleted now goes with the next change."""
        self._forgotten.update((row.id,) for row in rows)
        self._do(lambda _: None, None, deadline)

    def unreachable(self, address: str, deadline: Deadline) -> None:
        """Note that an address was unreachable just now."""
        self._change("INSERT OR REPLACE INTO outages VALUES (?, ?)", (address, time.time()), deadline)

    def reachable(self, address: str, deadline: Deadline) -> None:
        """Note that an address answers again."""
        self._change("DELETE FROM outages WHERE address = ?", (address,), deadline)

    def rows(self, deadline: Deadline) -> list[tuple[Row, bool]]:
        """Every row, and whether its owner is alive."""

        def work(database: sqlite3.Connection) -> list[tuple[Row, bool]]:
            rows = [Row.of(columns) for columns in database.execute(f"SELECT {_COLUMNS} FROM rows ORDER BY rowid")]  # noqa: S608
            return [(row, self._me().alive(row.owner)) for row in rows]

        return self._do(work, [], deadline)

    def close(self) -> None:
        """Close the file; the next operation opens it again."""
        with self._lock:
            self._disconnect()

    def _do(self, work: Callable[[sqlite3.Connection], T], otherwise: T, deadline: Deadline) -> T:
        """Do one transaction, or without the journal."""
        patience = min(_PATIENCE, max(0.05, deadline.left() / 4))
        if not self._lock.acquire(timeout=patience):
            self._warn("busy", "another thread waits for it; ")
            return otherwise
        try:
            database = self._connect(patience)
            database.execute("BEGIN IMMEDIATE")
            try:
                forgotten = list(self._forgotten)  # another thread may add to it meanwhile
                if forgotten:
                    database.executemany("DELETE FROM rows WHERE id = ?", forgotten)
                result = work(database)
                database.execute("COMMIT")
            except BaseException:
                database.rollback()
                raise
            self._forgotten.difference_update(forgotten)
            return result
        except (sqlite3.Error, OSError) as error:
            self._unavailable(error)
            return otherwise
        finally:
            self._lock.release()

    def _change(self, statement: str, values: tuple[object, ...], deadline: Deadline) -> None:
        def work(database: sqlite3.Connection) -> None:
            database.execute(statement, values)

        self._do(work, None, deadline)

    def _view(self, database: sqlite3.Connection, row: Row) -> _View:
        return _View(database, self._me(), row)

    def _me(self) -> Owner:
        if self._owner is None:
            self._owner = Owner(self.path.with_name("owners.lock"))
        return self._owner

    def _connect(self, patience: float) -> sqlite3.Connection:
        if self._database is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            self._inode = os.fstat(file).st_ino
            os.close(file)
            database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            try:
                _prepare(database, patience)
            except BaseException:
                database.close()
                raise
            self._database = database
        self._database.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
        return self._database

    def _disconnect(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def _unavailable(self, error: sqlite3.Error | OSError) -> None:
        """Warn, and see that the next operation starts afresh."""
        if type(error) is sqlite3.DatabaseError:  # not a database, or a malformed one
            self._disconnect()
            self._warn(error, f"it was moved to {self._move_aside()}; what it held may still be read from there")
        elif isinstance(error, _Newer):
            self._warn(error, "upgrade anymate_guard, or set ANYMATE_STATE_DIR to another folder")
        elif "locked" in str(error):
            self._warn(error, "close the program that holds it")
        else:
            self._disconnect()
            self._warn(error, "make room and make the folder writable, or set ANYMATE_STATE_DIR to another one")

    def _move_aside(self) -> Path:
        aside = self.path.with_name(f"{self.path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}")
        with contextlib.suppress(OSError):
            if self.path.stat().st_ino == self._inode:  # else another program has moved it and made a new one
                self.path.rename(aside)
                for suffix in ("-wal", "-shm"):
                    with contextlib.suppress(OSError):
                        os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")  # noqa: PTH104  # a suffix, not a path
        return aside

    def _warn(self, error: object, remedy: str) -> None:
        if not self._warned:
            self._warned = True
            emit("warning", "anymate.journal_unavailable", path=str(self.path), error=str(error), remedy=remedy)


class _Newer(sqlite3.Error):
    """The file has a schema that this version does not know."""


class _View:
    """The rows of an account within one transaction, and who of their owners is alive."""

    def __init__(self, database: sqlite3.Connection, owner: Owner, account: Row) -> None:
        query = f"SELECT {_COLUMNS} FROM rows WHERE address = ? AND username = ? ORDER BY rowid"  # noqa: S608
        self.rows = [Row.of(columns) for columns in database.execute(query, (account.address, account.username))]
        self.me = owner.id
        self._address = account.address
        self._database = database
        self._owner = owner
        self._alive: dict[int, bool] = {}

    def alive(self, row: Row) -> bool:
        """Whether a row's owner still runs."""
        if row.owner not in self._alive:
            self._alive[row.owner] = self._owner.alive(row.owner)
        return self._alive[row.owner]

    @property
    def outage(self) -> bool:
        """Whether the account's address was unreachable less than a minute ago."""
        found = self._database.execute("SELECT at FROM outages WHERE address = ?", (self._address,)).fetchone()
        return found is not None and abs(time.time() - found[0]) < _OUTAGE

    def in_use(self, row: Row) -> bool:
        """Whether a live program is in the row's run, or about to start or finish it."""
        return row.state != "done" and self.alive(row)

    def of_key(self, process_key: str) -> list[Row]:
        """The rows of one process key."""
        return [row for row in self.rows if row.process_key == process_key]

    def left_behind(self, row: Row) -> bool:
        """Whether a row's body ran when its owner died."""
        return row.state == "open" and not self.alive(row)

    def drop_dead_starts(self) -> None:
        """Delete the rows whose body never ran."""
        dead = [row for row in self.rows if row.state == "starting" and not self.alive(row)]
        if dead:
            self._database.executemany("DELETE FROM rows WHERE id = ?", [(row.id,) for row in dead])
            self.rows = [row for row in self.rows if row not in dead]

    def claim(self, entering: Row | None) -> tuple[Owed, ...]:
        """Claim finishes that are owed, but for what the entering guard carries into its own run."""
        runs: defaultdict[int, list[Row]] = defaultdict(list)
        for row in self.rows:
            runs[row.run_id or -row.id].append(row)  # a run without an id is a row of its own
        claimed: list[Owed] = []
        for rows in runs.values():
            if len(claimed) < _BATCH and self._is_owed(rows, entering):
                claimed.append(self.take(rows))
        return tuple(claimed)

    def take(self, rows: Sequence[Row]) -> Owed:
        """Mark rows as being finished by this program."""
        owed = attrs.evolve(total(rows), outage=self.outage)
        for row in rows:
            row.owner, row.state = self.me, "finishing"
        self._database.executemany(
            "UPDATE rows SET owner = ?, state = ? WHERE id = ?", [(row.owner, row.state, row.id) for row in rows]
        )
        return owed

    def _is_owed(self, rows: Sequence[Row], entering: Row | None) -> bool:
        run_id, key = rows[0].run_id, rows[0].process_key
        if any(self.in_use(row) for row in rows):
            return False
        # A finish sent while somebody starts this process could end the run that they resume; and a run without an id
        # would be started into the one that somebody is in.
        others = [row for row in self.of_key(key) if self.in_use(row)]
        if any(run_id is None or (row.run_id is None and row.state != "open") for row in others):
            return False
        if entering is None or key != entering.process_key:
            return True
        return (run_id is None or run_id != entering.run_id) and not any(self.left_behind(row) for row in rows)


def total(rows: Sequence[Row]) -> Owed:
    """What one FinishRun for these rows of a run has to say."""
    entries = [row.entries for row in rows if row.entries is not None]
    nanoseconds = [row.nanoseconds for row in rows if row.nanoseconds is not None]
    unrecorded = 0 if all(row.zeros for row in rows) else None
    kpis = Kpis(
        min(MOST, sum(entries)) if entries else unrecorded,
        min(MOST, sum(nanoseconds) / 1_000_000_000) if nanoseconds else unrecorded,
    )
    # A row that its dead owner was finishing may have been sent.
    sent = any(row.sent or row.state == "finishing" for row in rows)
    return Owed(rows[0].process_key, rows[0].run_id, kpis, sent, tuple(rows))


def close_all() -> None:
    """Close every journal of this process."""
    for journal in list(_journals.values()):
        journal.close()


def _prepare(database: sqlite3.Connection, patience: float) -> None:
    """Set up a connection, and the tables in a new file."""
    end = time.monotonic() + patience
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:  # sqlite does not wait when several programs do this at once
            if time.monotonic() >= end:
                raise
            time.sleep(0.01)
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(f"PRAGMA busy_timeout = {int(patience * 1000)}")
    database.execute("BEGIN IMMEDIATE")
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise _Newer(f"its schema {version} is newer than {_VERSION}")
    if version == 0:
        for statement in _SCHEMA:
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {_VERSION}")
    database.execute("COMMIT")


_opening = threading.Lock()
_journals: dict[Path, Journal] = {}
_leaked: list[object] = []


def _after_fork() -> None:
    # Closed, a parent's connection or lock file would take locks away; so they are kept, unused, for ever.
    global _opening, _journals
    _leaked.append(_journals)
    _opening, _journals = threading.Lock(), {}


in_child(_after_fork)

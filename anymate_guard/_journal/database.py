"""The sqlite file of a journal, and the lock file beside it: opened, shared with threads and forks, and recovered.

A file that is damaged, locked, of another version, or on a full or read-only disk stops nobody: it is said once per
process, and the operation goes on as if there were none.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from anymate_guard._deadline import Deadline
from anymate_guard._journal.owners import Owner
from anymate_guard._journal.rules import Damaged
from anymate_guard._log import emit
from anymate_guard._process.fork import Taken, around

T = TypeVar("T")
Statement = tuple[str, tuple[object, ...]]
Connection = sqlite3.Connection

_PATIENCE = 2.0  # seconds to wait for a locked file, at most
_FORKING = 1.0  # seconds that a fork waits for it: a signal handler may fork in the middle of it all
_POLL = 0.01
_TROUBLE = (sqlite3.Error, OSError, OverflowError, UnicodeError, Damaged)


class Database:
    """A sqlite file, for the threads of one process.

    Args:
        folder: Where it is; made if missing, for its user only.
        version: The number of the schema.
        schema: The statements that make the tables of a new file.
    """

    def __init__(self, folder: Path, version: int, schema: Sequence[str]) -> None:
        self.path = folder / "journal.sqlite3"
        self._names = str(self.path), str(self.path.with_name("owners.lock"))  # a Path takes longer to look at
        self._version = version
        self._schema = schema
        # Never held while waiting for a locked file, so that a fork may wait for it. Reentrant, as the garbage
        # collector may close a generator, and leave the guard in it, anywhere.
        self._lock = threading.RLock()
        self._connection: Connection | None = None
        self._inode = 0
        self._owner: Owner | None = None
        self._warned = False
        self._later: list[Statement] = []  # what could not be written when it was due
        with _making:
            _all.append(self)

    @property
    def behind(self) -> bool:
        """Whether there is something that could not be written yet."""
        return bool(self._later)

    @property
    def owner_id(self) -> int:
        """The id of this process as an owner; 0 while it has none."""
        return self._owner.id if self._owner else 0

    def do(self, work: Callable[[Connection], T], otherwise: T, deadline: Deadline, least: float = 0.0) -> T:
        """Do all of something or nothing; where the file can't be used, give `otherwise`.

        Args:
            work: What to do, as often as it takes; it begins with `begin` unless it is a single statement.
            otherwise: What it comes to without the file.
            deadline: When to give up waiting for a locked file.
            least: Seconds to wait for it even after that.
        """
        end = None
        while True:
            with self._lock:
                try:
                    return self._transact(work)
                except _TROUBLE as error:
                    now = time.monotonic()
                    end = end or now + max(least, min(_PATIENCE, deadline.left() / 4))
                    if not _is_locked(error) or now >= end:
                        self._warn(error, self._recover(error))
                        return otherwise
            time.sleep(random.uniform(0, _POLL))  # so that many that wait don't ask in step

    def write(self, statements: Sequence[Statement], deadline: Deadline, least: float) -> bool:
        """Write now, or with the next change; False for the latter."""

        def work(connection: Connection) -> bool:
            execute(connection, statements)
            return True

        written = self.do(work, False, deadline, least)
        if not written:
            with self._lock:
                self._later = [*self._later, *statements]
        return written

    def close(self) -> None:
        """Close the file; the next operation opens it again."""
        with self._lock:
            self._disconnect()

    def me(self) -> Owner:
        """This process as an owner; takes the lock of `do` to be held."""
        name = self._names[1]
        if self._owner is None:
            self._owner = Owner(Path(name))
        elif _inode(name) != self._owner.inode:  # somebody cleaned up: be seen in the new file, too
            self._owner = Owner(Path(name), self._owner.id)
        return self._owner

    def _transact(self, work: Callable[[Connection], T]) -> T:
        connection = self._connect()
        if connection.in_transaction:  # of this thread, which the garbage collector has interrupted
            return work(connection)
        later, begun = self._later, False
        try:
            if later:
                begin(connection)
                begun = True
                execute(connection, later)
            result = work(connection)
            if connection.in_transaction:
                connection.execute("COMMIT")
        except _TROUBLE:
            connection.rollback()
            raise
        except BaseException:  # an interruption, which may come when all is written
            if connection.in_transaction:
                connection.rollback()
            elif begun:
                self._later = self._later[len(later) :]
            raise
        self._later = self._later[len(later) :]
        return result

    def _connect(self) -> Connection:
        if self._connection is not None and _inode(self._names[0]) != self._inode:
            self._disconnect()  # it was moved aside or deleted
        if self._connection is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._inode = _inode(self._names[0])
            connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: Connection) -> None:
        """Set up a connection, and the tables in a new file."""
        connection.execute("PRAGMA page_size = 1024")  # in a new file; a page is written for every change
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        connection.execute("PRAGMA synchronous = NORMAL")
        with connection:  # which commits, or rolls back
            begin(connection)
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > self._version:
                raise _Newer(f"its schema {version} is newer than {self._version}")
            if version == 0:
                execute(connection, [(statement, ()) for statement in self._schema])
                connection.execute(f"PRAGMA user_version = {self._version}")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

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
        with contextlib.suppress(OSError), self.me().alone():
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


def begin(connection: Connection) -> None:
    """Make what follows one change, for which nobody else's is in the way."""
    if not connection.in_transaction:
        connection.execute("BEGIN IMMEDIATE")


def execute(connection: Connection, statements: Sequence[Statement]) -> None:
    """Execute statements as one change."""
    if len(statements) > 1:
        begin(connection)
    for statement, values in statements:
        connection.execute(statement, values)


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


_making = threading.Lock()
_all: list[Database] = []
_leaked: list[object] = []


def _before_fork(stopped: Taken) -> None:
    # sqlite keeps note of its locks in memory: a child that inherited an open file would believe that it holds the
    # locks of its parent. So no file is open, and nobody is at it, while a process forks.
    locks: Taken = [_making, *(database._lock for database in _all)]
    stopped.extend(lock for lock in locks if lock.acquire(timeout=_FORKING))
    for database in _all:
        if database._lock in stopped:
            database._disconnect()


def _after_fork_in_parent(stopped: Taken) -> None:
    while stopped:
        stopped.pop().release()


def _after_fork() -> None:
    # Closed, a parent's lock file would take nobody's lock away, but its number may be needed; kept, it does no harm.
    global _making, _all
    _leaked.append(_all)
    _making, _all = threading.Lock(), []


around(_before_fork, _after_fork_in_parent, lambda _: _after_fork())

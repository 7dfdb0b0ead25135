"""The sqlite file of a journal: made, believed or not, read and written, made durable, and recovered."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from anymate_guard._files import temporary_folder
from anymate_guard._journal.rows import Finish, Row
from anymate_guard._journal.view import View

Connection = sqlite3.Connection
TROUBLE = (sqlite3.Error, OSError, OverflowError, UnicodeError)

_VERSION = 2
_SCHEMA = (
    f"CREATE TABLE rows ({', '.join(Row._fields)}, PRIMARY KEY (id))",
    "CREATE INDEX of_process ON rows (address, process_key) WHERE state <> 'refused'",
    """CREATE INDEX abandoned ON rows (address, username, began)
    WHERE owner = 0 AND state IN ('open', 'finishing', 'done')""",
    "CREATE INDEX of_owner ON rows (owner) WHERE owner <> 0",
    "CREATE TABLE outages (address PRIMARY KEY, at)",
    """CREATE TABLE history
    (address, username, process_key, run_id, began, ended, outcome, entries, seconds_saved, delivered)""",
    "CREATE INDEX ended ON history (ended)",
    "CREATE TABLE file (number)",
)
_COLUMNS = ", ".join(Row._fields)
_MARKS = ", ".join("?" * len(Row._fields))
_READ = f"SELECT {_COLUMNS} FROM rows"  # noqa: S608  # nothing of it comes from outside
_ALL = f"{_READ} ORDER BY began"
_OF_PROCESS = f"{_READ} WHERE address = ? AND process_key = ? AND state <> 'refused'"
_ABANDONED = f"""{_READ} WHERE address = ? AND username = ?
    AND owner = 0 AND state IN ('open', 'finishing', 'done') ORDER BY began LIMIT ?"""
_OF_OWNER = f"{_READ} WHERE owner = ? AND owner <> 0"
_BY_ID = f"{_READ} WHERE id = ?"
_OWNERS = "SELECT DISTINCT owner FROM rows WHERE owner <> 0"
_PUT = f"INSERT OR REPLACE INTO rows VALUES ({_MARKS})"  # noqa: S608  # as above
_UPDATE = f"""UPDATE rows SET ({_COLUMNS}) = ({_MARKS})
    WHERE id = ? AND (owner = ? OR (owner = 0 AND finish = 0 AND state <> 'refused'))"""  # noqa: S608  # as above
_DROP = "DELETE FROM rows WHERE id = ?"
_DROP_MINE = "DELETE FROM rows WHERE id = ? AND owner = ?"
_NOTE = "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_HISTORY = "SELECT * FROM history WHERE ended >= ? ORDER BY ended DESC"
_OUTAGE = 60.0  # seconds for which an address counts as unreachable
_OLDEST = 90 * 86_400.0  # seconds for which a line of the history is kept
_MOST_LINES = 100_000
_LARGEST_LOG = 4 << 20  # bytes of the write-ahead log that are put into the file at leisure


class Untrusted(OSError):
    """Somebody else could have written what is in the folder."""


class Database:
    """A sqlite file, for one thread at a time.

    Args:
        folder: Where it is; made if missing, for its user only. One that others may write to is not believed, and a
            folder of this user's under the temporary directory is taken instead.
    """

    def __init__(self, folder: Path) -> None:
        self._move_to(folder)
        self.number = 0  # of the file that was opened last, as it may be another one by the same name
        self.distrusted: str | None = None  # why the folder is not the one that was asked for
        self._connection: Connection | None = None
        self._inode = 0
        self._durable = True
        self._unnamed = False  # whether the file's name may not be on the disk yet

    def connect(self) -> bool:
        """See that the file that has its name now is open; True if it was opened just now.

        Raises:
            sqlite3.Error: It can't be used.
            OSError: It can't be made.
        """
        if self._connection is not None and _inode(self._name) != self._inode:
            self.disconnect()  # it was moved aside or deleted
        if self._connection is not None:
            return False
        self._make()
        self._inode = _inode(self._name)
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return True

    def disconnect(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextmanager
    def transaction(self, *, write: bool) -> Iterator[Rows]:
        """Do all that is in the block, or nothing; while writing, nobody else changes anything."""
        connection = self._connection
        if connection is None:
            raise sqlite3.OperationalError("the journal is not open")
        connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
        try:
            yield Rows(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.rollback()
            raise

    def sync(self) -> None:
        """See that what was written is on the disk, without holding anybody up; any thread may do so.

        Raises:
            OSError: The disk says that it is not.
        """
        if self._unnamed:
            _sync_folder(self.folder)
            self._unnamed = False
        if self._durable:
            return  # each transaction was
        with contextlib.suppress(FileNotFoundError):
            log = os.open(f"{self.path}-wal", os.O_RDWR)
            try:
                os.fsync(log)
                size = os.fstat(log).st_size
            finally:
                os.close(log)
            if size > _LARGEST_LOG:
                with contextlib.closing(sqlite3.connect(self.path, timeout=0)) as another:
                    another.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _move_to(self, folder: Path) -> None:
        self.folder = folder
        self.path, self.locks = folder / "journal.sqlite3", folder / "owners.lock"
        self._name = str(self.path)  # a Path takes longer to look at

    def _make(self) -> None:
        """Make the folder and the file, unless they are there; take another folder if these can't be believed."""
        try:
            self._make_in_folder()
        except Untrusted as error:
            if self.distrusted is not None:
                raise
            self.distrusted = str(error)
            self._move_to(temporary_folder())
            self._make_in_folder()

    def _make_in_folder(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_trust(self.folder.resolve(), is_folder=True)
        for path in (self.path, self.locks):
            _check_trust(path, is_folder=False)
        if not self.path.exists():
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
                self._unnamed = True

    def _prepare(self, connection: Connection) -> None:
        """Set up a connection, and the tables in a new file."""
        connection.execute("PRAGMA page_size = 1024")  # in a new file; a page is written for every change
        self._choose_mode(connection)
        connection.execute("BEGIN IMMEDIATE")
        with connection:  # which commits, or rolls back
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise Newer(f"its schema {version} is newer than {_VERSION}")
            if version == 0:
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute("INSERT INTO file VALUES (?)", (int.from_bytes(os.urandom(7), "big") + 1,))
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            (self.number,) = connection.execute("SELECT number FROM file").fetchone()

    def _choose_mode(self, connection: Connection) -> None:
        """Write ahead, which waits for no disk; on a filesystem that can't, make each transaction durable."""
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            if is_locked(error):
                raise
            (mode,) = connection.execute("PRAGMA journal_mode = TRUNCATE").fetchone()
        self._durable = mode != "wal"
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # `sync` does it, so that no guard waits for it

    def move_aside(self) -> str:
        """Let the next operation begin a new file, as this one is damaged; what people can do comes back."""
        aside = self.path.with_name(f"{self.path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
        if _inode(self._name) == self._inode:  # else another program was faster
            try:
                for suffix in ("-wal", "-shm", ""):
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")  # noqa: PTH104  # a suffix, not a path
            except OSError as error:  # on Windows, while another program has it open
                return f"it is damaged and could not be moved away ({error.strerror}): close the programs that use it"
        return f"it was damaged and was moved to {aside}; what it held may still be read from there"


class Newer(sqlite3.Error):
    """The file has a schema that this version does not know."""


class Rows:
    """The table that rules read, in one transaction.

    Rows that make no sense are left out, so that they stop nobody.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of_process(self, address: str, process_key: str) -> list[Row]:
        """The rows of a process, but for refused ones."""
        return self._rows(_OF_PROCESS, (address, process_key))

    def abandoned(self, address: str, username: str, most: int) -> list[Row]:
        """The rows of an account that nobody is at, oldest first."""
        return self._rows(_ABANDONED, (address, username, most))

    def owners(self) -> list[int]:
        """All owners of rows."""
        return [owner for (owner,) in self._connection.execute(_OWNERS) if type(owner) is int]

    def of_owner(self, owner: int) -> list[Row]:
        """The rows of an owner."""
        return self._rows(_OF_OWNER, (owner,))

    def all(self) -> list[Row]:
        """Every row, oldest first."""
        return self._rows(_ALL, ())

    def outage(self, address: str, now: float) -> bool:
        """Whether an address was unreachable less than a minute ago."""
        found = self._connection.execute("SELECT at FROM outages WHERE address = ?", (address,)).fetchone()
        return found is not None and type(found[0]) is float and abs(now - found[0]) < _OUTAGE

    def makes_sense(self, number: int) -> bool:
        """Whether a row can be read, if there is one."""
        found = self._connection.execute(_BY_ID, (number,)).fetchone()
        try:
            return found is None or Row.of(found).id == number
        except (ValueError, TypeError):
            return False

    def put(self, row: Row) -> None:
        """Write a row."""
        self._connection.execute(_PUT, row)

    def put_mine(self, row: Row, me: int) -> bool:
        """Write a row that is there already; False if another program has taken it."""
        return self._connection.execute(_UPDATE, (*row, row.id, me)).rowcount == 1

    def drop(self, number: int, me: int | None = None) -> None:
        """Delete a row; given an owner, only if it is that one's."""
        if me is None:
            self._connection.execute(_DROP, (number,))
        else:
            self._connection.execute(_DROP_MINE, (number, me))

    def change(self, view: View) -> None:
        """Write what a rule changed."""
        for row in view.puts.values():
            self.put(row)
        for number in view.drops:
            self.drop(number)
        for finish, how in view.history:
            self._connection.execute(_NOTE, _line(finish, how, view.now))
        if view.reachable is False:
            self._connection.execute("INSERT OR REPLACE INTO outages VALUES (?, ?)", (view.address, view.now))
        elif view.reachable and view.outage:
            self._connection.execute("DELETE FROM outages WHERE address = ?", (view.address,))

    def empty(self) -> None:
        """Delete everything."""
        for table in ("rows", "outages", "history"):
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608  # nothing of it comes from outside

    def forget_history(self, now: float) -> None:
        """Delete the oldest lines of the history."""
        self._connection.execute("DELETE FROM history WHERE ended < ?", (now - _OLDEST,))
        self._connection.execute(
            "DELETE FROM history WHERE rowid <= (SELECT max(rowid) FROM history) - ?", (_MOST_LINES,)
        )

    def history(self, since: float) -> list[tuple[Any, ...]]:
        """The lines of the history since a time, newest first."""
        return self._connection.execute(
            "SELECT * FROM history WHERE ended >= ? ORDER BY ended DESC", (since,)
        ).fetchall()

    def _rows(self, statement: str, values: Sequence[object]) -> list[Row]:
        rows = []
        for columns in self._connection.execute(statement, values):
            with contextlib.suppress(ValueError, TypeError):
                rows.append(Row.of(columns))
        return rows


def is_locked(error: Exception) -> bool:
    """Whether another program is changing the file just now."""
    return isinstance(error, sqlite3.OperationalError) and "lock" in str(error)


def is_damaged(error: Exception) -> bool:
    """Whether the file is no database, a malformed one, or somebody else's."""
    foreign = isinstance(error, sqlite3.OperationalError) and any(
        sign in str(error) for sign in ("no such", "columns", "decode", "already exists")
    )
    return foreign or isinstance(error, sqlite3.IntegrityError) or type(error) is sqlite3.DatabaseError


def _line(finish: Finish, how: str, now: float) -> tuple[object, ...]:
    row, kpis = finish.rows[0], finish.kpis
    began = min(row.began for row in finish.rows)
    account = (row.address, row.username, row.process_key)
    return (*account, finish.run_id, began, now, finish.outcome, kpis.entries, kpis.seconds_saved, how)


def _inode(path: str) -> int:
    """Which file a path leads to; 0 for none."""
    try:
        return os.stat(path).st_ino  # noqa: PTH116  # half the time of Path.stat
    except FileNotFoundError:
        return 0


def _check_trust(path: Path, *, is_folder: bool) -> None:
    """Raise `Untrusted` for what is a link, belongs to another user, or can be written by everybody."""
    if sys.platform == "win32":
        return  # its folders are private to the user by default
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not is_folder and stat.S_ISLNK(status.st_mode):
        raise Untrusted(f"{path} is a link")
    if not is_folder and status.st_uid not in {os.geteuid(), 0}:  # containers mount folders of a group
        raise Untrusted(f"{path} belongs to another user")
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        raise Untrusted(f"everybody can write to {path}")


def _sync_folder(folder: Path) -> None:
    """See that a new name is on the disk, too."""
    if sys.platform != "win32":
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

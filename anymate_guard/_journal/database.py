"""The sqlite file of a journal: made, believed or not, read and written, made durable, and recovered."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from anymate_guard._files import temporary_folder
from anymate_guard._journal.tables import Newer, Tables, number_of
from anymate_guard._log import emit
from anymate_guard._process import signals
from anymate_guard._process.locks import Lock
from anymate_guard._process.owners import inode

T = TypeVar("T")

Connection = sqlite3.Connection
TROUBLE = (sqlite3.Error, OSError, OverflowError, UnicodeError)

_HOUR = 3600.0
_LARGEST_LOG = 4 << 20  # bytes of the write-ahead log that are put into the file at leisure
_TOO_LARGE = 16 << 20  # where somebody always writes, that does not shorten it: then they wait, once

_yield: Callable[[], None] = getattr(os, "sched_yield", lambda: None)  # not on every system


class Untrusted(OSError):
    """Somebody else could have written what is in the folder."""


class Database:
    """A sqlite file, for one thread at a time.

    Args:
        folder: Where it is; made if missing, for its user only. One that others may write to is not believed, and a
            folder of this user's under the temporary directory is taken instead, unless the file in it was open before.
    """

    def __init__(self, folder: Path) -> None:
        self._move_to(folder)
        self.number = 0  # of the file that was opened last, as it may be another one by the same name
        self.losses = 0  # how often the file or a part of it was found replaced or deleted while it was open
        self.committed = True  # whether the last transaction was written, however it ended
        self._distrusted = False  # whether the folder is not the one that was asked for
        self.checkpointing = Lock()  # while a connection is opened, or a second one is open
        self._warning = Lock()
        self._warned = -_HOUR
        self._connection: Connection | None = None
        self._opened = 0, 0, 0  # the file, and its parts beside it: the log, and the memory that programs share
        self._fresh = True  # whether nothing was done yet since it was opened
        self._durable = True
        self._unnamed: list[Path] = []  # folders and a file whose names may not be on the disk yet
        self._synced: object = None  # what the log looked like before it was last made durable

    def connect(self) -> bool:
        """See that the file that has its name now is open, and its parts; True if they were opened just now.

        Raises:
            sqlite3.Error: It can't be used.
            OSError: It can't be made.
        """
        if self._connection is not None and self._named() != self._opened:
            self.disconnect()
        if self._connection is not None:
            return False
        if not self.checkpointing.acquire(blocking=False):  # a second connection would share its memory of an old log
            raise sqlite3.OperationalError("its old log is locked")
        try:
            self._open()
        finally:
            self.checkpointing.release()
        return True

    def disconnect(self) -> None:
        """Close the file."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        named = self._named()
        if named != self._opened:
            self.losses += 1
        if named[1:] != self._opened[1:]:
            # A cleaner deleted a part, or a program that sqlite took for the last one: its locks are gone when this
            # one opens and closes the file elsewhere, to copy the folder, say. Closed now, sqlite would put the log
            # over what others have written since, and delete theirs. Interrupted it does neither, if something in the
            # log is not in the file yet: nobody reads this number. A log that others have, too, is not written to.
            if named[1] != self._opened[1]:
                with contextlib.suppress(*TROUBLE):
                    connection.execute("PRAGMA application_id = 0")
            connection.interrupt()
        connection.close()

    def transaction(self, work: Callable[[Tables], T], *, write: bool) -> T:
        """Do all of some work, or nothing; while writing, nobody else changes anything."""
        connection = self._connection
        assert connection is not None  # noqa: S101  # whoever asks has opened it
        if write:
            _yield()  # to be seldom put aside by a busy machine while others wait for the lock
        try:
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            result = work(Tables(connection))
            connection.execute("COMMIT")
            self._fresh = False
            self.committed = True
        except BaseException as error:
            # Ctrl-C may come when it is written; where the disk is full, sqlite itself undoes what it could not write.
            self.committed = not (connection.in_transaction or isinstance(error, sqlite3.Error))
            raise
        finally:
            if connection.in_transaction:
                connection.rollback()
        return result

    def statement(self, work: Callable[[Tables], T]) -> T:
        """Do what is one statement, which is a transaction of its own."""
        connection = self._connection
        assert connection is not None  # noqa: S101  # as above
        before = connection.total_changes
        try:
            result = work(Tables(connection))
            self._fresh = False
        except BaseException as error:
            self.committed = connection.total_changes != before and not isinstance(error, sqlite3.Error)  # as above
            raise
        self.committed = connection.total_changes != before
        return result

    def sync(self) -> bool:
        """See that what was written is on the disk, without holding anybody up; any thread may do so.

        Returns:
            Whether it is.
        """
        try:
            self._sync()
        except TROUBLE as error:
            signals.let_pass(error)
            self.warn(error, "see whether the disk is full or broken")
            return False
        return True

    def warn(self, error: object, remedy: str, *, always: bool = False) -> None:
        """Tell people of trouble with the file, once an hour unless `always`."""
        with self._warning:
            due = always or time.monotonic() - self._warned > _HOUR
            if due:
                self._warned = time.monotonic()
        if due:
            emit("warning", "anymate.journal_unavailable", path=str(self.path), error=str(error), remedy=remedy)

    def _open(self) -> None:
        self._make()
        self._opened, self._fresh = (inode(self._name), 0, 0), True
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._opened = connection, (self._opened[0], *self._named()[1:])  # now it has parts

    def _sync(self) -> None:
        for name in list(self._unnamed):
            _sync_folder(name.parent)
            with contextlib.suppress(ValueError):  # another thread was faster
                self._unnamed.remove(name)
        if self._durable:
            return  # each transaction was
        with contextlib.suppress(FileNotFoundError):
            self._synced = looks = self._looks()
            log = os.open(self._log, os.O_RDWR)
            try:
                os.fsync(log)
            finally:
                os.close(log)
            # The log of the open connection only: sqlite has one memory for both, and would take the other log for it.
            if looks[0] > _LARGEST_LOG and self._named() == self._opened:
                with self.checkpointing, contextlib.closing(sqlite3.connect(self.path, timeout=0)) as another:
                    how = "TRUNCATE" if looks[0] > _TOO_LARGE else "PASSIVE"
                    with contextlib.suppress(sqlite3.OperationalError):  # others are at it
                        another.execute(f"PRAGMA wal_checkpoint({how})")

    def has_more(self) -> bool:
        """Whether somebody has written since `sync`, as far as the log's size and date tell."""
        with contextlib.suppress(OSError):  # its folder, too, may be gone
            return not self._durable and self._looks() != self._synced
        return False

    def _named(self) -> tuple[int, int, int]:
        """Which file, log and memory have their names now; 0 for none."""
        try:
            return inode(self._name), inode(self._log), inode(self._memory)
        except OSError as error:  # something else is in the place of their folder, say
            signals.let_pass(error)
            return 0, 0, 0

    def _looks(self) -> tuple[int, int]:
        status = os.stat(self._log)  # noqa: PTH116  # a suffix, not a path
        return status.st_size, status.st_mtime_ns

    def _move_to(self, folder: Path) -> None:
        self.folder = folder
        self.path, self.locks = folder / "journal.sqlite3", folder / "owners.lock"
        self._name = f"{self.path}"  # a Path takes longer to look at
        self._log, self._memory = f"{self._name}-wal", f"{self._name}-shm"

    def _make(self) -> None:
        """Make the folder and the file, unless they are there; take another folder if these can't be believed."""
        try:
            self._make_in_folder()
        except Untrusted as error:
            if 0 != inode(self._name) == self._opened[0]:  # others know this program by its rows and its lock there
                self.warn(error, "make the folder this user's own")
                return
            if self._distrusted:
                raise
            self._distrusted = True
            self._move_to(temporary_folder())
            self._make_in_folder()
            self.warn(error, f"{self.path} is used instead; make the folder this user's own")

    def _make_in_folder(self) -> None:
        missing = list(itertools.takewhile(lambda place: not place.exists(), (self.path, *self.path.parents)))
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_trust(self.folder.resolve(), is_folder=True)
        for path in (self.path, self.locks):
            _check_trust(path, is_folder=False)
        if missing:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._unnamed = missing

    def _prepare(self, connection: Connection) -> None:
        """Set up a connection, and the tables in a new file."""
        connection.execute("PRAGMA page_size = 1024")  # in a new file; a page is written for every change
        connection.execute("PRAGMA cache_size = -256")  # KiB: a rule reads little, and a history is long
        self._choose_mode(connection)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        with connection:  # which commits, or rolls back
            connection.execute("BEGIN" if version else "BEGIN IMMEDIATE")  # others may have a file locked that is made
            self.number = number_of(connection)

    def _choose_mode(self, connection: Connection) -> None:
        """Write ahead, which waits for no disk; where that can't be done, make each transaction durable."""
        (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            wanted = "WAL" if _shares_memory(self.folder) else "TRUNCATE"
            (mode,) = connection.execute(f"PRAGMA journal_mode = {wanted}").fetchone()
        self._durable = mode != "wal"
        connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # `sync` does it, so that no guard waits for it
        connection.execute("PRAGMA journal_size_limit = 0")  # or a log that was long once would be for ever

    def recover(self, error: Exception) -> str:
        """See that the next operation can start afresh; what people can do comes back, or nothing: it may be well."""
        if is_locked(error):
            return "close the program that holds it"
        self.disconnect()
        if isinstance(error, Newer):
            return "upgrade anymate_guard, or set ANYMATE_STATE_DIR to another folder"
        if _is_damaged(error):
            return self._move_aside(error) if self._fresh else ""
        return "make room and make the folder writable, or set ANYMATE_STATE_DIR to another one"

    def _move_aside(self, error: Exception) -> str:
        if inode(self._name) != self._opened[0]:
            return "another program has moved it away: try again"
        now = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.perf_counter_ns()}"
        aside = self.path.with_name(f"{self.path.name}.corrupt-{now}")
        try:
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.path}{suffix}", f"{aside}{suffix}")  # noqa: PTH104  # a suffix, not a path
        except OSError as reason:  # on Windows, while another program has it open
            return f"it is damaged and could not be moved away ({reason.strerror}): close the programs that use it"
        remedy = f"it was damaged and was moved to {aside}; what it held may still be read from there"
        self.warn(error, remedy, always=True)  # although the next try may well succeed
        return remedy


def _shares_memory(folder: Path) -> bool:
    """Whether programs can share memory by a file in a folder, as they do to write ahead; not on every filesystem."""
    import mmap  # once in the life of a journal
    import tempfile

    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(1)
        try:
            mmap.mmap(file.fileno(), 1).close()
        except OSError:
            return False
        return True


def is_locked(error: Exception) -> bool:
    """Whether another program is changing the file just now."""
    return isinstance(error, sqlite3.OperationalError) and "lock" in str(error)


def _is_damaged(error: Exception) -> bool:
    """Whether the file is no database, a malformed one, or somebody else's."""
    foreign = isinstance(error, sqlite3.OperationalError) and any(
        sign in str(error) for sign in ("no such", "columns", "decode", "already exists")
    )
    return foreign or isinstance(error, sqlite3.IntegrityError) or type(error) is sqlite3.DatabaseError


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
    """See that a new name is on the disk, too, where that can be asked for: some filesystems know no such thing."""
    if sys.platform != "win32":
        try:
            file = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            signals.let_pass(error)

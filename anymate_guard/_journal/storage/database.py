"""The sqlite file of a journal: opened, read and written, made durable, and recovered."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from anymate_guard._journal.storage.folder import Folder
from anymate_guard._journal.storage.tables import Newer, Tables, number_of
from anymate_guard._process import signals
from anymate_guard._process.locks import Lock
from anymate_guard._process.owners import inode

T = TypeVar("T")

Connection = sqlite3.Connection
TROUBLE = (sqlite3.Error, OSError, OverflowError, UnicodeError)

_LARGEST_LOG = 4 << 20  # bytes of the write-ahead log that are put into the file at leisure
_TOO_LARGE = 16 << 20  # where somebody always writes, that does not shorten it: then they wait, once

_yield: Callable[[], None] = getattr(os, "sched_yield", lambda: None)  # not on every system


class Database:
    """The sqlite file in a folder, for one thread at a time.

    Attributes:
        folder: The folder.
        number: Of the file that was opened last, as it may be another one by the same name.
        losses: How often the file or a part of it was found replaced or deleted while it was open.
        openings: How often it was opened.
        checkpointing: Held while a connection is opened, or a second one is open.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.number = self.losses = self.openings = 0
        self.checkpointing = Lock()
        self._connection: Connection | None = None
        self._opened = 0, 0, 0  # the file, and its parts beside it: the log, and the memory that programs share
        self._fresh = True  # whether nothing was done yet since it was opened
        self._durable = True
        self._synced: object = None  # what the log looked like before it was last made durable

    def connect(self) -> None:
        """See that the file that has its name now is open, and its parts.

        Raises:
            sqlite3.Error: It can't be used.
            OSError: It can't be made.
        """
        if self._connection is not None and self.folder.named() != self._opened:
            self.disconnect()
        if self._connection is not None:
            return
        taken: list[bool] = []
        try:
            taken.extend(map(self.checkpointing.acquire, (False,)))  # one call, in the midst of which no Ctrl-C comes
            if taken == [False]:  # a second connection would share its memory of an old log
                raise sqlite3.OperationalError("its old log is locked")
            self._open()
        finally:
            if taken == [True]:
                self.checkpointing.release()

    def disconnect(self) -> None:
        """Close the file; interrupted, it is done again."""
        connection = self._connection
        if connection is None:
            return
        named = self.folder.named()
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
        self._connection = None
        connection.close()

    def read(self, work: Callable[[Tables], T]) -> T:
        """Do some work that changes nothing; whoever writes meanwhile, it sees one state of the file."""
        return self._transaction("BEGIN", work, [])

    def write(self, work: Callable[[Tables], T], ended: list[object]) -> T:
        """Do all of some work, or nothing; meanwhile nobody else changes anything.

        Args:
            work: What to do.
            ended: Gets an item when it is written, even if Ctrl-C comes just then.
        """
        _yield()  # to be seldom put aside by a busy machine while others wait for the lock
        return self._transaction("BEGIN IMMEDIATE", work, ended)

    def _transaction(self, begin: str, work: Callable[[Tables], T], ended: list[object]) -> T:
        connection = self._connection
        assert connection is not None  # noqa: S101  # whoever asks has opened it
        try:
            connection.execute(begin)
            result = work(Tables(connection))
            ended.extend(map(connection.execute, ("COMMIT",)))  # one call, in the midst of which no Ctrl-C comes
            self._fresh = False
        finally:
            if connection.in_transaction:
                connection.rollback()
        return result

    def statement(self, work: Callable[[Tables], T]) -> T:
        """Do what is one statement, which is a transaction of its own."""
        assert self._connection is not None  # noqa: S101  # as above
        result = work(Tables(self._connection))
        self._fresh = False
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
            self.folder.warn(error, "see whether the disk is full or broken")
            return False
        return True

    def _open(self) -> None:
        self.folder.make(self._opened[0])
        file = inode(self.folder.name)
        if self._opened[0] not in {0, file}:  # another was put there while it was closed
            self.losses += 1
        self._opened, self._fresh = (file, 0, 0), True
        self.openings += 1
        connection = sqlite3.connect(self.folder.file, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._opened = connection, (self._opened[0], *self.folder.named()[1:])  # now it has parts

    def _sync(self) -> None:
        self.folder.sync()
        if self._durable:
            return  # each transaction was
        with contextlib.suppress(FileNotFoundError):
            self._synced = looks = self.folder.log_looks()
            log = os.open(self.folder.log, os.O_RDWR)
            try:
                os.fsync(log)
            finally:
                os.close(log)
            # The log of the open connection only: sqlite has one memory for both, and would take the other log for it.
            if looks[0] > _LARGEST_LOG and self.folder.named() == self._opened:
                with self.checkpointing, contextlib.closing(sqlite3.connect(self.folder.file, timeout=0)) as another:
                    how = "TRUNCATE" if looks[0] > _TOO_LARGE else "PASSIVE"
                    with contextlib.suppress(sqlite3.OperationalError):  # others are at it
                        another.execute(f"PRAGMA wal_checkpoint({how})")

    def has_more(self) -> bool:
        """Whether somebody has written since `sync`, as far as the log's size and date tell."""
        with contextlib.suppress(OSError):  # its folder, too, may be gone
            return not self._durable and self.folder.log_looks() != self._synced
        return False

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
            wanted = "WAL" if self.folder.shares_memory() else "TRUNCATE"
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
            if not self._fresh:
                return ""
            if inode(self.folder.name) != self._opened[0]:
                return "another program has moved it away: try again"
            return self.folder.move_aside(error)
        return "make room and make the folder writable, or set ANYMATE_STATE_DIR to another one"


def is_locked(error: Exception) -> bool:
    """Whether another program is changing the file just now."""
    return isinstance(error, sqlite3.OperationalError) and "lock" in str(error)


def _is_damaged(error: Exception) -> bool:
    """Whether the file is no database, a malformed one, or somebody else's."""
    foreign = isinstance(error, sqlite3.OperationalError) and any(
        sign in str(error) for sign in ("no such", "columns", "decode", "already exists")
    )
    return foreign or isinstance(error, sqlite3.IntegrityError) or type(error) is sqlite3.DatabaseError

"""The folder of a journal: made, believed or not, and which files have their names in it."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import sys
import threading
import time
from collections import deque
from pathlib import Path

from anymate_guard._files import temporary_folder
from anymate_guard._log import emit
from anymate_guard._process import signals
from anymate_guard._process.locks import Lock
from anymate_guard._process.owners import inode

_HOUR = 3600.0


class Untrusted(OSError):
    """Somebody else could have written what is in the folder."""


class _Untold(threading.local):
    """The trouble that a thread has met, and has still to tell people of."""

    def __init__(self) -> None:
        self.lines = deque[dict[str, str]]()


class Folder:
    """Where a journal's files are.

    Args:
        path: The folder; made if missing, for its user only. One that others may write to is not believed, and a folder
            of this user's under the temporary directory is taken instead, unless the file in it was open before.

    Attributes:
        file: The sqlite file.
        name: The same; a Path takes longer to look at.
        log: The file that sqlite writes ahead to.
        locks: The file with the locks of owners.
    """

    def __init__(self, path: Path) -> None:
        self._move_to(path)
        self._distrusted = False  # whether it is not the one that was asked for
        self._unnamed: list[Path] = []  # folders and a file whose names may not be on the disk yet
        self._warning = Lock()
        self._warned = -_HOUR
        self._untold = _Untold()

    def _move_to(self, path: Path) -> None:
        self._path = path
        self.file, self.locks = path / "journal.sqlite3", path / "owners.lock"
        self.name = f"{self.file}"
        self.log, self._memory = f"{self.name}-wal", f"{self.name}-shm"

    def make(self, opened: int) -> None:
        """Make the folder and the file, unless they are there; take another folder if these can't be believed.

        Args:
            opened: The file that was open before, as `inode` numbers it; 0 for none.

        Raises:
            OSError: They can't be made.
        """
        try:
            self._make()
        except Untrusted as error:
            if 0 != inode(self.name) == opened:  # others know this program by its rows and its lock there
                self.warn(error, "make the folder this user's own")
                return
            if self._distrusted:
                raise
            self._distrusted = True
            self._move_to(temporary_folder())
            self._make()
            self.warn(error, f"{self.file} is used instead; make the folder this user's own")

    def named(self) -> tuple[int, int, int]:
        """Which file, log and memory that programs share have their names now; 0 for none."""
        try:
            return inode(self.name), inode(self.log), inode(self._memory)
        except OSError as error:  # something else is in the place of their folder, say
            signals.let_pass(error)
            return 0, 0, 0

    def log_looks(self) -> tuple[int, int]:
        """The size of the log, in bytes, and when it was written.

        Raises:
            OSError: There is none.
        """
        status = os.stat(self.log)  # noqa: PTH116  # a suffix, not a path
        return status.st_size, status.st_mtime_ns

    def shares_memory(self) -> bool:
        """Whether programs can share memory by a file in it, as they do to write ahead; not on every filesystem."""
        import mmap  # once in the life of a journal
        import tempfile

        with tempfile.TemporaryFile(dir=self._path) as file:
            file.truncate(1)
            try:
                mmap.mmap(file.fileno(), 1).close()
            except OSError:
                return False
            return True

    def sync(self) -> None:
        """See that new names are on the disk."""
        for name in list(self._unnamed):
            _sync_folder(name.parent)
            with contextlib.suppress(ValueError):  # another thread was faster
                self._unnamed.remove(name)

    def move_aside(self, error: Exception) -> str:
        """Give a damaged file, and its parts, another name; what people can do.

        Args:
            error: What was met.
        """
        now = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{time.perf_counter_ns()}"
        aside = self.file.with_name(f"{self.file.name}.corrupt-{now}")
        try:
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(f"{self.file}{suffix}", f"{aside}{suffix}")  # noqa: PTH104  # a suffix, not a path
        except OSError as reason:  # on Windows, while another program has it open
            return f"it is damaged and could not be moved away ({reason.strerror}): close the programs that use it"
        remedy = f"it was damaged and was moved to {aside}; what it held may still be read from there"
        self.warn(error, remedy, always=True)  # although the next try may well succeed
        return remedy

    def warn(self, error: object, remedy: str, *, always: bool = False) -> None:
        """Have people told of trouble with the file, once an hour unless `always`."""
        with self._warning:
            due = always or time.monotonic() - self._warned > _HOUR
            if due:
                self._warned = time.monotonic()
        if due:
            self._untold.lines.append({"path": str(self.file), "error": str(error), "remedy": remedy})

    def tell(self) -> None:
        """Tell people of it; nobody may hold a lock then that a guard needs, as a log handler may wait for one."""
        lines = self._untold.lines
        while lines:
            with contextlib.suppress(IndexError):  # a signal handler has told of it just now
                emit("warning", "anymate.journal_unavailable", **lines.popleft())

    def _make(self) -> None:
        missing = list(itertools.takewhile(lambda place: not place.exists(), (self.file, *self.file.parents)))
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_trust(self._path.resolve(), is_folder=True)
        for path in (self.file, self.locks):
            _check_trust(path, is_folder=False)
        if missing:
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._unnamed = missing


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

"""Who is alive: a lock of the operating system that ends with its process and is not inherited by its children.

Every program holds a lock on one byte of one file, at a random offset that is its owner id. A process id would not do:
they are used again. Nor would a lock that children inherit, since one left behind would keep its dead parent alive.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from pathlib import Path

GRACE = 1.0  # seconds that a new lock file gives the owners of older rows to be seen in it: two looks of each

if sys.platform == "win32":
    import msvcrt

    _MAY_FALL = False  # and a second lock is refused, the process's own being in its way

    def _lock(file: int, offset: int) -> None:
        os.lseek(file, offset, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _is_locked(file: int, offset: int) -> bool:
        try:
            _lock(file, offset)
        except OSError:
            return True
        os.lseek(file, offset, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
        return False

else:
    import fcntl

    # Locks of an open file stand while the program opens and closes the file elsewhere, to copy its folder, say. Where
    # there are none, those of the process do, taken anew at each look.
    _OPEN_FILE = sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK") and sys.maxsize > 1 << 32
    _MAY_FALL = not _OPEN_FILE
    _FLOCK = "hhqqixxxx"  # Linux's struct flock: type, whence, start, length, pid

    def _lock(file: int, offset: int) -> None:
        if _OPEN_FILE:
            fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))
        else:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)

    def _is_locked(file: int, offset: int) -> bool:
        if _OPEN_FILE:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
            return bool(struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)
        try:
            _lock(file, offset)
        except OSError:
            return True
        fcntl.lockf(file, fcntl.LOCK_UN, 1, offset)
        return False


class Owner:
    """This program as an owner.

    Attributes:
        id: Its owner id, which no other program has.
        openings: How often the file was opened.
    """

    def __init__(self) -> None:
        self.id = int.from_bytes(os.urandom(5), "big") + 1
        self.openings = 0
        self._file: int | None = None
        self._inode = 0
        self._made = 0.0

    def hold(self, path: Path) -> None:
        """Hold the lock, in the file that has that name now; it is made if missing, readable by its user only.

        Raises:
            OSError: The file can't be opened or locked.
        """
        name = str(path)
        if self._file is not None and inode(name) != self._inode:
            self.close()
        if self._file is not None:
            if _MAY_FALL:
                _lock(self._file, self.id)
            return
        self._file = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            self.openings += 1
            _lock(self._file, self.id)
            status = os.fstat(self._file)
            self._inode, self._made = status.st_ino, status.st_mtime
        except BaseException:
            self.close()
            raise

    def alive(self, owner: int, since: float) -> bool:
        """Whether another program with that owner id, which has had a row since that time, still runs."""
        file = self._file  # which another thread may close, at the program's end
        if file is None or (self._made > since and abs(time.time() - self._made) < GRACE):
            return True  # somebody has put a new file there, in which the others are not seen yet
        return _is_locked(file, owner)

    def close(self) -> None:
        """Let go of the file; in a forked child that takes nothing from its parent."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def inode(name: str) -> int:
    """Which file has a name; 0 for none."""
    try:
        return os.stat(name).st_ino  # noqa: PTH116  # half the time of Path.stat
    except FileNotFoundError:
        return 0

"""Who is alive: a lock of the operating system that ends with its process and is not inherited by its children.

Every process holds a lock on one byte of one file, at a random offset that is its owner id. A process id would not do:
they are used again. Nor would a lock that children inherit, since one left behind would keep its dead parent alive.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 1 << 40  # offsets may lie beyond the end of the file, which stays empty
_MUTEX = 0

if sys.platform == "win32":
    import msvcrt

    def _lock(file: int, offset: int, *, shared: bool) -> None:  # noqa: ARG001  # there are no shared locks of this kind
        os.lseek(file, offset, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def _unlock(file: int, offset: int) -> None:
        os.lseek(file, offset, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(file: int, offset: int, *, shared: bool) -> None:
        fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, offset)

    def _unlock(file: int, offset: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, offset)


class Owner:
    """This process as an owner.

    There is one per lock file and process, and the file is never closed: closing any descriptor of it would drop the
    lock.

    Args:
        path: The lock file; made if missing, readable by its user only.
        owner: Its id when it had one, in a file that is gone.

    Raises:
        OSError: The file can't be opened or locked.
    """

    def __init__(self, path: Path, owner: int | None = None) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.id = owner or int.from_bytes(os.urandom(5), "big") + 1
        self.inode = os.fstat(self._file).st_ino
        _lock(self._file, self.id, shared=False)

    def alive(self, owner: int) -> bool:
        """Whether the process with that owner id still runs."""
        if owner == self.id:  # a process's own locks never stop it
            return True
        try:
            _lock(self._file, owner, shared=True)  # shared, so that two that ask don't mislead each other
        except OSError:
            return True
        _unlock(self._file, owner)
        return False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Do something that one process at a time may do.

        Raises:
            OSError: Another process is at it.
        """
        _lock(self._file, _MUTEX, shared=False)
        try:
            yield
        finally:
            _unlock(self._file, _MUTEX)

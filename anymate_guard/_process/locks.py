"""A lock that an interruption can't leave held."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import Any

RLock = type(threading.RLock())


class GivenBack(RLock):  # type: ignore[misc, valid-type]  # its type has no name in typeshed
    """A reentrant lock that gives back what it took when an exception comes out of taking it.

    CPython 3.14 may raise from a signal handler between `__enter__` and the block (python/cpython#148874).
    """

    def __enter__(self) -> bool:
        try:
            return bool(self.acquire())
        except BaseException:
            with contextlib.suppress(RuntimeError):  # it was not taken
                self.release()
            raise


# Reentrant, as signal handlers come anywhere, and so does the garbage collector, which closes generators with guards.
Lock = GivenBack if sys.version_info[:2] == (3, 14) else threading.RLock


def is_held(lock: Any) -> bool:
    """Whether this thread holds a `Lock`."""
    return bool(lock._is_owned())  # as `threading.Condition` asks

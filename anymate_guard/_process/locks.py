"""A lock that an interruption can't leave held."""

from __future__ import annotations

import sys
import threading
from typing import Any

RLock = type(threading.RLock())


class TakenAtOnce(RLock):  # type: ignore[misc, valid-type]  # its type has no name in typeshed
    """A reentrant lock that no signal handler comes to between its being taken and the block.

    CPython 3.14 looks for signals after each call of a C function, `__enter__` too (python/cpython#148874). While a
    debugger traces the program, it looks for them at each line.
    """

    def __enter__(self) -> bool:
        taken: bool
        (taken,) = map(self.acquire, (True,))  # called by the unpacking, after which Python does not look for signals
        return taken


# Reentrant, as signal handlers come anywhere, and so does the garbage collector, which closes generators with guards.
Lock = TakenAtOnce if sys.version_info[:2] == (3, 14) else threading.RLock


def is_held(lock: Any) -> bool:
    """Whether this thread holds a `Lock`."""
    return bool(lock._is_owned())  # as `threading.Condition` asks

"""What a fork asks for: locks, connections and files that belong to the parent are not the child's."""

from __future__ import annotations

import logging  # noqa: F401  # its own hook takes its lock, which an import may need: ours has to come before it
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

_register = getattr(os, "register_at_fork", lambda **_: None)  # a platform without fork needs nothing

_PATIENCE = 10.0  # seconds that a fork waits: a signal handler may fork in the middle of it all

_importing = threading.RLock()
_waited = False


def in_child(do: Callable[[], None]) -> None:
    """Call `do` in every child that this process forks."""
    _register(after_in_child=do)


def around(before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]) -> None:
    """Call `before` ahead of every fork, and one of the others after it."""
    _register(before=before, after_in_parent=in_parent, after_in_child=in_child)


def importing() -> AbstractContextManager[object]:
    """Let forks wait while a module is imported late: a child would wait for ever for the thread that was at it."""
    return _importing  # the lock itself, which an interrupt can't get between


def _wait() -> None:
    global _waited
    _waited = _importing.acquire(timeout=_PATIENCE)


def _go_on() -> None:
    if _waited:
        _importing.release()


def _start_over() -> None:
    global _importing
    _importing = threading.RLock()


around(_wait, _go_on, _start_over)

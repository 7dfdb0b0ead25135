"""What a fork asks for: locks, connections and files that belong to the parent are not the child's."""

from __future__ import annotations

import logging  # noqa: F401  # its own hook takes its lock, which an import may need: ours has to come before it
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Literal

from anymate_guard._process.locks import Lock

Taken = list[Any]
Hook = Callable[[Taken], object]

_PATIENCE = 10.0  # seconds that a fork waits: a signal handler may fork in the middle of it all

_importing = Lock()
_hooks: list[tuple[Hook, Hook, Hook]] = []


class _Local(threading.local):
    """What the hooks have taken, by their place, for each fork of this thread: a signal handler may fork meanwhile."""

    def __init__(self) -> None:
        self.forks: list[defaultdict[int, Taken]] = []


_local = _Local()


def in_child(do: Callable[[], object]) -> None:
    """Call `do` in every child that this process forks."""
    around(lambda _: None, lambda _: None, lambda _: do())


def around(before: Hook, in_parent: Hook, in_child: Hook) -> None:
    """Call `before` ahead of every fork, and one of the others after it.

    They get a list of their own for each fork, as threads may fork at once: `before` notes in it what it has taken, the
    others give that back.
    """
    _hooks.append((before, in_parent, in_child))


def forking() -> bool:
    """Whether this thread is just about to fork, or has just done so: an exception would be lost."""
    return bool(_local.forks)


def importing() -> AbstractContextManager[object]:
    """Let forks wait while a module is imported late: a child would wait for ever for the thread that was at it."""
    return _importing  # the lock itself, which an interrupt can't get between


def _wait(taken: Taken) -> None:
    if _importing.acquire(timeout=_PATIENCE):
        taken.append(_importing)


def _go_on(taken: Taken) -> None:
    while taken:
        taken.pop().release()


def _start_over() -> None:
    global _importing
    _importing = Lock()


def _before() -> None:
    taken = defaultdict[int, Taken](list)
    _local.forks.append(taken)
    _call((hooks[0], taken[place]) for place, hooks in reversed([*enumerate(_hooks)]))


def _after_in_parent() -> None:
    _after(1)


def _after_in_child() -> None:
    _after(2)


def _after(which: Literal[1, 2]) -> None:
    taken = _local.forks[-1] if _local.forks else defaultdict[int, Taken](list)
    try:  # also those hooks that were imported while this fork waited for that
        _call((hooks[which], taken[place]) for place, hooks in enumerate(_hooks))
    finally:
        del _local.forks[-1:]


def _call(hooks: Iterable[tuple[Hook, Taken]]) -> None:
    """Call every hook, also after one that raises, by a Ctrl-C, say; Python tells of that, and forks all the same."""
    trouble = None
    for hook, taken in hooks:
        try:
            hook(taken)
        except BaseException as error:  # noqa: BLE001  # raised when all were called
            trouble = error
    if trouble is not None:
        raise trouble


around(_wait, _go_on, lambda _: _start_over())
_register = getattr(os, "register_at_fork", lambda **_: None)  # a platform without fork needs nothing
_register(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)

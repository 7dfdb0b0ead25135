"""Which run is the current one of a thread or task. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from anymate_guard._process.fork import in_child
from anymate_guard._process.locks import Lock, is_held
from anymate_guard.errors import NoCurrentRun

if TYPE_CHECKING:
    from anymate_guard._run.run import Run


class Scope:
    """Where a run, or an attempt, is the current one: from here on in this thread or task, until it is left.

    Args:
        run: What `current_run()` gives.
        bind: Sets what else belongs to it, and gives what puts that back when the scope is left.
    """

    __slots__ = ("_outer", "_undo", "run")

    def __init__(self, run: Run, bind: Callable[[], Callable[[], None]] = lambda: lambda: None) -> None:
        self.run = run
        with _mine.lock:
            self._undo = bind()
            self._outer = _current.get()
            _current.set(self)
        _take_out_late()

    def leave(self) -> None:
        """Put things back as they were, in whatever order scopes are left; in another context, do nothing."""
        _mine.late.append(self)
        _take_out_late()

    def _take_out(self) -> None:
        scope = _current.get()
        if scope is self:
            _current.set(self._outer)
            self._undo()
            return
        while scope is not None:
            if scope._outer is self:  # left before the one inside it, which then goes back to what was before both
                scope._outer, scope._undo = self._outer, self._undo
                return
            scope = scope._outer


class _Mine(threading.local):
    """What a thread is at: in the midst of it the garbage collector may close a generator, and leave its scope.

    Attributes:
        lock: Held while a scope is entered or left.
        late: The scopes that are to be left.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.late: list[Scope] = []


def _take_out_late() -> None:
    """Leave what is to be left, unless this thread is in the midst of another: then that is finished first."""
    while _mine.late and not is_held(_mine.lock):
        with _mine.lock:
            late, _mine.late = _mine.late, []
            for scope in late:
                scope._take_out()


_mine = _Mine()
_current: ContextVar[Scope | None] = ContextVar("anymate_run", default=None)


def current_run() -> Run:
    """The run, or the attempt, of this thread or task.

    A new thread has none, unless it runs in a copy of the context: by `contextvars.copy_context().run` or
    `asyncio.to_thread`, or where Python copies it to each new thread (`sys.flags.thread_inherit_context`, from 3.14 on;
    free-threaded builds do so by default). There, pass the run to the threads of a pool, which outlive a guard.

    Raises:
        NoCurrentRun: Outside a guard.
    """
    scope = _current.get()
    if scope is None:
        raise NoCurrentRun(
            "there is no current run here: call this inside `with anymate_run(...)` or a function decorated with it; "
            "a new thread needs the run passed to it, and a new process returns a Kpis to the one that holds the guard"
        )
    return scope.run


in_child(lambda: _current.set(None))  # the child is in no run: what it recorded would be lost

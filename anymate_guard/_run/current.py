"""Which run is the current one of a thread or task. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from anymate_guard._process.fork import in_child
from anymate_guard.errors import NoCurrentRun

if TYPE_CHECKING:
    from anymate_guard._run.run import Run


class Scope:
    """Where a run, or an attempt, is the current one: from here on in this thread or task, until it is left.

    Args:
        run: What `current_run()` gives.
        undo: Called when the scope is left, to put back what else was set with it.
    """

    __slots__ = ("_outer", "_undo", "run")

    def __init__(self, run: Run, undo: Callable[[], None] = lambda: None) -> None:
        self.run = run
        self._undo = undo
        self._outer = _current.get()
        _current.set(self)

    def leave(self) -> None:
        """Put things back as they were, in whatever order scopes are left; in another context, do nothing."""
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

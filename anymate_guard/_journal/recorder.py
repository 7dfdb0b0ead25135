"""Keeps the journals up with the open guards: what they recorded is on the disk at most a second later.

Its thread is not there while the process forks: Python warns of a fork beside threads, whoever's they are.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextvars import Context

from anymate_guard._journal.journals import all_journals
from anymate_guard._process.fork import Taken, around
from anymate_guard._process.locks import Lock

_EVERY = 0.4  # seconds
_FORKING = 10.0  # seconds that a fork waits for the thread to end

_lock = Lock()
_thread: _Thread | None = None
_paused = 0  # forks that are under way
_due: float | None = None  # monotonic time of the next look: a thread that a fork stops leaves it to the one after it
_chores: list[Callable[[], bool]] = []


class _Thread(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="anymate_guard", daemon=True)
        self.stop = threading.Event()

    def run(self) -> None:
        """Look at the journals now and then, until there is nothing to do."""
        global _thread
        try:
            Context().run(self._look)  # the program's own context may be inherited by its threads
        finally:  # should it fail, the next guard begins again
            with _lock:
                if _thread is self:
                    _thread = None

    def _look(self) -> None:
        global _due
        # Never for longer, as the clock may have been the bot's mock meanwhile.
        while not self.stop.wait(min(_EVERY, max(0.0, (_due or 0.0) - time.monotonic()))):
            _due = time.monotonic() + _EVERY
            for journal in all_journals():
                journal.look()
            if not (_has_more(self) or _thread is self):
                return


def begin() -> None:
    """See that the recorder runs."""
    global _thread, _due
    with _lock:
        if _thread is None and not _paused:
            _due = _due or time.monotonic() + _EVERY
            thread = _Thread()
            try:
                thread.start()
            except RuntimeError:  # no new thread at the interpreter's exit
                return
            _thread = thread


def also(chore: Callable[[], bool]) -> None:
    """Do something at each look, too; it says whether there is more to do."""
    _chores.append(chore)


def _has_more(thread: _Thread) -> bool:
    """Whether there is something to look at; else the thread is not the recorder any more."""
    global _thread, _due
    busy = [chore() for chore in _chores]
    with _lock:
        if any(busy) or not all(journal.idle for journal in all_journals()):
            return True
        if _thread is thread:
            _thread = _due = None
        return False


def _before_fork(paused: Taken) -> None:
    global _thread, _paused
    with _lock:  # also while the thread is being started
        thread = _thread
        if thread is None or thread is threading.current_thread():
            return
        _paused += 1
        paused.append(thread)
        _thread = None
    thread.stop.set()
    thread.join(_FORKING)
    # For a moment after that the operating system still counts it. (gevent's threads are all of the main thread.)
    end, task = time.monotonic() + _FORKING, f"/proc/self/task/{thread.native_id}"
    while thread.native_id != os.getpid() and os.path.exists(task) and time.monotonic() < end:  # noqa: PTH110
        time.sleep(0)


def _after_fork_in_parent(paused: Taken) -> None:
    global _paused
    if paused:
        with _lock:
            _paused -= 1
        begin()


def _after_fork(_: Taken) -> None:
    global _lock, _thread, _paused, _due
    _lock, _thread, _paused, _due = Lock(), None, 0, None


around(_before_fork, _after_fork_in_parent, _after_fork)

"""Keeps the journal up with the open runs: what they recorded is in it at most a second later.

Its thread is not there while the process forks: Python warns of a fork beside threads, whoever's they are.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import defaultdict

from anymate_guard._deadline import Deadline
from anymate_guard._journal.journal import Journal, all_journals
from anymate_guard._lifecycle import sharing
from anymate_guard._lifecycle.sharing import Recorded, Shared
from anymate_guard._process import signals
from anymate_guard._process.fork import Taken, around
from anymate_guard._run import close, totals

_EVERY = 0.4  # seconds
_FORKING = 1.0  # seconds that a fork waits for the thread to end

_lock = threading.RLock()  # reentrant, as a signal handler may fork anywhere
_thread: _Thread | None = None
_paused = 0  # forks that are under way
_due: float | None = None  # monotonic time of the next look: a thread that a fork stops leaves it to the one after it


class _Thread(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="anymate_guard", daemon=True)
        self.stop = threading.Event()

    def run(self) -> None:
        """Look at the open runs now and then, until there are none."""
        global _thread
        try:
            self._look()
        finally:  # should it fail, the next guard begins again
            with _lock:
                if _thread is self:
                    _thread = None

    def _look(self) -> None:
        global _due
        suspects: list[Shared] = []
        while not self.stop.wait(max(0.0, (_due or 0.0) - time.monotonic())):
            _due = time.monotonic() + _EVERY
            runs = _runs_to_look_at(self)
            if not runs and _thread is not self:
                return
            signals.remind()
            _record([shared for shared in runs if shared.state == "open"])
            # Seen twice: between counting out and finishing there is a moment, too.
            _put_back_what_was_given_up([shared for shared in suspects if shared in runs])
            suspects = [shared for shared in runs if sharing.given_up(shared)]


def begin() -> None:
    """See that the recorder runs."""
    global _thread, _due
    with _lock, contextlib.suppress(RuntimeError):  # no new thread at the interpreter's exit
        if _thread is None and not _paused:
            _due = _due or time.monotonic() + _EVERY
            thread = _Thread()
            thread.start()
            _thread = thread


def put_back(shared: Shared, deadline: Deadline) -> None:
    """Leave a run that nobody can finish now to the journal, and so to settling; one not begun leaves nothing."""
    entries, nanoseconds = close(shared.run, shared.outcome)
    if not shared.client.settings.disabled:
        row = shared.row
        row.entries, row.nanoseconds = entries, nanoseconds
        shared.journal.put_back(shared.claims, deadline, row if shared.state in {"open", "leaving"} else None)
        if shared.state == "entering":
            shared.journal.forget([row], deadline)
    shared.state = "over"
    sharing.remove(shared)


def _runs_to_look_at(thread: _Thread) -> list[Shared]:
    """The runs that there are; without any, and with nothing to be written, the thread is not the recorder any more."""
    global _thread, _due
    with _lock:
        runs = sharing.all_runs("entering", "open", "leaving", "over")
        if not runs and not any(journal.behind for journal in all_journals()) and _thread is thread:
            _thread = _due = None
        return runs


def _put_back_what_was_given_up(suspects: list[Shared]) -> None:
    for shared in filter(sharing.given_up, suspects):
        with shared.transit:
            sharing.take_over(shared)
            put_back(shared, Deadline.after(1))


def _record(runs: list[Shared]) -> None:
    changed: defaultdict[Journal, list[tuple[Shared, Recorded]]] = defaultdict(list)
    for shared in runs:
        now = (*totals(shared.run), shared.row.zeros, shared.row.run_id)
        if now != shared.recorded and not shared.client.settings.disabled:
            changed[shared.journal].append((shared, now))
    for journal in all_journals():
        news = changed[journal]
        if news or journal.behind:
            rows = [(shared.row, *totals(shared.run)) for shared, _ in news]
            if journal.record(rows, Deadline.after(1)):
                for shared, now in news:
                    shared.recorded = now


def _before_fork(paused: Taken) -> None:
    global _thread, _paused
    thread = _thread
    if thread is None or thread is threading.current_thread():
        return
    _paused += 1
    paused.append(thread)
    _thread = None
    thread.stop.set()
    thread.join(_FORKING)
    # For a moment after that the operating system still counts it.
    end = time.monotonic() + _FORKING
    while os.path.exists(f"/proc/self/task/{thread.native_id}") and time.monotonic() < end:  # noqa: PTH110
        time.sleep(0)


def _after_fork_in_parent(paused: Taken) -> None:
    global _paused
    if paused:
        _paused -= 1
        begin()


def _after_fork() -> None:
    global _lock, _thread, _paused, _due
    _lock, _thread, _paused, _due = threading.RLock(), None, 0, None


around(_before_fork, _after_fork_in_parent, lambda _: _after_fork())

"""What a run records: exactly, and from any thread. No I/O."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType
from typing import Literal, NoReturn, SupportsIndex

from anymate_guard._process import signals
from anymate_guard._process.fork import in_child
from anymate_guard._process.locks import Lock, is_held
from anymate_guard._run.amounts import MOST, NANOSECONDS, checked_entries, checked_nanoseconds
from anymate_guard._run.current import Scope
from anymate_guard._run.kpis import Kpis

Recorded = tuple["int | None", "int | None"]  # entries and nanoseconds
Rooms = tuple[int, int]  # what can still be added of both
Outcome = Literal["succeeded", "failed", "interrupted"]
SEVERITY: list[Outcome] = ["succeeded", "interrupted", "failed"]  # of guards in one run, the worst one counts
_INSTEAD = "return a Kpis from the worker and merge() it where the guard is"

# One lock for all runs of a process: it is held for less than a microsecond, and a forked child has another one.
_lock = Lock()


def outcome_of(error: BaseException | None) -> Outcome:
    """How a body ended that raised this.

    A signal is an interruption, and so is what is no `Exception`: KeyboardInterrupt, a cancelled task of asyncio or
    trio, a greenlet that is killed. The exception is SystemExit, which says by its code whether all went well.
    """
    if error is None:
        return "succeeded"
    if isinstance(error, SystemExit) and not signals.raised(error):
        return "succeeded" if error.code is None or (isinstance(error.code, int) and error.code == 0) else "failed"
    return "failed" if isinstance(error, Exception) else "interrupted"


class Run:
    """One run on a process, as the guard hands it out: what it records is sent when the run is finished.

    Recording is thread-safe. A recorded 0 is sent as 0; what was never recorded is not sent, so that Anymate's
    defaults apply. Fractions of seconds add up exactly, and the total is rounded half up once, at the end.
    """

    __slots__ = ("_closed", "_entries_room", "_lock", "_ns_room", "_outcome", "_process_key", "_run_id")

    def __init__(self, process_key: str, run_id: int | None = None) -> None:
        self._process_key = process_key
        self._run_id = run_id
        self._outcome: Outcome | None = None
        # What can still be added, so that a total that would be too large, a first recording and a finished run are
        # one comparison: -1 is "nothing recorded yet" or "finished", which the slow path tells apart.
        self._entries_room = -1
        self._ns_room = -1
        self._closed: Recorded | None = None
        self._lock = _lock  # by which it is known in a forked child, where nobody would send what is recorded

    @property
    def process_key(self) -> str:
        """The process that is run."""
        return self._process_key

    @property
    def run_id(self) -> int | None:
        """Anymate's number of the run; None while Anymate could not be reached to start it."""
        return self._run_id

    @property
    def outcome(self) -> Outcome | None:
        """None while open, then "succeeded", "failed" or "interrupted"."""
        return self._outcome

    @property
    def entries(self) -> int | None:
        """The entries recorded so far; None until some were."""
        return totals(self)[0]

    @property
    def seconds_saved(self) -> float | None:
        """The seconds recorded so far; None until some were."""
        return self.kpis.seconds_saved

    @property
    def kpis(self) -> Kpis:
        """Both at once, as a `Kpis`."""
        entries, nanoseconds = totals(self)
        return Kpis(entries, None if nanoseconds is None else nanoseconds / NANOSECONDS)

    def add_entries(self, count: SupportsIndex = 1) -> None:
        """Count entries that were worked on.

        Args:
            count: How many, a whole number from 0.

        Raises:
            TypeError: When it is not a whole number (bool included).
            ValueError: When it is negative, or the total would pass 2 147 483 647.
            RuntimeError: When the run is finished, or belongs to the process that forked this one.
        """
        if type(count) is int:
            with _lock:
                if 0 <= count <= self._entries_room and self._lock is _lock:
                    self._entries_room -= count
                    return
        self._record(checked_entries(count), None)

    def add_seconds_saved(self, seconds: float | timedelta) -> None:
        """Add work time saved.

        Args:
            seconds: Seconds as a number, or a timedelta; not negative.

        Raises:
            TypeError: When it is not a number or timedelta (bool included).
            ValueError: When it is negative, infinite or NaN, or the total would pass 2 147 483 647 s.
            RuntimeError: When the run is finished, or belongs to the process that forked this one.
        """
        nanoseconds = checked_nanoseconds(seconds)
        with _lock:
            if nanoseconds <= self._ns_room and self._lock is _lock:
                self._ns_room -= nanoseconds
                return
        self._record(None, nanoseconds)

    def set_kpis(self, *, entries: SupportsIndex | None = None, seconds_saved: float | timedelta | None = None) -> None:
        """Replace totals; one that is not given stays.

        Args:
            entries: The new total of entries.
            seconds_saved: The new total of seconds saved.

        Raises:
            TypeError: When a value is not a number (bool included).
            ValueError: When a value is negative, infinite, NaN or too large.
            RuntimeError: When the run is finished, or belongs to the process that forked this one.
        """
        self._record(
            None if entries is None else checked_entries(entries),
            None if seconds_saved is None else checked_nanoseconds(seconds_saved),
            replace=True,
        )

    def merge(self, kpis: Kpis) -> None:
        """Add what a worker or task returned: both values, or neither when one is refused.

        Args:
            kpis: A `Kpis`.

        Raises:
            TypeError: When it is not a `Kpis`.
            ValueError: When a total would pass 2 147 483 647.
            RuntimeError: When the run is finished, or belongs to the process that forked this one.
        """
        if not isinstance(kpis, Kpis):
            raise TypeError(f"merge takes a Kpis, got {kpis!r}")
        self._record(kpis.entries, None if kpis.seconds_saved is None else checked_nanoseconds(kpis.seconds_saved))

    def attempt(self) -> Attempt:
        """A try inside a retry loop: `with run.attempt() as attempt:` counts only if its block succeeds.

        Raises:
            RuntimeError: When the run is finished, or belongs to the process that forked this one.
        """
        self._check()
        return Attempt(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a run can't be pickled: {_INSTEAD}")

    def _check(self) -> None:
        """Refuse what would be lost."""
        if self._lock is not _lock:
            raise RuntimeError(
                f"the run on {self._process_key!r} belongs to the process that forked this one: {_INSTEAD}"
            )
        if self._closed is not None:
            raise RuntimeError(f"the run on {self._process_key!r} is finished; record before the end of its block")

    def _totals(self) -> Recorded:
        """Entries and nanoseconds so far; takes the lock to be held."""
        used = _used(self._entries_room, self._ns_room)  # first, as there is no room any more once it is closed
        return self._closed or used

    def _record(
        self, entries: int | None, nanoseconds: int | None, *, replace: bool = False, capped: bool = False
    ) -> None:
        """Add to totals or replace them: all that are given, or none."""
        while True:
            self._check()
            old = self._entries_room, self._ns_room
            new = (
                _take("entries", MOST, old[0], entries, replace=replace, capped=capped),
                _take("seconds saved", MOST * NANOSECONDS, old[1], nanoseconds, replace=replace, capped=capped),
            )
            if self._exchange(old, new):
                return

    def _exchange(self, old: Rooms, new: Rooms, closed: Recorded | None = None, outcome: Outcome | None = None) -> bool:
        """Put new rooms in place of those that they were made from; False if these are others by now.

        Nothing is called in between, as a signal handler could come there, and record in this very thread.
        """
        old_entries, old_ns = old
        with _lock:
            if self._closed is None and self._entries_room == old_entries and self._ns_room == old_ns:
                self._entries_room, self._ns_room = new
                self._closed, self._outcome = closed, outcome
                return True
        return False


class Attempt(Run):
    """One try of a retry loop inside a run: records like a run, and counts only if its block succeeds.

    `current_run()` inside the block gives the attempt.
    """

    __slots__ = ("_parent", "_scope")

    def __init__(self, parent: Run) -> None:
        super().__init__(parent.process_key)
        self._parent = parent
        self._scope: Scope | None = None

    @property
    def run_id(self) -> int | None:
        """Anymate's number of the run around it."""
        return self._parent.run_id

    def __enter__(self) -> Attempt:
        if self._scope is not None:
            raise RuntimeError("an attempt is entered once; take a new one from run.attempt() for each try")
        self._scope = Scope(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._scope is None:
            raise RuntimeError("an attempt is left, but was not entered")
        self._scope.leave()
        outcome = outcome_of(error)
        entries, nanoseconds = close(self, outcome)
        if outcome == "succeeded" and self._lock is _lock:  # else a forked child leaves what is its parent's
            # Each recording fitted when it was made; a loop must not redo its work because their sum does not.
            self._parent._record(entries, nanoseconds, capped=True)


def totals(run: Run) -> Recorded:
    """Entries and nanoseconds recorded so far."""
    with _lock:
        return run._totals()


def in_use() -> bool:
    """Whether this thread is in the middle of recording, as the garbage collector may come there, too."""
    return is_held(_lock)


def close(run: Run, outcome: Outcome) -> Recorded:
    """Refuse further recording and give the totals back: entries and nanoseconds."""
    while run._closed is None:
        rooms = run._entries_room, run._ns_room
        run._exchange(rooms, (-1, -1), _used(*rooms), outcome)
    return run._closed


def set_run_id(run: Run, run_id: int) -> None:
    """Note the number that StartRun gave."""
    run._run_id = run_id


def _used(entries_room: int, ns_room: int) -> Recorded:
    return None if entries_room < 0 else MOST - entries_room, None if ns_room < 0 else MOST * NANOSECONDS - ns_room


def _take(what: str, most: int, room: int, amount: int | None, *, replace: bool, capped: bool) -> int:
    """What is left of `room` after recording `amount`."""
    if amount is None:
        return room
    before = most if replace or room < 0 else room
    if amount > before and not capped:
        unit = most // MOST  # 1 for entries, a second's nanoseconds for seconds
        raise ValueError(f"{what} can't pass {MOST} in all: {most // unit - before // unit} and {amount // unit} more")
    return max(0, before - amount)


def _after_fork() -> None:
    """Another thread of the parent may have held it."""
    global _lock
    _lock = Lock()


in_child(_after_fork)

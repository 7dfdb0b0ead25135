"""The runs that are open in this program: who is in them, who joins, who is the last one out. No I/O."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from anymate_guard._journal.rows import Entry, Row, new_id
from anymate_guard._journal.view import Claims
from anymate_guard._lifecycle.calling import Way
from anymate_guard._lifecycle.options import Mate, Options
from anymate_guard._process.locks import Lock, is_held
from anymate_guard._run.run import SEVERITY, Outcome, Run, close, set_run_id, totals

State = Literal["entering", "open", "leaving", "over"]
Key = tuple[str, str, bool]


class Place:
    """One guard's place in a run: held until it is given up, or until nobody has what `hold()` gave any more.

    Attributes:
        shared: The run; None as long as there is none.
    """

    def __init__(self) -> None:
        self.shared: Shared | None = None
        self._bytes = bytearray(1)
        self._view: memoryview | None = memoryview(self._bytes)

    def hold(self) -> memoryview:
        """What the guard's block holds: once that is gone the place is not held any more, and no code has to run.

        A weak reference would not do: the garbage collector clears those before bodies that it closes are over.
        """
        view, self._view = memoryview(self._bytes), None
        return view

    def is_held(self) -> bool:
        """Whether the guard is still in its block, for all that is known."""
        try:
            self._bytes.clear()
        except BufferError:  # of what has a view, the size can't be changed
            return True
        return False


@dataclass(eq=False)
class Shared:
    """A run that one or more guards of this program are in.

    Attributes:
        mate: Who runs it.
        run: What the guards hand out.
        entry: Its row in the journal.
        claims: The rows that entering or leaving it has claimed.
        way: That of whoever starts or finishes it; it ends with them, however they end.
        started: Monotonic time.
        state: Where in its life it is.
        places: The guards in it. Each comes and goes in one step, so that an interruption finds all agreeing; one that
            was kept from going by another interruption is told by its place, which is not held any more.
        outcome: The worst one so far.
        zeros: Whether every guard that left wants zeros for what was not recorded.
    """

    mate: Mate
    run: Run
    entry: Entry
    claims: Claims
    way: Callable[[], Way | None]
    started: float
    state: State = "entering"
    places: set[Place] = field(default_factory=set)
    outcome: Outcome = "succeeded"
    zeros: bool = True

    @property
    def key(self) -> Key:
        """What guards that share a run have in common."""
        return self.mate.address, self.entry.row.process_key, self.mate.disabled

    @property
    def run_id(self) -> int | None:
        """Anymate's number of the run."""
        return self.entry.row.run_id

    def name(self, run_id: int) -> None:
        """Note the run's number: its body begins, or has begun."""
        self.entry.change(run_id=run_id, state="open")
        set_run_id(self.run, run_id)

    def begin_body(self) -> None:
        """Note that what is recorded from now on counts, whether the journal can be written or not."""
        self.entry.change(state="open")

    def note(self) -> None:
        """Note how the bodies ended whose guards have left: that counts, too, if the program is killed in another's."""
        row, outcome = self.entry.row, max("interrupted", self.outcome, key=SEVERITY.index)
        self.entry.change(outcome=outcome, zeros=row.zeros and self.zeros)

    def close(self) -> Row:
        """Refuse further recording; the row as it is to be left."""
        close(self.run, self.outcome)
        row = self.entry.row
        if not row.finish:
            self.claims.unsent.add(row.id)
        finish = 0 if row.id in self.claims.unsent else row.finish
        return self.entry.recorded(zeros=self.zeros, outcome=self.outcome, finish=finish)

    def is_abandoned(self) -> bool:
        """Whether nobody is in the run any more, or starts or finishes it, as an exception has ended them."""
        way = self.way()
        driven = way is not None and not way.over
        held = self.state == "open" and any(place.is_held() for place in self.places.copy())
        return not driven and not held

    def worsen(self, outcome: Outcome) -> None:
        """Note how a guard's body ended: the worst one counts."""
        self.outcome = max(self.outcome, outcome, key=SEVERITY.index)


class Program:
    """Who is in which run of this program.

    Args:
        clock: Gives monotonic time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = Lock()
        self._runs: dict[Key, list[Shared]] = {}

    def prepare(self, way: Way, process_key: str, options: Options) -> Shared:
        """A run that nobody is in yet."""
        mate = way.mate
        run = Run(process_key, options.run_id)
        row = Row(
            mate.address,
            mate.username,
            process_key,
            run_id=options.run_id,
            state="starting" if options.run_id is None else "open",
            zeros=options.zeros("interrupted"),
            adopted=options.run_id is not None,
            id=new_id(),
        )
        entry = Entry(row, lambda: totals(run))
        return Shared(mate, run, entry, way.claims, weakref.ref(way), self.clock())

    def join(
        self, fresh: Shared, place: Place, options: Options, *, wait: bool
    ) -> tuple[Literal["fresh", "joined", "busy", "abandoned"], Shared]:
        """Join the open run of this program on the process; without one, `fresh` becomes it and has to be started.

        Args:
            fresh: A prepared run.
            place: The guard's place.
            options: What the guard asks for.
            wait: Whether there is time to wait for one that is started or finished just now.

        Returns:
            What came of it, and with which run: one that is "busy" is tried again later, one that was "abandoned" has
            to be finished first.
        """
        with self._lock:
            shared = self._find(fresh.key, options.run_id)
            if shared is not None and shared.is_abandoned():
                return "abandoned", shared
            if shared is None or (shared.state != "open" and not wait):
                self._runs.setdefault(fresh.key, []).append(fresh)
                return "fresh", fresh
            if shared.state != "open":
                return "busy", shared
            if options.run_id is not None and shared.run_id is None:
                shared.name(options.run_id)
            shared.entry.change(zeros=shared.entry.row.zeros and options.zeros("interrupted"))
            place.shared = shared
            shared.places.add(place)
            return "joined", shared

    def open(self, fresh: Shared, place: Place) -> None:
        """Let others join a run whose body begins, with this guard in it."""
        with self._lock:
            place.shared = fresh
            fresh.places.add(place)
            fresh.state = "open"

    def leave(
        self, place: Place, way: Way, outcome: Outcome, *, zeros: bool, failure: str | None
    ) -> tuple[Shared, bool] | None:
        """Count a guard out of its run, which comes back, and whether this was the last one, who has to finish it.

        None if it is in no run any more: the interpreter's exit has finished it.
        """
        with self._lock:
            shared = place.shared
            if shared is None or place not in shared.places:
                return None
            shared.worsen(outcome)
            shared.zeros = shared.zeros and zeros
            if failure is not None:
                shared.entry.change(failure=failure)
            shared.places.discard(place)
            if shared.places:
                shared.note()
            return shared, self.take_over(shared, way)

    def abandon(self, place: Place, *, began: bool = True) -> None:
        """Take a guard out of its run when it could not leave by itself; whoever sees that finishes the run.

        Args:
            place: The guard's place.
            began: Whether its body has begun: else no credit is due, but in a run that somebody else started.
        """
        shared = place.shared
        if shared is not None and place in shared.places:
            shared.worsen("interrupted")
            row = shared.entry.row
            shared.zeros = shared.zeros and (row.zeros or not (began or row.adopted))
            shared.places.discard(place)

    def in_use(self) -> bool:
        """Whether this thread is in the middle of something here, as the garbage collector may come there, too."""
        return is_held(self._lock)

    def take_over(self, shared: Shared, way: Way, *, by_force: bool = False) -> bool:
        """Begin to finish a run; False when somebody is in it, or finishes it, or has finished it."""
        with self._lock:
            forced = by_force and shared.state == "open"
            if shared.state == "over" or not (forced or shared.is_abandoned()):
                return False
            if shared.places:  # of guards that could not leave
                shared.worsen("interrupted")
                shared.zeros = shared.zeros and shared.entry.row.zeros
            shared.way = weakref.ref(way)
            if shared.state == "open":
                shared.state = "leaving"
            return True

    def remove(self, shared: Shared) -> None:
        """Forget a run that is over."""
        with self._lock:
            shared.state = "over"
            others = [other for other in self._runs.get(shared.key, ()) if other.state != "over"]
            if others:
                self._runs[shared.key] = others
            else:
                self._runs.pop(shared.key, None)

    def runs(self) -> list[Shared]:
        """The runs that are not over."""
        with self._lock:
            return [shared for runs in self._runs.values() for shared in runs if shared.state != "over"]

    def _find(self, key: Key, run_id: int | None) -> Shared | None:
        for shared in self._runs.get(key, ()):
            # One that is over may be here still, if an interruption came while it was removed.
            if shared.state != "over" and (run_id is None or shared.run_id in {None, run_id}):
                return shared
        return None

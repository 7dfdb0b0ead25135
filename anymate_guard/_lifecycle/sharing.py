"""The runs that are open in this program: who is in them, who joins, who is the last one out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import Literal

import attrs

from anymate_guard._api.client import AnymateClient
from anymate_guard._deadline import Deadline
from anymate_guard._journal.journal import Journal
from anymate_guard._journal.rules import Claims, Row
from anymate_guard._lifecycle.options import Options
from anymate_guard._process.fork import in_child
from anymate_guard._run import Outcome, Run, set_run_id
from anymate_guard.errors import UnreachableError

State = Literal["entering", "open", "leaving", "over"]
Key = tuple[str, str, bool, str]
Recorded = tuple["int | None", "int | None", bool, "int | None"]  # entries, nanoseconds, zeros and run id

_POLL = 0.005  # seconds between two looks at a run that another thread starts or finishes
SEVERITY: list[Outcome] = ["succeeded", "interrupted", "failed"]


@attrs.define(eq=False)
class Shared:
    """A run that one or more guards of this program are in.

    Attributes:
        client: How to reach Anymate.
        run: What the guards hand out.
        row: Its row in the journal.
        state: Where in its life it is.
        guards: How many are in it.
        outcome: The worst one so far.
        zeros: Whether every guard that left wants zeros for what was not recorded.
        failure: The message of a guard that failed and wants it reported.
        recorded: What the journal knows of it, see `_recorder`.
        claims: What entering or leaving it has claimed in the journal.
        transit: Held by whoever starts or finishes it. Not held in these states, it was given up by an exception.
        started: Monotonic time.
        journal: Where it is kept.
    """

    client: AnymateClient
    run: Run
    row: Row
    state: State = "entering"
    guards: int = 1
    outcome: Outcome = "succeeded"
    zeros: bool = True
    failure: str | None = None
    recorded: Recorded | None = None
    claims: Claims = attrs.field(factory=Claims)
    transit: threading.Lock = attrs.field(factory=threading.Lock)
    started: float = attrs.field(factory=time.monotonic)
    journal: Journal = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.journal = Journal.at(self.client.settings.state_dir)

    @property
    def key(self) -> Key:
        """What guards that share a run have in common."""
        settings = self.client.settings
        return settings.api_url, settings.username, settings.disabled, self.row.process_key


@attrs.define
class Place:
    """One guard's place in a run.

    Attributes:
        shared: The run, from the moment the guard counts until it no longer does. It changes in the same step as the
            count, so that an exception out of a signal handler finds them agreeing.
        given_up: Whether the guard is not waited for any more, as its task was cancelled.
    """

    shared: Shared | None = None
    given_up: bool = False

    def check(self) -> None:
        """Raise `GivenUp` when nobody waits for the guard any more."""
        if self.given_up:
            raise GivenUp


class GivenUp(BaseException):
    """Ends the entering of a guard that nobody waits for any more."""


_lock = threading.RLock()  # reentrant, as the garbage collector may close a generator, and leave its guard, anywhere
_runs: dict[Key, list[Shared]] = {}


def join(fresh: Shared, place: Place, options: Options, deadline: Deadline) -> Shared:
    """Join the open run of this program on the process key; without one, `fresh` becomes it, and has to be started.

    Raises:
        UnreachableError: The run was not started yet, and the options require that.
    """
    while True:
        with _lock:
            place.check()
            shared = _found(fresh.key, options.run_id)
            if shared is None or (shared.state != "open" and deadline.left() <= 0):
                _runs.setdefault(fresh.key, []).append(fresh)
                return fresh
            if shared.state == "open":
                _take_place(shared, place, options)
                return shared
        time.sleep(_POLL)


def opened(fresh: Shared, place: Place) -> None:
    """Let others join a run whose body begins."""
    with _lock:
        place.check()
        fresh.state = "open"
        place.shared = fresh


def depart(place: Place, outcome: Outcome, options: Options, failure: str) -> tuple[Shared | None, bool]:
    """Count a guard out of its run, if it is in one still; the run, and whether it was the last one."""
    with _lock:
        shared = place.shared
        if shared is None or shared.state != "open":  # the interpreter's exit has finished it
            return None, False
        shared.outcome = max(shared.outcome, outcome, key=SEVERITY.index)
        shared.zeros = shared.zeros and outcome != "succeeded" and not options.credit_failed_runs
        if outcome == "failed" and options.report_failure:
            shared.failure = failure
        place.shared = None
        shared.guards -= 1
        return shared, shared.guards == 0


def take_over(shared: Shared, *, by_force: bool = False) -> bool:
    """Begin to finish a run, whose `transit` is held; False when others are in it, or it is finished."""
    with _lock:
        if shared.state != "open" or (shared.guards and not by_force):
            return False
        shared.state = "leaving"
        return True


def remove(shared: Shared) -> None:
    """Forget a run that is over."""
    with _lock:
        others = [other for other in _runs.get(shared.key, ()) if other is not shared]
        if others:
            _runs[shared.key] = others
        else:
            _runs.pop(shared.key, None)


def all_runs(*states: State) -> list[Shared]:
    """The runs in any of these states."""
    with _lock:
        return [shared for runs in _runs.values() for shared in runs if shared.state in states]


def given_up(shared: Shared) -> bool:
    """Whether an exception has ended whoever started or finished a run."""
    return not shared.transit.locked() and (shared.state != "open" or not shared.guards)


def _found(key: Key, run_id: int | None) -> Shared | None:
    candidates: Iterable[Shared] = _runs.get(key, ())
    for shared in candidates:
        fits = run_id is None or shared.row.run_id in {None, run_id}
        if fits and (shared.state == "open" or not given_up(shared)):
            return shared
    return None


def _take_place(shared: Shared, place: Place, options: Options) -> None:
    if options.run_id is not None and shared.row.run_id is None:
        shared.row.run_id = options.run_id
        set_run_id(shared.run, options.run_id)
    if options.require_start and shared.run.run_id is None and not shared.client.settings.disabled:
        raise UnreachableError("StartRun", "the run that this program has open was not started yet")
    shared.row.zeros = shared.row.zeros and not options.credit_failed_runs
    place.shared = shared
    shared.guards += 1


def _after_fork() -> None:
    global _lock, _runs
    _lock, _runs = threading.RLock(), {}


in_child(_after_fork)

"""Does what a life asks for: in the journal, with Anymate, and in the log."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable
from typing import TypeVar

from anymate_guard._api.client import AnymateClient
from anymate_guard._deadline import Deadline
from anymate_guard._guard.threads import in_thread
from anymate_guard._journal import recorder
from anymate_guard._journal.journals import close_all, journal_at
from anymate_guard._journal.rows import Row
from anymate_guard._journal.view import BATCH, BEGINNING, Claims
from anymate_guard._lifecycle.asks import (
    ActFor,
    Apply,
    Ask,
    Call,
    Drop,
    GiveBack,
    Keep,
    Life,
    Read,
    Say,
    Settled,
    Wait,
    Written,
)
from anymate_guard._lifecycle.calling import Way
from anymate_guard._lifecycle.leaving import give_up
from anymate_guard._lifecycle.options import Mate
from anymate_guard._lifecycle.settling import settle
from anymate_guard._lifecycle.sharing import Program, Shared
from anymate_guard._log import emit
from anymate_guard._process import signals
from anymate_guard._process.fork import in_child

T = TypeVar("T")

_READING = 0.2  # seconds to wait for a journal that can't even be read
_CLEARING = 0.5  # seconds to wait for one that can't be written, when something is given back
_TELLING = 0.2  # seconds between two tidings of a long delivery

program = Program()


class Stopped(BaseException):
    """Thrown into a life in another thread when whoever waits for it is interrupted."""


class Driver:
    """Drives lives for one client, until a life acts for another.

    Args:
        client: Makes the calls.

    Attributes:
        interruption: Thrown into the life before it does anything more; set from another thread.
    """

    def __init__(self, client: AnymateClient) -> None:
        self.interruption: BaseException | None = None
        of = client.settings
        self._act_for(Mate(of.api_url, of.username, of.timeout, of.deadline, of.disabled, client))

    def way(self) -> Way:
        """The way to Anymate for entering or leaving a guard now."""
        return Way(self._mate, time.monotonic, time.monotonic() + self._mate.deadline)

    def _act_for(self, mate: Mate) -> None:
        self._mate = mate
        self.journal = journal_at(mate.client.settings.state_dir)

    def run(self, life: Life[T]) -> T:
        """Do all that a life asks for, and give what it comes to.

        What goes wrong is thrown into the life, an interruption of this thread too: there it says what is still to be
        done.
        """
        try:
            return self._run(life, None)
        except BaseException as error:
            if inspect.getgeneratorstate(life) != inspect.GEN_CLOSED:  # it came between two requests
                self._run(life, error)
            raise
        finally:
            life.close()

    def _run(self, life: Life[T], error: BaseException | None) -> T:
        answer: object = None
        while True:
            try:
                ask = life.send(answer) if error is None else life.throw(error)
            except StopIteration as end:
                result: T = end.value
                return result
            answer, error = None, None
            try:
                if self.interruption is not None:
                    error, self.interruption = self.interruption, None
                else:
                    answer = self._do(ask)
            except BaseException as trouble:  # noqa: BLE001  # the life's own to decide about
                error = trouble

    def _do(self, ask: Ask) -> object:
        match ask:
            case Apply():
                return self.journal.apply(ask.address, ask.rule, ask.patience, durable=ask.durable)
            case Call():
                call = getattr(self._mate.client, ask.operation)
                return call(*ask.arguments, deadline=Deadline(ask.end, ask.retry))
            case ActFor():
                self._act_for(ask.mate)
            case Say():
                emit(ask.level, ask.event, **ask.fields)
            case Written():
                return self.journal.wanted.written(ask.entry.row)
            case Keep():
                self.journal.wanted.add(ask.entry)
                recorder.begin()
            case Read():
                return self.journal.read(ask.address, ask.rule, _READING)
            case Wait():
                time.sleep(ask.seconds)
            case _:
                self._let_go(ask)
        return None

    def _let_go(self, ask: GiveBack | Settled | Drop) -> None:
        match ask:
            case GiveBack():
                self.journal.wanted.give_back(ask.numbers, ask.unsent)
                self.journal.clear(_CLEARING, durable=True)
            case Settled():
                self.journal.wanted.settle(ask.finish, ask.how)
            case _:  # Drop
                self.journal.wanted.drop(ask.numbers)
                self.journal.clear(_CLEARING)


def settle_all(
    client: AnymateClient, threads: int = 1, batch: int = BATCH, tell: Callable[[int], object] = lambda _: None
) -> bool:
    """Send everything that is owed to the client's address and user; False if something could not be delivered.

    Args:
        client: Makes the calls.
        threads: How many finishes are under way at once: they are of independent runs.
        batch: How many each thread claims at once.
        tell: Called now and then, and at the end, with the number of rows that were delivered.
    """
    from concurrent.futures import ThreadPoolExecutor, wait

    drivers = [Driver(client) for _ in range(threads)]
    ways, tried = [driver.way() for driver in drivers], set[int]()
    for way in ways:
        way.claims = Claims(batch=min(BATCH, batch), tried=tried)
    well, before = True, -1
    with ThreadPoolExecutor(threads) as pool:
        while (delivered := sum(way.delivered for way in ways)) > before:  # one passes over what another is just at
            before = delivered
            for way in ways:
                way.claims.place = BEGINNING
            settled = [pool.submit(driver.run, _settling(way)) for driver, way in zip(drivers, ways, strict=True)]
            try:
                while wait(settled, _TELLING).not_done:
                    tell(sum(way.delivered for way in ways))
                    drivers[0].journal.look()  # or its log would grow till the end
            except BaseException:  # Ctrl-C, say
                for driver in drivers:
                    driver.interruption = Stopped()
                raise
            results = [each.result() for each in settled]
            well &= all(results)
            tell(sum(way.delivered for way in ways))
    return well


def _settling(way: Way) -> Life[bool]:
    """Settle without an end; interrupted, what was claimed is given back."""
    way.end = float("inf")
    try:
        return (yield from settle(way, Row(way.mate.address, way.mate.username, ""), seconds=float("inf")))
    except (Exception, Stopped):
        yield GiveBack(way.claims.rows, way.claims.unsent)
        raise


def finish_all() -> None:
    """At the interpreter's exit: finish what is open still, in a daemon thread say, and what is being finished.

    All of it has one deadline; what is left then goes to the journal, where it is owed.
    """
    runs = program.runs()
    end = time.monotonic() + max((shared.mate.deadline for shared in runs), default=0.0)
    while runs := [shared for shared in runs if shared.state != "over"]:
        for shared in runs:
            with contextlib.suppress(BaseException):  # Ctrl-C, say: the life has given its finish back, others follow
                _finish(shared, exit_by=end)
        if time.monotonic() > end:
            break
        time.sleep(0.005)
    close_all()


def _finish(shared: Shared, *, exit_by: float | None = None) -> None:
    Driver(shared.mate.client).run(give_up(program, shared, exit_by=exit_by))


def _finish_abandoned() -> bool:
    """Finish runs that nobody starts, holds or finishes any more; whether there are any runs."""
    runs = program.runs()
    for shared in runs:
        if shared.is_abandoned():
            from concurrent.futures import Future  # 3 ms

            in_thread(Future(), _finish, shared)
    return bool(runs)


def _after_fork() -> None:
    global program
    program = Program()


in_child(_after_fork)
recorder.also(_finish_abandoned)
recorder.also(signals.remind)

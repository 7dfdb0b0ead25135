"""Entering: a guard joins the open run of its process, or starts one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from anymate_guard._journal.rows import Unavailable
from anymate_guard._journal.rules import Entered, deferred, enter
from anymate_guard._journal.view import View
from anymate_guard._lifecycle.asks import ActFor, Keep, Life, Wait, say
from anymate_guard._lifecycle.calling import Way
from anymate_guard._lifecycle.leaving import give_up, take_back
from anymate_guard._lifecycle.options import Options
from anymate_guard._lifecycle.settling import settle, settle_claimed
from anymate_guard._lifecycle.sharing import Place, Program, Shared
from anymate_guard.errors import ApiError, NotOkToRun, UnreachableError

_POLL = 0.005  # seconds between two looks at a run that another thread starts or finishes


def entering(program: Program, place: Place, way: Way, process_key: str, options: Options) -> Life[Shared]:
    """Get a guard into a run.

    Args:
        program: Who is in which run.
        place: The guard's place, which it has when this ends without an exception.
        way: The way to Anymate, within the deadline.
        process_key: Which process.
        options: What the guard asks for.

    Raises:
        ApiError: StartRun was refused.
        UnreachableError: Anymate was unreachable and the options require a run.
        NotOkToRun: Anymate was asked and said no.
    """
    try:
        fresh = program.prepare(way, process_key, options)
        joined = yield from _join(program, fresh, place, options, way)
        if joined is not None:
            return joined
        try:
            if not way.mate.disabled:
                yield from _start(fresh, options, way)
            yield say("info", "run_started", process_key=process_key, run_id=fresh.run_id)
            program.open(fresh, place)
        except GeneratorExit:
            raise
        except BaseException as error:
            refused = isinstance(error, ApiError | NotOkToRun)
            if not refused:
                way.end = program.clock() + way.mate.deadline  # for leaving, which has one of its own
            yield from take_back(program, fresh, way, settle_others=refused)
            raise
        return fresh
    finally:
        way.over = True


def _join(program: Program, fresh: Shared, place: Place, options: Options, way: Way) -> Life[Shared | None]:
    """Join an open run of this program; None when there is none."""
    while True:
        result, shared = program.join(fresh, place, options, wait=way.left() > 0)
        if result == "fresh":
            return None
        if result == "joined":
            if options.require_start and shared.run_id is None and not way.mate.disabled:
                program.leave(place, way, "succeeded", zeros=True, failure=None)
                raise UnreachableError("StartRun", "the run that this program has open was not started yet")
            # A run has one account and one journal, those that its row is of: whoever is last out goes on with them,
            # as patiently as its own client does.
            yield ActFor(replace(shared.mate, timeout=way.mate.timeout, deadline=way.mate.deadline))
            yield say("info", "run_joined", process_key=shared.run.process_key, run_id=shared.run_id)
            return shared
        if result == "abandoned":
            yield from give_up(program, shared)
            yield ActFor(way.mate)
        else:
            yield Wait(_POLL)


def _start(shared: Shared, options: Options, way: Way) -> Life[None]:
    """Settle what is owed, then start the run, or leave that to the end."""
    entry, process_key = shared.entry, shared.run.process_key
    yield Keep(entry)
    entered = yield from _enter_journal(shared, way)
    if options.check_ok_to_run:
        yield from _check_ok_to_run(way, process_key, options)
    if options.run_id is None:
        yield from _start_run(shared, options, way, busy=entered.busy)
    if shared.run_id is not None and entered.left - {shared.run_id}:  # those that StartRun did not resume
        yield from settle(way, entry.row, "inside")


def _enter_journal(shared: Shared, way: Way) -> Life[Entered]:
    """Put the row into the journal, once nobody is finishing the process's run, and settle what comes before it."""
    entry = shared.entry

    def rule(view: View) -> Entered:
        return enter(view, entry.row, way.claims)

    entered: Entered = yield from _or(way.apply(rule), Entered())
    while entered.busy and (yield from way.until_idle(entry.row)):
        entered = yield from _or(way.apply(rule), Entered())
    way.outage |= entered.outage
    if entered.owed:
        yield from settle_claimed(way, entry.row, entered.owed, "entering")
    return entered


def _check_ok_to_run(way: Way, process_key: str, options: Options) -> Life[None]:
    try:
        advice = yield from way.call("ok_to_run", process_key)
    except (UnreachableError, ApiError) as error:
        if options.require_start:
            raise
        yield say("warning", "start_unchecked", process_key=process_key, operation="OkToRun", error=str(error))
        return
    if not advice.ok_to_run:
        raise advice.refusal(process_key)


def _start_run(shared: Shared, options: Options, way: Way, *, busy: bool) -> Life[None]:
    """StartRun, for this guard, or leave it to the end."""
    process_key = shared.run.process_key
    try:
        if not busy:
            # The journal has it at the next look, which spares a transaction.
            shared.name((yield from way.call("start_run", process_key)))
            return
        trouble = UnreachableError("StartRun", "another program is still finishing the run of this process")
    except UnreachableError as error:
        trouble = error
    if not options.require_start:
        shared.begin_body()
    reachable = None if busy else False
    yield from _or(way.apply(lambda view: deferred(view, shared.entry.row, reachable=reachable)), None)
    if options.require_start:
        raise trouble
    yield say("warning", "start_deferred", process_key=process_key, error=str(trouble))


def _or(life: Life[Any], otherwise: Any) -> Life[Any]:
    """Go on without the journal where it can't be used."""
    try:
        return (yield from life)
    except Unavailable:
        return otherwise

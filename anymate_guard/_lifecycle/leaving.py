"""Leaving: the last guard out of a run finishes it; and giving up a run that somebody could not start or leave."""

from __future__ import annotations

from anymate_guard._api.client import means_not_open
from anymate_guard._journal.rows import Finish, Unavailable, new_id
from anymate_guard._journal.rules import Left, give_back, leave, others_in_run
from anymate_guard._lifecycle.asks import ActFor, Drop, GiveBack, Life, Read, Say, Written, say
from anymate_guard._lifecycle.calling import Way
from anymate_guard._lifecycle.options import Options
from anymate_guard._lifecycle.settling import Delivery, Trouble, deliver, report_failure, settle
from anymate_guard._lifecycle.sharing import Place, Program, Shared
from anymate_guard._run.run import Outcome, set_run_id
from anymate_guard.errors import ApiError, UnreachableError


def leaving(
    program: Program, place: Place, way: Way, options: Options, *, outcome: Outcome, failure: str | None
) -> Life[None]:
    """Get a guard out of its run; the last one out finishes it.

    Args:
        program: Who is in which run.
        place: The guard's place.
        way: The way to Anymate, within the deadline.
        options: What the guard asks for.
        outcome: How its body ended.
        failure: What to report of it; None if nothing is.

    Raises:
        AnymateGuardError: The body succeeded, the finish could not be delivered, and the options require it.
    """
    try:
        left = program.leave(place, way, outcome, zeros=options.zeros(outcome), failure=failure)
        if left is None:
            return
        shared, last = left
        if not last:
            yield say("info", "run_left", process_key=shared.run.process_key, run_id=shared.run_id)
            return
        trouble = yield from _finish(program, shared, way)
        if trouble is not None and outcome == "succeeded" and options.require_finish:
            raise trouble
    finally:
        way.over = True


def give_up(program: Program, shared: Shared, *, exit_by: float | None = None) -> Life[None]:
    """Finish a run that nobody starts, holds or finishes any more, or take it back if its body never began.

    Args:
        program: Who is in which run.
        shared: The run.
        exit_by: When to give up as the interpreter ends; then it is finished although guards are in it.
    """
    by_force = exit_by is not None
    way = Way(shared.mate, program.clock, program.clock() + shared.mate.deadline if exit_by is None else exit_by)
    try:
        if program.take_over(shared, way, by_force=by_force):
            yield ActFor(shared.mate)
            yield from take_back(program, shared, way)
    finally:
        way.over = True


def take_back(program: Program, shared: Shared, way: Way, *, settle_others: bool = False) -> Life[None]:
    """Finish a run that was interrupted; one that Anymate has not named and whose body never began leaves nothing.

    Args:
        program: Who is in which run.
        shared: The run.
        way: The way to Anymate.
        settle_others: Whether to send what others left to the guard that can't start.
    """
    shared.worsen("interrupted")
    yield GiveBack(shared.claims.rows - {shared.entry.row.id}, shared.claims.unsent)
    shared.claims.rows.clear()
    started = shared.run_id is not None and not shared.entry.row.adopted
    if shared.state != "entering" or started:  # without any work, no credit is due: zeros is still as it was made
        yield from _finish(program, shared, way)
        return
    yield Drop({shared.entry.row.id})
    if settle_others and not shared.entry.row.adopted:  # it would be sent in the run that was to be adopted
        yield from settle(way, shared.entry.row)
    program.remove(shared)  # at the very end: what was claimed till then is given back by whoever finds it abandoned


def _finish(program: Program, shared: Shared, way: Way) -> Life[Trouble | None]:
    """Finish a run that its last guard has left; what stood in the way comes back."""
    way.claims = shared.claims
    way.claims.begin_anew()  # what stood in the way when it was entered may be gone
    try:
        row = shared.close()
        if shared.mate.disabled:
            yield _finished(shared, Finish((row,)), program.clock())
            trouble = None
        else:
            trouble = yield from _send(shared, way)
    except GeneratorExit:  # nobody asks for us any more: the run is abandoned, and found by that
        raise
    except BaseException:  # a second Ctrl-C, say: nobody may take the finish for being under way any longer
        yield GiveBack({*shared.claims.rows, shared.entry.row.id}, shared.claims.unsent)
        program.remove(shared)
        raise
    program.remove(shared)
    return trouble


def _send(shared: Shared, way: Way) -> Life[Trouble | None]:
    left = yield from _leave_journal(shared, way)
    if left is None:
        return (yield from _finish_without_journal(shared, way))
    if left.busy:
        return (yield from _stored(shared, "another program is still finishing the run of this process"))
    way.outage |= left.outage
    if not left.finishes:
        yield say("info", "run_left", process_key=shared.run.process_key, run_id=shared.run_id)
        return None
    try:
        delivery = yield from deliver(way, left.finishes)
    except Unavailable as error:
        yield GiveBack({*way.claims.rows, shared.entry.row.id}, way.claims.unsent)
        return (yield from _stored(shared, error))
    yield from _tell(shared, way, delivery)
    if left.owed and delivery.state != "owed":
        yield from settle(way, shared.entry.row)
    return delivery.trouble


def _leave_journal(shared: Shared, way: Way) -> Life[Left | None]:
    """Leave the run in the journal; None when it can't be written.

    What is on the disk is not sent without its claim on the disk, so a guard whose row is there waits for it.
    """
    entry = shared.entry
    while True:
        patience = way.left() if (yield Written(entry)) else None
        try:
            left: Left = yield from way.apply(lambda view: leave(view, entry.recorded(), way.claims), patience)
            if not left.busy:
                return left
            if not (yield from way.until_idle(entry.row)):
                yield from way.apply(lambda view: give_back(view, [entry.recorded()]), durable=True)
                return left
        except Unavailable:
            return None


def _finish_without_journal(shared: Shared, way: Way) -> Life[Trouble | None]:
    """Finish a run of which the file knows nothing; one that it knows is left to the next guard."""
    row, written = shared.entry.row, (yield Written(shared.entry))
    try:
        occupied = yield Read(way.mate.address, lambda view: others_in_run(view, row))
    except Unavailable:
        occupied = False
    if written or occupied:
        yield GiveBack({*way.claims.rows, row.id}, way.claims.unsent)
        on_disk = written is not None and Finish((written,)).kpis == Finish((row,)).kpis  # what came last may not be
        return (yield from _stored(shared, "the journal can't be written", on_disk=on_disk))
    finish = Finish((row,), known=row.finish != 0)
    try:
        if row.run_id is None:
            shared.name((yield from way.call("start_run", row.process_key)))
        if not finish.known:
            way.claims.unsent.add(row.id)
            shared.entry.change(finish=new_id())
        finish = Finish((shared.entry.row,), finish.known)
        if (yield Written(shared.entry)):  # just now, and maybe without that number
            return (yield from _finish_without_journal(shared, way))
        way.claims.unsent.discard(row.id)
        yield from way.call("finish_run", finish.run_id, finish.kpis)
    except (UnreachableError, ApiError) as error:
        if not (finish.known or error.maybe_sent):
            way.claims.unsent.add(row.id)
            if isinstance(error, ApiError) and means_not_open(error) and not (row.adopted or row.again):
                shared.entry.change(run_id=None, finish=0, again=True)  # as settling does: it gets a run of its own
                return (yield from _finish_without_journal(shared, way))
        yield GiveBack({row.id}, way.claims.unsent)
        yield say("error", "finish_lost", **finish.facts, operation=error.operation, error=str(error))
        return error
    yield Drop({row.id})
    yield from _tell(shared, way, Delivery(finish))
    return None


def _stored(shared: Shared, error: object, *, on_disk: bool = True) -> Life[Trouble]:
    facts = {**Finish((shared.entry.row,)).facts, "error": str(error)}
    yield say("warning", "finish_stored", **facts) if on_disk else say("error", "finish_lost", **facts)
    return UnreachableError("FinishRun", str(error))


def _tell(shared: Shared, way: Way, delivery: Delivery) -> Life[None]:
    finish = delivery.finish
    if finish.run_id is not None:
        set_run_id(shared.run, finish.run_id)
    if delivery.state == "acknowledged":
        yield _finished(shared, finish, way.clock())
    elif delivery.state == "left":
        yield say("info", "run_left", process_key=finish.process_key, run_id=finish.run_id)
    yield from report_failure(way, delivery)


def _finished(shared: Shared, finish: Finish, now: float) -> Say:
    duration = round(now - shared.started, 3)
    return say("info", "run_finished", **finish.facts, outcome=finish.outcome, duration_s=duration)

"""Starts, settles and finishes runs: client and journal together, and the last one out sends the finish.

Guards in one program that are open on the same process key (of one address and user) share a run. Programs on one
machine share it through the journal.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from typing import Literal

import attrs

from anymate_guard import _journal
from anymate_guard._client import AnymateClient
from anymate_guard._deadline import Deadline
from anymate_guard._fork import in_child
from anymate_guard._journal import Entered, Journal, Owed, Row, total
from anymate_guard._log import emit
from anymate_guard._run import Outcome, Run, close, set_run_id, totals
from anymate_guard.errors import AnymateGuardError, ApiError, AuthenticationError, NotOkToRun, UnreachableError

_POLL = 0.02  # seconds between two looks at the journal while another program finishes a run
_RECORD = 0.4  # seconds between two writes of the KPIs so far
_REFUSED_FOR_GOOD = {
    "StartRun": frozenset({400, 404, 405, 410, 422}),
    "FinishRun": frozenset({200, 400, 404, 405, 410, 422}),  # 200: succeeded is false
}


@attrs.frozen
class Options:
    """What one guard asks for; see `anymate_run`."""

    run_id: int | None = None
    check_ok_to_run: bool = False
    report_failure: bool = False
    credit_failed_runs: bool = True
    require_start: bool = False
    require_finish: bool = False


@attrs.define(eq=False)
class Shared:
    """A run that one or more guards of this program are in.

    Attributes:
        client: How to reach Anymate.
        run: What the guards hand out.
        row: Its row in the journal.
        state: "entering", "open", "leaving" or "over".
        guards: How many are in it.
        outcome: The worst one so far.
        zeros: Whether every guard that left wants zeros for what was not recorded.
        failure: The message of a guard that failed and wants it reported.
        recorded: What the journal knows: entries, nanoseconds, and whether zeros are wanted if the program dies.
        started: Monotonic time.
    """

    client: AnymateClient
    run: Run
    row: Row
    state: Literal["entering", "open", "leaving", "over"] = "entering"
    guards: int = 1
    outcome: Outcome = "succeeded"
    zeros: bool = True
    failure: str | None = None
    recorded: tuple[int | None, int | None, bool] | None = None
    started: float = attrs.field(factory=time.monotonic)


_turn = threading.Condition()  # guards the two below, and is notified when a run changes its state
_runs: dict[tuple[str, str, str], list[Shared]] = {}
_recorder: threading.Thread | None = None
_SEVERITY: list[Outcome] = ["succeeded", "interrupted", "failed"]


def enter(client: AnymateClient, process_key: str, options: Options) -> Shared:
    """Join the run that this program has open on the process key, or start one.

    Raises:
        ApiError: StartRun was refused.
        UnreachableError: Anymate was unreachable and the options require a run.
        NotOkToRun: Anymate was asked and said no.
    """
    deadline = Deadline.after(client.settings.deadline)
    shared, first = _join(client, process_key, options, deadline)
    if not first:
        emit("info", "anymate.run_joined", process_key=process_key, run_id=shared.run.run_id)
        return shared
    try:
        if options.run_id is not None:
            set_run_id(shared.run, options.run_id)
        if not client.settings.disabled:
            _start(shared, options, deadline)
    except BaseException as error:
        _abandon(shared, options, error)
        raise
    _become(shared, "open")
    emit("info", "anymate.run_started", process_key=process_key, run_id=shared.run.run_id)
    return shared


def leave(shared: Shared, outcome: Outcome, options: Options, failure: str) -> None:
    """Leave a run; the last guard out finishes it.

    Args:
        shared: What `enter` gave.
        outcome: How this guard's body ended.
        options: What this guard asks for.
        failure: What to report if the body failed and that is asked for.

    Raises:
        AnymateGuardError: The body succeeded, the finish could not be delivered, and the options require it.
    """
    with _turn:
        if shared.state != "open":  # the interpreter's exit finished it
            return
        shared.guards -= 1
        shared.outcome = max(shared.outcome, outcome, key=_SEVERITY.index)
        shared.zeros = shared.zeros and outcome != "succeeded" and not options.credit_failed_runs
        if outcome == "failed" and options.report_failure:
            shared.failure = failure
        last = shared.guards == 0
        if last:
            shared.state = "leaving"
    if not last:
        emit("info", "anymate.run_left", process_key=shared.row.process_key, run_id=shared.run.run_id)
        return
    trouble = _finish(shared)
    if trouble is not None and outcome == "succeeded" and options.require_finish:
        raise trouble


def settle(client: AnymateClient) -> bool:
    """Send what is owed to the client's address and user; False if that came to an end before all was sent."""
    deadline = Deadline.after(client.settings.deadline)
    journal = Journal.at(client.settings.state_dir)
    account = Row(client.settings.api_url, client.settings.username, "")
    while True:
        claimed = journal.claim(account, deadline)
        if not claimed.owed:
            return True
        if not _settle(client, claimed, deadline):
            return False


def _join(client: AnymateClient, process_key: str, options: Options, deadline: Deadline) -> tuple[Shared, bool]:
    """The open run of this program on the process key, or a new one to be started."""
    settings = client.settings
    key = (settings.api_url, settings.username, process_key)
    with _turn:
        while True:
            shared = _open_on(key, options.run_id)
            if shared is None or (shared.state != "open" and not _turn.wait(max(0.0, deadline.left()))):
                row = Row(*key, run_id=options.run_id, zeros=not options.credit_failed_runs)
                shared = Shared(client, Run(process_key), row)
                _runs.setdefault(key, []).append(shared)
                return shared, True
            if shared.state == "open":
                if options.require_start and shared.run.run_id is None and not settings.disabled:
                    raise UnreachableError("StartRun", "the run that this program has open was not started yet")
                shared.guards += 1
                shared.row.zeros = shared.row.zeros and not options.credit_failed_runs
                return shared, False


def _open_on(key: tuple[str, str, str], run_id: int | None) -> Shared | None:
    for shared in _runs.get(key, ()):
        if run_id is None or shared.row.run_id in {None, run_id}:
            return shared
    return None


def _become(shared: Shared, state: Literal["open", "leaving", "over"]) -> None:
    with _turn:
        shared.state = state
        if state == "over":
            settings = shared.client.settings
            key = (settings.api_url, settings.username, shared.row.process_key)
            _runs[key].remove(shared)
            if not _runs[key]:
                del _runs[key]
        _turn.notify_all()


def _start(shared: Shared, options: Options, deadline: Deadline) -> None:
    """Settle what is owed, then start the run, or leave that to the end."""
    client, row = shared.client, shared.row
    journal = Journal.at(client.settings.state_dir)
    _record_regularly()
    if options.run_id is not None:
        row.state = "open"
    entered = _enter_journal(client, journal, row, deadline)
    if options.check_ok_to_run:
        _check_ok_to_run(client, row.process_key, options, deadline)
    if options.run_id is not None:
        return
    trouble = _start_run(shared, journal, entered, deadline)
    if trouble is not None:
        if options.require_start:
            raise trouble
        emit("warning", "anymate.start_deferred", process_key=row.process_key, error=str(trouble))
    row.state = "open"
    journal.named(row, entered.carried, deadline)
    if row.run_id is not None and any(left.run_id not in {None, row.run_id} for left in entered.carried):
        _settle(client, journal.claim(row, deadline), deadline)  # StartRun did not resume the run they were in


def _enter_journal(client: AnymateClient, journal: Journal, row: Row, deadline: Deadline) -> Entered:
    """Put the row into the journal, after settling what is owed and after others have finished the process's run."""
    settling = deadline.within(client.settings.deadline / 2)
    settle = True
    while True:
        entered = journal.enter(row, deadline, settle=settle)
        if entered.owed:
            settle = _settle(client, entered, settling)
        elif not entered.busy or deadline.left() <= 0:
            return entered
        else:
            time.sleep(_POLL)


def _check_ok_to_run(client: AnymateClient, process_key: str, options: Options, deadline: Deadline) -> None:
    try:
        advice = client.ok_to_run(process_key, deadline=deadline)
    except (UnreachableError, ApiError) as error:
        if options.require_start:
            raise
        emit("warning", "anymate.start_unchecked", process_key=process_key, operation="OkToRun", error=str(error))
        return
    if not advice.ok_to_run:
        raise NotOkToRun(
            process_key,
            gate_open=advice.gate_open,
            tasks_available=advice.tasks_available,
            not_blocked_date=advice.not_blocked_date,
        )


def _start_run(shared: Shared, journal: Journal, entered: Entered, deadline: Deadline) -> UnreachableError | None:
    """StartRun, for this guard; what stood in the way comes back."""
    client, row = shared.client, shared.row
    if entered.busy:
        return UnreachableError("StartRun", "another program is still finishing the run of this process")
    try:
        row.run_id = client.start_run(row.process_key, deadline=_patient(client, deadline, entered.outage))
    except UnreachableError as error:
        journal.unreachable(row.address, deadline)
        return error
    set_run_id(shared.run, row.run_id)
    if entered.outage:
        journal.reachable(row.address, deadline)
    return None


def _patient(client: AnymateClient, deadline: Deadline, outage: bool) -> Deadline:
    """One try where the address was unreachable a moment ago, so that an outage costs a short job seconds."""
    return deadline.within(client.settings.timeout, retry=False) if outage else deadline


def _abandon(shared: Shared, options: Options, error: BaseException) -> None:
    """Take back a run whose body will not begin: finished with zeros, as no work was done, if it was started here."""
    client, row = shared.client, shared.row
    if options.run_id is None and row.run_id is not None:
        shared.outcome, shared.zeros = "interrupted", True
        _become(shared, "leaving")
        _finish(shared)
        return
    close(shared.run, "interrupted")
    try:
        if not client.settings.disabled:
            deadline = Deadline.after(client.settings.deadline)
            journal = Journal.at(client.settings.state_dir)
            journal.forget([row], deadline)
            if isinstance(error, Exception):  # others may have left their finish to us; a later guard would send it too
                _settle(client, journal.claim(row, deadline), deadline)
    finally:
        _become(shared, "over")


def _finish(shared: Shared) -> AnymateGuardError | None:
    """Finish a run that its last guard has left; what stood in the way comes back."""
    deadline = Deadline.after(shared.client.settings.deadline)
    try:
        row = shared.row
        row.entries, row.nanoseconds = close(shared.run, shared.outcome)
        row.zeros = shared.zeros
        if shared.client.settings.disabled:
            _log_finished(shared, total([row]))
            return None
        trouble = _send_finish(shared, deadline)
        if shared.failure is not None:
            _report_failure(shared, shared.failure, deadline)
        return trouble
    finally:
        _become(shared, "over")


def _send_finish(shared: Shared, deadline: Deadline) -> AnymateGuardError | None:
    client, row = shared.client, shared.row
    journal = Journal.at(client.settings.state_dir)
    owed = journal.leave(row, deadline) if row.run_id is not None else _late_start(journal, row, deadline)
    if owed is not None:
        delivery = _deliver(client, journal, owed, deadline)
        if row.run_id is not None:
            set_run_id(shared.run, row.run_id)
        if delivery.owed is not None:
            if delivery.settled:
                journal.forget(delivery.owed.rows, deadline)
            if delivery.trouble is None:
                _log_finished(shared, delivery.owed)
            return delivery.trouble
    emit("info", "anymate.run_left", process_key=row.process_key, run_id=row.run_id)
    return None


def _late_start(journal: Journal, row: Row, deadline: Deadline) -> Owed:
    """Claim the start and finish of a run that has no id yet, when no other program is finishing this process's run."""
    while (owed := journal.late_start(row, deadline)) is None:
        if deadline.left() <= 0:
            return total([row])
        time.sleep(_POLL)
    return owed


@attrs.frozen
class _Delivery:
    """How a delivery went: `owed` is None when it was left to somebody else in the run."""

    owed: Owed | None
    settled: bool = True
    trouble: AnymateGuardError | None = None


def _deliver(client: AnymateClient, journal: Journal, owed: Owed, deadline: Deadline) -> _Delivery:
    """Send a claimed finish, after a StartRun if the run has no id; what can't be delivered goes back to the journal."""
    deadline = _patient(client, deadline, owed.outage)
    trouble: UnreachableError | ApiError
    sent = owed.sent
    try:
        if owed.run_id is None:
            row = owed.rows[0]
            row.run_id = client.start_run(owed.process_key, deadline=deadline)
            named = journal.leave(row, deadline)
            if named is None:
                return _Delivery(None)
            owed = named
        client.finish_run(owed.run_id, owed.kpis, sent_before=owed.sent, deadline=deadline)
    except UnreachableError as error:
        trouble = error
        sent = sent or (error.maybe_sent and owed.run_id is not None)
        journal.unreachable(owed.rows[0].address, deadline)
    except ApiError as error:
        trouble = error
    except BaseException:  # a second Ctrl-C, say: nobody may take the finish for being under way any longer
        journal.store(owed, deadline, sent=True)
        raise
    else:
        if owed.outage:
            journal.reachable(owed.rows[0].address, deadline)
        return _Delivery(owed)
    return _put_off(journal, owed, deadline, trouble, sent=sent)


def _put_off(
    journal: Journal, owed: Owed, deadline: Deadline, trouble: UnreachableError | ApiError, *, sent: bool
) -> _Delivery:
    """Keep a finish that could not be delivered, unless it was refused for good."""
    facts = {
        "process_key": owed.process_key,
        "run_id": owed.run_id,
        "operation": trouble.operation,
        "status": trouble.status if isinstance(trouble, ApiError) else None,
        "error": str(trouble),
        "entries": owed.kpis.entries,
        "seconds_saved": owed.kpis.seconds_saved,
    }
    if _refused_for_good(trouble):
        emit("error", "anymate.finish_refused", **facts)
        return _Delivery(owed, settled=True, trouble=trouble)
    if journal.store(owed, deadline, sent=sent):
        emit("warning", "anymate.finish_stored", **facts)
    else:
        emit("error", "anymate.finish_lost", **facts)
    return _Delivery(owed, settled=False, trouble=trouble)


def _refused_for_good(trouble: UnreachableError | ApiError) -> bool:
    """Whether trying again later makes no sense; a password or an address can be put right."""
    if isinstance(trouble, UnreachableError | AuthenticationError):
        return False
    return trouble.status in _REFUSED_FOR_GOOD.get(trouble.operation, ())


def _settle(client: AnymateClient, claimed: Entered, deadline: Deadline) -> bool:
    """Deliver what was claimed; False when one could not be, or the time is over."""
    journal = Journal.at(client.settings.state_dir)
    waiting = list(claimed.owed)
    settled: list[Row] = []
    try:
        while waiting and deadline.left() > 0:
            delivery = _deliver(client, journal, waiting.pop(0), deadline)
            if delivery.owed is None:
                continue
            if not delivery.settled:
                return False
            settled += delivery.owed.rows
            if delivery.trouble is None:
                _log_delivered(delivery.owed)
        return not waiting
    finally:
        for owed in waiting:
            journal.store(owed, deadline, sent=owed.sent)
        if settled:
            journal.forget(settled, deadline)


def _log_delivered(owed: Owed) -> None:
    emit(
        "info",
        "anymate.finish_delivered",
        process_key=owed.process_key,
        run_id=owed.run_id,
        entries=owed.kpis.entries,
        seconds_saved=owed.kpis.seconds_saved,
    )


def _log_finished(shared: Shared, owed: Owed) -> None:
    emit(
        "info",
        "anymate.run_finished",
        process_key=owed.process_key,
        run_id=owed.run_id,
        outcome=shared.outcome,
        duration_s=round(time.monotonic() - shared.started, 3),
        entries=owed.kpis.entries,
        seconds_saved=owed.kpis.seconds_saved,
    )


def _report_failure(shared: Shared, message: str, deadline: Deadline) -> None:
    process_key, run_id = shared.row.process_key, shared.row.run_id
    try:
        shared.client.failure(process_key, message, deadline=deadline)
    except (UnreachableError, ApiError) as error:
        emit("warning", "anymate.failure_unreported", process_key=process_key, run_id=run_id, error=str(error))
    else:
        emit("info", "anymate.failure_reported", process_key=process_key, run_id=run_id)


def _record_regularly() -> None:
    """See that the KPIs of open runs are in the journal at most a second after they were recorded."""
    global _recorder
    with _turn:
        if _recorder is None:
            thread = threading.Thread(target=_record, name="anymate_guard", daemon=True)
            with contextlib.suppress(RuntimeError):  # no new thread at the interpreter's exit
                thread.start()
                _recorder = thread


def _record() -> None:
    global _recorder
    while True:
        time.sleep(_RECORD)
        with _turn:
            if not _runs:
                _recorder = None
                return
        for shared in _in_state("open"):
            if not shared.client.settings.disabled:
                _record_one(shared)


def _record_one(shared: Shared) -> None:
    entries, nanoseconds = totals(shared.run)
    now = (entries, nanoseconds, shared.row.zeros)
    if now != shared.recorded:
        row = attrs.evolve(shared.row, entries=entries, nanoseconds=nanoseconds)
        Journal.at(shared.client.settings.state_dir).record(row, Deadline.after(1))
        shared.recorded = now


def _in_state(state: str) -> list[Shared]:
    with _turn:
        return [shared for runs in _runs.values() for shared in runs if shared.state == state]


def finish_all() -> None:
    """At the interpreter's exit: finish what is open still, as in a daemon thread, and wait for what is being finished."""
    left = _in_state("open")
    for shared in left:
        with _turn:
            shared.state = "leaving"
        shared.outcome = max(shared.outcome, "interrupted", key=_SEVERITY.index)
        shared.zeros = shared.zeros and shared.row.zeros
        _finish(shared)
    with _turn:
        longest = max((shared.client.settings.deadline for shared in _in_state("leaving")), default=0)
        _turn.wait_for(lambda: not _in_state("leaving"), longest)
    _journal.close_all()


def _after_fork() -> None:
    global _turn, _runs, _recorder
    _turn, _runs, _recorder = threading.Condition(), {}, None


atexit.register(finish_all)
in_child(_after_fork)

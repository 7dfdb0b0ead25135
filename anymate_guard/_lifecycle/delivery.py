"""Starts and finishes runs: client and journal together, and the last one out sends the finish.

Guards in one program that are open on the same process key (of one address and user) share a run. Programs on one
machine share it through the journal.
"""

from __future__ import annotations

import atexit
import time

import attrs

from anymate_guard._api.client import AnymateClient
from anymate_guard._deadline import Deadline
from anymate_guard._journal import journal
from anymate_guard._journal.rules import Entered, Owed, Row, total
from anymate_guard._lifecycle import recorder, sharing
from anymate_guard._lifecycle.options import Options
from anymate_guard._lifecycle.settling import Line, deliver, deliver_all, settle
from anymate_guard._lifecycle.sharing import Place, Shared
from anymate_guard._log import emit
from anymate_guard._run import Outcome, Run, close, set_run_id
from anymate_guard.errors import AnymateGuardError, ApiError, NotOkToRun, UnreachableError

__all__ = ["Stay", "finish_all", "settle"]

_POLL = 0.02  # seconds between two looks at the journal while another program finishes a run


class Stay:
    """One guard's stay in a run: on the process key's open one if this program has one, else in a new one.

    Args:
        client: How to reach Anymate.
        process_key: Which process.
        options: What the guard asks for.
    """

    def __init__(self, client: AnymateClient, process_key: str, options: Options) -> None:
        self._client = client
        self._process_key = process_key
        self._options = options
        self._place = Place()

    def enter(self) -> Run:
        """Join the run that this program has open on the process key, or start one.

        Raises:
            ApiError: StartRun was refused.
            UnreachableError: Anymate was unreachable and the options require a run.
            NotOkToRun: Anymate was asked and said no.
        """
        options, settings = self._options, self._client.settings
        line = Line(self._client, Deadline.after(settings.deadline), check=self._place.check)
        row = Row(
            settings.api_url,
            settings.username,
            self._process_key,
            run_id=options.run_id,
            state="starting" if options.run_id is None else "open",
            zeros=not options.credit_failed_runs,
        )
        fresh = Shared(self._client, Run(self._process_key, options.run_id), row)
        with fresh.transit:
            try:
                shared = sharing.join(fresh, self._place, options, line.deadline)
                if shared is not fresh:
                    emit("info", "anymate.run_joined", process_key=self._process_key, run_id=shared.run.run_id)
                    return shared.run
                if not settings.disabled:
                    _start(fresh, options, line)
                sharing.opened(fresh, self._place)
            except BaseException as error:
                if self._place.shared is None:
                    _abandon(fresh, options, error, line)
                raise
        emit("info", "anymate.run_started", process_key=self._process_key, run_id=fresh.run.run_id)
        return fresh.run

    def give_up(self) -> None:
        """End entering, in another thread, as soon as that can be."""
        self._place.given_up = True

    def leave(self, outcome: Outcome, failure: str = "") -> None:
        """Leave the run, if that was not done yet; the last guard out finishes it.

        Args:
            outcome: How the guard's body ended.
            failure: What to report if the body failed and that is asked for.

        Raises:
            AnymateGuardError: The body succeeded, the finish could not be delivered, and the options require it.
        """
        shared, last = sharing.depart(self._place, outcome, self._options, failure)
        if shared is None:
            return
        if last:
            with shared.transit:
                if sharing.take_over(shared):
                    trouble = _finish(shared)
                    if trouble is not None and outcome == "succeeded" and self._options.require_finish:
                        raise trouble
                    return
        emit("info", "anymate.run_left", process_key=self._process_key, run_id=shared.run.run_id)

    def step_back(self) -> None:
        """Leave the run, if it was entered, as the body will not begin: no work was done, so no credit is due."""
        self._options = attrs.evolve(self._options, credit_failed_runs=False)
        self.leave("interrupted")


def _start(shared: Shared, options: Options, line: Line) -> None:
    """Settle what is owed, then start the run, or leave that to the end."""
    row, journal = shared.row, shared.journal
    recorder.begin()
    entered = _enter_journal(shared, line)
    if options.check_ok_to_run:
        _check_ok_to_run(line, row.process_key, options)
    if options.run_id is not None:
        return
    trouble = _start_run(shared, entered, line)
    if trouble is not None:
        if options.require_start:
            raise trouble
        emit("warning", "anymate.start_deferred", process_key=row.process_key, error=str(trouble))
    journal.named(row, entered.carried, line.deadline)
    if row.run_id is not None and any(left.run_id not in {None, row.run_id} for left in entered.carried):
        _settle_others(shared, line)  # StartRun did not resume the run they were in


def _enter_journal(shared: Shared, line: Line) -> Entered:
    """Put the row into the journal, after settling what is owed and after others have finished the process's run."""
    journal, claims = shared.journal, shared.claims
    settling = line.deadline.within(line.client.settings.deadline / 2)
    settle = True
    while True:
        entered = journal.enter(shared.row, claims, line.deadline, settle=settle)
        line.outage |= entered.outage
        if entered.owed:
            settle = deliver_all(line, journal, entered.owed, claims, settling) != "stopped"
        elif not entered.busy or line.deadline.left() <= 0:
            return entered
        else:
            time.sleep(_POLL)


def _settle_others(shared: Shared, line: Line) -> None:
    claimed = shared.journal.claim(shared.row.account, shared.claims, line.deadline)
    deliver_all(line, shared.journal, claimed.owed, shared.claims, line.deadline)


def _check_ok_to_run(line: Line, process_key: str, options: Options) -> None:
    try:
        advice = line.call(lambda deadline: line.client.ok_to_run(process_key, deadline=deadline))
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


def _start_run(shared: Shared, entered: Entered, line: Line) -> UnreachableError | None:
    """StartRun, for this guard; what stood in the way comes back."""
    row = shared.row
    if entered.busy:
        return UnreachableError("StartRun", "another program is still finishing the run of this process")
    before = line.outage
    try:
        row.run_id = line.call(lambda deadline: line.client.start_run(row.process_key, deadline=deadline))
    except UnreachableError as error:
        shared.journal.unreachable(row.address, line.deadline)
        return error
    set_run_id(shared.run, row.run_id)
    if before:
        shared.journal.reachable(row.address, line.deadline)
    return None


def _abandon(shared: Shared, options: Options, error: BaseException, line: Line) -> None:
    """Take back a run whose body will not begin: finished with zeros, as no work was done, if it was started here."""
    if shared not in sharing.all_runs("entering"):
        return
    shared.outcome, shared.zeros = "interrupted", True
    if options.run_id is None and shared.row.run_id is not None:
        shared.state = "leaving"
        _finish(shared)
        return
    recorder.put_back(shared, line.deadline)
    if isinstance(error, (ApiError, NotOkToRun)):  # others may have left their finish to us
        _settle_others(shared, line)


def _finish(shared: Shared, deadline: Deadline | None = None) -> AnymateGuardError | None:
    """Finish a run that its last guard has left; what stood in the way comes back."""
    line = Line(shared.client, deadline or Deadline.after(shared.client.settings.deadline))
    try:
        row = shared.row
        row.entries, row.nanoseconds = close(shared.run, shared.outcome)
        row.zeros = shared.zeros
        trouble = None
        if shared.client.settings.disabled:
            _log_finished(shared, total([row]))
        else:
            trouble = _send_finish(shared, line)
            shared.state = "over"
            if shared.failure is not None and not isinstance(trouble, UnreachableError):
                _report_failure(shared, shared.failure, line)
    except BaseException:  # a second Ctrl-C, say: nobody may take the finish for being under way any longer
        recorder.put_back(shared, line.deadline)
        raise
    sharing.remove(shared)
    return trouble


def _send_finish(shared: Shared, line: Line) -> UnreachableError | ApiError | None:
    row, journal, claims = shared.row, shared.journal, shared.claims
    owed = _late_start(shared, line) if row.run_id is None else journal.leave(row, claims, line.deadline)
    if owed is not None:
        line.outage |= owed.outage
        before = line.outage
        delivery = deliver(line, journal, owed, claims, line.deadline)
        if row.run_id is not None:
            set_run_id(shared.run, row.run_id)
        if delivery.owed is not None:
            if delivery.over:
                journal.forget(delivery.owed.rows, line.deadline, reachable=before)
                claims.drop(delivery.owed.rows)
            if delivery.trouble is None:
                _log_finished(shared, delivery.owed)
            return delivery.trouble
    emit("info", "anymate.run_left", process_key=row.process_key, run_id=row.run_id)
    return None


def _late_start(shared: Shared, line: Line) -> Owed:
    """Claim the start and finish of a run that has no id yet, when nobody else is finishing this process's run."""
    while (owed := shared.journal.start_late(shared.row, shared.claims, line.deadline)) is None:
        if line.deadline.left() <= 0:
            return total([shared.row])
        time.sleep(_POLL)
    return owed


def _log_finished(shared: Shared, owed: Owed) -> None:
    duration = round(time.monotonic() - shared.started, 3)
    emit("info", "anymate.run_finished", **owed.facts, outcome=shared.outcome, duration_s=duration)


def _report_failure(shared: Shared, message: str, line: Line) -> None:
    process_key, run_id = shared.row.process_key, shared.row.run_id
    try:
        line.call(lambda deadline: shared.client.failure(process_key, message, deadline=deadline))
    except (UnreachableError, ApiError) as error:
        emit("warning", "anymate.failure_unreported", process_key=process_key, run_id=run_id, error=str(error))
    else:
        emit("info", "anymate.failure_reported", process_key=process_key, run_id=run_id)


def finish_all() -> None:
    """At the interpreter's exit: finish what is open still, in a daemon thread say, and what is being finished."""
    left = sharing.all_runs("open", "leaving", "over")
    deadline = Deadline.after(max((shared.client.settings.deadline for shared in left), default=0))
    for shared in left:
        with shared.transit:  # whoever is finishing it gets to the end
            if sharing.take_over(shared, by_force=True):
                shared.outcome = max(shared.outcome, "interrupted", key=sharing.SEVERITY.index)
                shared.zeros = shared.zeros and shared.row.zeros
                _finish(shared, deadline)
            elif shared in sharing.all_runs("leaving", "over"):
                recorder.put_back(shared, deadline)
    journal.close_all()


atexit.register(finish_all)

"""Sends what is owed, one finish at a time, and gives back what can't be delivered now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import attrs

from anymate_guard._api.client import AnymateClient, means_not_open
from anymate_guard._deadline import Deadline
from anymate_guard._journal.journal import Journal
from anymate_guard._journal.rules import Claims, Owed, Row
from anymate_guard._log import emit
from anymate_guard.errors import ApiError, AuthenticationError, UnreachableError

T = TypeVar("T")

_REFUSED_FOR_GOOD = {
    "StartRun": frozenset({400, 404, 405, 410, 422}),
    "FinishRun": frozenset({200, 400, 404, 405, 410, 422}),  # 200: succeeded is false
}


@attrs.define
class Line:
    """The way to Anymate while a guard is entered or left: one try in all where it was unreachable a moment ago.

    Attributes:
        client: Makes the calls.
        deadline: When to give up.
        outage: Whether Anymate was unreachable less than a minute ago.
        spent: What the one try during an outage came to.
        answered: Whether there was an answer.
        check: Called before each call; it may raise.
    """

    client: AnymateClient
    deadline: Deadline
    outage: bool = False
    spent: UnreachableError | None = None
    answered: bool = False
    check: Callable[[], None] = lambda: None

    def call(self, ask: Callable[[Deadline], T], until: Deadline | None = None) -> T:
        """Call within the deadline, or an earlier one."""
        self.check()
        deadline = until or self.deadline
        if self.spent is not None:
            raise UnreachableError(self.spent.operation, self.spent.reason)
        if self.outage:
            deadline = deadline.within(self.client.settings.timeout, retry=False)
        try:
            answer = ask(deadline)
        except UnreachableError as error:
            if self.outage:
                self.spent = error
            self.outage = True
            raise
        except ApiError:
            self.answered = True
            raise
        self.answered = True
        return answer


@attrs.frozen
class Delivery:
    """How a delivery went.

    Attributes:
        owed: What was sent, or not; None when it was left to somebody else in the run.
        over: Whether its rows can be deleted.
        trouble: What stood in the way.
    """

    owed: Owed | None
    over: bool = True
    trouble: UnreachableError | ApiError | None = None


def settle(client: AnymateClient) -> bool:
    """Send what is owed to the client's address and user; False if something is owed still."""
    line = Line(client, Deadline.after(client.settings.deadline))
    journal, claims = Journal.at(client.settings.state_dir), Claims()
    account = client.settings.api_url, client.settings.username
    delivered = True
    while True:
        claimed = journal.claim(account, claims, line.deadline)
        line.outage |= claimed.outage
        if not claimed.owed:
            return delivered
        done = deliver_all(line, journal, claimed.owed, claims, line.deadline)
        if done == "stopped":
            return False
        delivered &= done == "all"


def deliver_all(
    line: Line, journal: Journal, owed: tuple[Owed, ...], claims: Claims, until: Deadline
) -> Literal["all", "some", "stopped"]:
    """Deliver what was claimed, until there is no point in going on; what was not delivered is owed still."""
    waiting = list(owed)
    settled: list[Row] = []
    delivered = True
    try:
        while waiting and until.left() > 0:
            delivery = deliver(line, journal, waiting.pop(0), claims, until)
            if delivery.over and delivery.owed is not None:
                settled += delivery.owed.rows
                if delivery.trouble is None:
                    emit("info", "anymate.finish_delivered", **delivery.owed.facts)
            delivered &= delivery.over
            if not delivery.over and isinstance(delivery.trouble, (UnreachableError, AuthenticationError)):
                return "stopped"
        if waiting:
            return "stopped"
        return "all" if delivered else "some"
    finally:
        if waiting:
            journal.give_back(waiting, claims, line.deadline)
        if settled:
            journal.forget(settled, line.deadline, reachable=line.outage and line.answered)
            claims.drop(settled)
        journal.put_back(claims, line.deadline)


def deliver(line: Line, journal: Journal, owed: Owed, claims: Claims, until: Deadline) -> Delivery:
    """Send a claimed finish, after a StartRun if the run has no id; what can't be delivered goes to the journal."""
    trouble: UnreachableError | ApiError
    try:
        run_id = owed.run_id
        if run_id is None:
            run_id = line.call(lambda deadline: line.client.start_run(owed.process_key, deadline=deadline), until)
            named = _name(journal, owed, run_id, claims, line.deadline)
            if named is None:
                return Delivery(None)
            owed = named
        _finish(line, run_id, owed, until)
    except UnreachableError as error:
        trouble = error
    except ApiError as error:
        trouble = error
    else:
        return Delivery(owed)
    return _put_off(line, journal, owed, claims, trouble)


def _name(journal: Journal, owed: Owed, run_id: int, claims: Claims, deadline: Deadline) -> Owed | None:
    """Note the run that StartRun gave; what is to be sent for it, or None when others are in it."""
    row = owed.rows[0]
    row.run_id = run_id
    named = journal.leave(row, claims, deadline)
    if named is None:
        claims.drop([row])
        return None
    return attrs.evolve(named, written=named.written or owed.written)


def _finish(line: Line, run_id: int, owed: Owed, until: Deadline) -> None:
    try:
        line.call(lambda deadline: line.client.finish_run(run_id, owed.kpis, deadline=deadline), until)
    except ApiError as error:
        if not (owed.sent and means_not_open(error)):  # what was sent before may have finished it
            raise


def _put_off(
    line: Line, journal: Journal, owed: Owed, claims: Claims, trouble: UnreachableError | ApiError
) -> Delivery:
    """Keep a finish that could not be delivered, unless it was refused for good."""
    status = trouble.status if isinstance(trouble, ApiError) else None
    facts = {**owed.facts, "operation": trouble.operation, "status": status, "error": str(trouble)}
    if _refused_for_good(trouble):
        emit("error", "anymate.finish_refused", **facts)
        return Delivery(owed, trouble=trouble)
    sent = owed.sent or (owed.run_id is not None and trouble.maybe_sent)
    unreachable = isinstance(trouble, UnreachableError)
    if journal.store(owed, claims, line.deadline, sent=sent, unreachable=unreachable):
        emit("warning", "anymate.finish_stored", **facts)
    else:
        emit("error", "anymate.finish_lost", **facts)
    return Delivery(owed, over=False, trouble=trouble)


def _refused_for_good(trouble: UnreachableError | ApiError) -> bool:
    """Whether trying again later makes no sense; a password or an address can be put right."""
    if isinstance(trouble, (UnreachableError, AuthenticationError)):
        return False
    return trouble.status in _REFUSED_FOR_GOOD.get(trouble.operation, ())

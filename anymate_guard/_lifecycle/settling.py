"""Sends finishes: a guard's own one, and what is owed; and gives back what can't be delivered now."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import isinf
from typing import Any, Literal, NamedTuple

from anymate_guard._api.answers import FOR_GOOD
from anymate_guard._api.client import means_not_open
from anymate_guard._journal import rules
from anymate_guard._journal.owed import Finishes, Standing, claim, numbers_of
from anymate_guard._journal.rows import Finish, Row, Unavailable
from anymate_guard._journal.view import View
from anymate_guard._lifecycle.asks import GiveBack, Life, Say, Settled, say
from anymate_guard._lifecycle.calling import Way
from anymate_guard.errors import ApiError, AuthenticationError, UnreachableError

_SETTLING = 2.0  # seconds that a guard gives to what others are owed, at most
_GIVING_BACK = 0.05  # of these, for what it has claimed and did not get to
_REFUSED = frozenset(product(("StartRun", "FinishRun"), FOR_GOOD))

_UNCERTAIN = "the run is closed: it may have been finished before the machine was started, or by another program"

Trouble = UnreachableError | ApiError


class Delivery(NamedTuple):
    """How a delivery went.

    Attributes:
        finish: What was sent, or not.
        state: "acknowledged"; "uncertain", which counts as that; "taken" by a program that believed this one dead;
            "left" to others in the run; "owed" still; "refused" for good.
        trouble: What stood in the way.
    """

    finish: Finish
    state: Literal["acknowledged", "uncertain", "taken", "left", "owed", "refused"] = "acknowledged"
    trouble: Trouble | None = None


def settle(way: Way, row: Row, standing: Standing = "outside", *, seconds: float = _SETTLING) -> Life[bool]:
    """Send what is owed to the account of a row, for two seconds; False if something could not be delivered."""
    try:
        owed = yield from way.apply(lambda view: claim(view, row, way.claims, standing))
    except Unavailable:
        return False
    return (yield from settle_claimed(way, row, owed, standing, seconds=seconds))


def settle_claimed(
    way: Way, row: Row, owed: Sequence[Finishes], standing: Standing, *, seconds: float = _SETTLING
) -> Life[bool]:
    """Send finishes that were claimed, and go on claiming, as long as there is a point in it."""
    until = way.clock() + seconds - _GIVING_BACK
    all_well = True
    try:
        while owed or (way.claims.more and isinf(seconds)):  # else as a guard, which reads little
            for place, finishes in enumerate(owed):
                delivery = None
                if way.clock() < until:
                    delivery = yield from deliver(way, finishes, until)
                    yield from _tell(way, delivery)
                    all_well &= delivery.state not in {"owed", "refused"}
                if delivery is None or isinstance(delivery.trouble, UnreachableError | AuthenticationError):
                    rest = owed[place if delivery is None else place + 1 :]
                    # Not waiting for the disk: after a power cut they are owed, or claimed by a dead program.
                    yield from _give_back(way, [finish for others in rest for finish in others], durable=False)
                    return False
            owed = yield from way.apply(lambda view: claim(view, row, way.claims, standing))
    except Unavailable:
        yield GiveBack(way.claims.rows, way.claims.unsent)
        return False
    return all_well


def deliver(way: Way, finishes: Sequence[Finish], until: float | None = None) -> Life[Delivery]:
    """Send claimed finishes of one run in their order; what became of the last row of all.

    Args:
        way: The way to Anymate.
        finishes: What to send.
        until: When to stop sending what others are owed; after each of those the journal is written anyway.

    Raises:
        Unavailable: The journal can't be written, so nothing may be sent.
    """
    closed, delivery = False, Delivery(finishes[-1], "left")
    for place, finish in enumerate(finishes):
        if closed and not finish.known:  # by the finish before this one, so that there is no point in asking
            error = ApiError("FinishRun", 200, "the run was finished already", said_no=True)
            delivery = yield from _start_over(way, finish, error, until)
        else:
            delivery = yield from _deliver_one(way, finish, until)
        rest = finishes[place + 1 :]
        if rest and delivery.state == "owed":
            yield from _give_back(way, rest, delivery.trouble)
            return Delivery(rest[-1], "owed", delivery.trouble)
        if rest:
            yield from _tell(way, delivery)
        closed |= delivery.state in {"acknowledged", "uncertain"}
    return delivery


def _deliver_one(way: Way, finish: Finish, until: float | None) -> Life[Delivery]:
    """Send a finish, after a StartRun if the run has no id; what can't be delivered goes back to the journal."""
    try:
        if finish.run_id is None:
            run_id = yield from way.call("start_run", finish.process_key, until=until)
            named = yield from way.apply(lambda view: rules.name(view, finish, run_id, way.claims), durable=True)
            return (yield from deliver(way, named, until)) if named else Delivery(finish, "left")
        if not finish.rows[0].finish:
            begun = yield from way.apply(lambda view: rules.begin(view, finish))
            if begun is None:
                return Delivery(finish, "left")
            finish = begun
        way.claims.unsent -= finish.numbers
        yield from way.call("finish_run", finish.run_id, finish.kpis, until=until)
    except (UnreachableError, ApiError) as error:
        if not (finish.known or error.maybe_sent):
            way.claims.unsent |= finish.numbers
        return (yield from _not_delivered(way, finish, error, until))
    return (yield from _acknowledge(way, finish, "delivered", until))


def _not_delivered(way: Way, finish: Finish, trouble: Trouble, until: float | None) -> Life[Delivery]:
    if isinstance(trouble, ApiError) and means_not_open(trouble):
        return (yield from _not_open(way, finish, trouble, until))
    if isinstance(trouble, ApiError) and not trouble.foreign and (trouble.operation, trouble.status) in _REFUSED:
        return (yield from _refuse(way, finish, trouble))
    return (yield from _put_off(way, finish, trouble))


def _not_open(way: Way, finish: Finish, error: ApiError, until: float | None) -> Life[Delivery]:
    """Find out what "not open" means: it is no answer to what was never sent."""
    if way.claims.unsent.isdisjoint(finish.numbers):
        return (yield from _acknowledge(way, finish, "by an earlier try", until))
    return (yield from _start_over(way, finish, error, until))


def _start_over(way: Way, finish: Finish, error: ApiError, until: float | None) -> Life[Delivery]:
    """Give what was never sent a run of its own, as its run is closed; what became of the last row."""
    closed: rules.Closed | None
    closed = yield from _write(way, [finish], lambda view: rules.not_open(view, finish, way.claims))
    if closed is None:
        return Delivery(finish, "owed", error)
    if closed.old:
        yield from _acknowledge(way, Finish(closed.old), "before the machine was started", until)
    if uncertain := closed.old + closed.taken:
        yield say("warning", "finish_uncertain", **Finish(uncertain).facts, error=_UNCERTAIN)
    if closed.refused:
        yield say("error", "finish_refused", **_facts(Finish(closed.refused), error), status=error.status)
    last, decided = finish.rows[-1].id, Delivery(finish, "left")
    for delivery in _deliveries(closed, error):
        if last in delivery.finish.numbers:
            decided = delivery
        else:
            yield from _tell(way, delivery)
    if closed.again is None:
        return decided
    delivery = yield from _deliver_one(way, closed.again, until)
    if last in closed.again.numbers:
        return delivery
    yield from _tell(way, delivery)
    return decided


def _deliveries(closed: rules.Closed, error: ApiError) -> Iterator[Delivery]:
    """What has become of the rows that get no run of their own now."""
    if closed.old:
        yield Delivery(Finish(closed.old), "uncertain")
    if closed.taken:
        yield Delivery(Finish(closed.taken), "taken")
    if closed.left:
        yield Delivery(Finish(closed.left), "left")
    if closed.refused:
        yield Delivery(Finish(closed.refused), "refused", error)


def _acknowledge(way: Way, finish: Finish, how: str, until: float | None) -> Life[Delivery]:
    yield Settled(finish, how)
    # A failure is reported next; a program that is killed meanwhile must not leave that to others, too.
    if until is None or finish.failure is not None:
        with contextlib.suppress(Unavailable):  # else a look does so later
            yield from way.apply(lambda _: None)
    way.claims.rows -= finish.numbers
    return Delivery(finish)


def _put_off(way: Way, finish: Finish, trouble: Trouble) -> Life[Delivery]:
    yield from _keep(way, [finish], str(trouble), reachable=isinstance(trouble, ApiError), durable=True)
    status = trouble.status if isinstance(trouble, ApiError) else None
    yield say("warning", "finish_stored", **_facts(finish, trouble), status=status)
    return Delivery(finish, "owed", trouble)


def _refuse(way: Way, finish: Finish, error: ApiError) -> Life[Delivery]:
    yield from _write(way, [finish], lambda view: rules.refuse(view, finish, str(error)))
    way.claims.rows -= finish.numbers
    yield say("error", "finish_refused", **_facts(finish, error), status=error.status)
    return Delivery(finish, "refused", error)


def _give_back(
    way: Way, finishes: Sequence[Finish], trouble: Trouble | None = None, *, durable: bool = True
) -> Life[None]:
    """Give back finishes that were not tried."""
    reason = str(trouble or "there was no time for it")
    yield from _keep(way, finishes, reason, reachable=not way.outage, durable=durable)


def _keep(way: Way, finishes: Sequence[Finish], reason: str, *, reachable: bool, durable: bool) -> Life[None]:
    if not finishes:
        return

    def rule(view: View) -> set[int]:
        for finish in finishes:
            rules.put_off(view, finish, reason, way.claims, reachable=reachable)
        return set(view.puts)

    kept = yield from _write(way, finishes, rule, durable=durable)  # but for what another program has taken or settled
    way.claims.rows -= numbers_of(finishes) if kept is None else kept


def _write(way: Way, finishes: Sequence[Finish], rule: Callable[[View], Any], *, durable: bool = False) -> Life[Any]:
    """Write what became of claimed finishes; where that can't be done, they are given back, and None comes back."""
    try:
        return (yield from way.apply(rule, durable=durable))
    except Unavailable:  # the file holds the claim, and so do we
        yield GiveBack(numbers_of(finishes), way.claims.unsent)
        return None


def report_failure(way: Way, delivery: Delivery) -> Life[None]:
    """Report the failure that belongs to a finish, after it: Anymate may forget it with the finish."""
    finish = delivery.finish
    if finish.failure is None or delivery.state not in {"acknowledged", "uncertain", "refused"}:  # else others do so
        return
    about = {"process_key": finish.process_key, "run_id": finish.run_id}
    try:
        yield from way.call("failure", finish.process_key, finish.failure)
    except (UnreachableError, ApiError) as error:
        yield say("warning", "failure_unreported", **about, error=str(error))
    else:
        yield say("info", "failure_reported", **about)


def _tell(way: Way, delivery: Delivery) -> Life[None]:
    if delivery.state == "acknowledged":
        way.delivered += len(delivery.finish.rows)
        yield Say("info", "anymate.finish_delivered", delivery.finish.facts)
    yield from report_failure(way, delivery)


def _facts(finish: Finish, trouble: Trouble) -> dict[str, object]:
    return {**finish.facts, "operation": trouble.operation, "error": str(trouble)}

"""The way to Anymate while a guard is entered or left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from anymate_guard._journal.rows import Row, Unavailable
from anymate_guard._journal.rules import is_busy
from anymate_guard._journal.view import Claims, View
from anymate_guard._lifecycle.asks import Apply, Call, Life, Read, Wait
from anymate_guard._lifecycle.options import Mate
from anymate_guard.errors import UnreachableError

_POLL = 0.02  # seconds between two looks at the journal while another program finishes a run
_PATIENCE = 2.0  # seconds to wait for a journal that can't be written, where one can go on without


@dataclass(eq=False)
class Way:
    """The way to Anymate and to the journal: one deadline, and one try in all during an outage.

    Attributes:
        mate: Who calls.
        clock: Monotonic time, in seconds.
        end: When to give up.
        outage: Whether Anymate was unreachable less than a minute ago.
        spent: What the one try during an outage came to.
        claims: The rows that were claimed on the way.
        delivered: How many rows of what was owed Anymate has by now.
        over: Whether nobody is on it any more.
    """

    mate: Mate
    clock: Callable[[], float]
    end: float
    outage: bool = False
    spent: UnreachableError | None = None
    claims: Claims = field(default_factory=Claims)
    delivered: int = 0
    over: bool = False

    def left(self) -> float:
        """Seconds until the end; 0 after it."""
        return max(0.0, self.end - self.clock())

    def call(self, operation: Any, *arguments: Any, until: float | None = None) -> Life[Any]:
        """Call within the deadline, or an earlier one.

        Raises:
            UnreachableError: There was no usable answer, now or a moment ago.
            ApiError: The answer means no.
        """
        if self.spent is not None:
            raise UnreachableError(self.spent.operation, self.spent.reason)
        end = min(self.end, self.clock() + self.mate.deadline, self.end if until is None else until)
        one_try = self.outage
        if one_try:
            end = min(end, self.clock() + self.mate.timeout)
        try:
            answer = yield Call(operation, arguments, end, retry=not one_try)
        except UnreachableError as error:
            if one_try:
                self.spent = error
            self.outage = True
            raise
        return answer

    def apply(self, rule: Callable[[View], Any], patience: float | None = None, *, durable: bool = False) -> Life[Any]:
        """Apply a rule to the journal.

        Raises:
            Unavailable: The journal can't be written.
        """
        if patience is None:
            patience = min(_PATIENCE, self.left() / 4)
        claims, rows, unsent = self.claims, set(self.claims.rows), set(self.claims.unsent)

        def claim_nothing() -> None:
            claims.rows &= rows
            claims.unsent &= unsent

        def anew(view: View) -> Any:
            claim_nothing()
            return rule(view)

        try:
            return (yield Apply(self.mate.address, anew, patience, durable))
        except Unavailable:  # it is not written, and others may claim it
            claim_nothing()
            raise

    def until_idle(self, row: Row) -> Life[bool]:
        """Wait while another program sends a finish for a row's process; False when there is no more time."""
        while self.left() > 0:
            yield Wait(_POLL)
            try:
                if not (yield Read(self.mate.address, lambda view: is_busy(view, row))):
                    return True
            except Unavailable:
                return True
        return False

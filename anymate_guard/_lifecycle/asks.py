"""What a life asks for: it decides, and whoever drives it does the asking for real.

A life is a generator. It yields a request and is sent the answer; what went wrong is thrown into it, and so is an
interruption, after which it asks for what is still to be done.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Literal, NamedTuple, TypeVar

from anymate_guard._journal.rows import Entry, Finish
from anymate_guard._journal.view import View
from anymate_guard._lifecycle.options import Mate

T = TypeVar("T")


class ActFor(NamedTuple):
    """Call as this mate from now on, and write to its journal."""

    mate: Mate


class Apply(NamedTuple):
    """Apply a rule to the journal, in one transaction; the answer is what it returns.

    Attributes:
        address: Whose outages matter.
        rule: What to do.
        patience: Seconds to wait for a journal that can't be written; then `Unavailable` is thrown.
        durable: Whether what was written has to be on the disk before going on.
    """

    address: str
    rule: Callable[[View], Any]
    patience: float
    durable: bool = False


class Read(NamedTuple):
    """Apply a rule that changes nothing, also while somebody else writes; throws `Unavailable`."""

    address: str
    rule: Callable[[View], Any]


class Keep(NamedTuple):
    """Keep a guard's row in the journal from now on, with what it records."""

    entry: Entry


class GiveBack(NamedTuple):
    """Let go of rows, also where the journal can't be written now: what they hold is owed.

    Attributes:
        numbers: Their ids.
        unsent: Those whose finish was not sent, for sure.
    """

    numbers: set[int]
    unsent: set[int]


class Settled(NamedTuple):
    """Delete the rows of a finish that Anymate has, with a line in the history, as a part of what is written next.

    Attributes:
        finish: The finish.
        how: How it was delivered.
    """

    finish: Finish
    how: str


class Drop(NamedTuple):
    """Delete rows that leave nothing, also where the journal can't be written now."""

    numbers: set[int]


class Written(NamedTuple):
    """Ask for a row as the journal's file holds it; None where others will not send it."""

    entry: Entry


class Call(NamedTuple):
    """Call Anymate; throws `UnreachableError` or `ApiError`.

    Attributes:
        operation: The method of the client.
        arguments: What it takes.
        end: Monotonic time at which to give up.
        retry: Whether to try more than once.
    """

    operation: Literal["start_run", "finish_run", "failure", "ok_to_run"]
    arguments: tuple[Any, ...]
    end: float
    retry: bool


class Wait(NamedTuple):
    """Wait for some seconds."""

    seconds: float


class Say(NamedTuple):
    """Log an event."""

    level: Literal["info", "warning", "error"]
    event: str
    fields: dict[str, object]


Ask = ActFor | Apply | Read | Keep | GiveBack | Settled | Drop | Written | Call | Wait | Say
Life = Generator[Ask, Any, T]


def say(level: Literal["info", "warning", "error"], event: str, **fields: object) -> Say:
    """Log an event of the package."""
    return Say(level, f"anymate.{event}", fields)

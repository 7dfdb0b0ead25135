"""The cases, and what the promises say becomes of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tests.support import faults
from tests.support.proxy import Fault

# Times in seconds; no call takes its deadline and LATE, also on a machine that has other things to do.
TIMEOUT, DEADLINE, LATE = 1.5, 5.0, 2.0
ENTRIES, SECONDS = 2, 1.5

Call = Literal["done", "unreachable", "refused"]

# What a fault means to the call that meets it:
#   passes       another try may get through
#   lasts        eats the whole deadline of entering or leaving, even if it comes once
#   login        401
#   no           an answer that means no, but may be put right
#   for good     an answer that means no, and will
FAULTS: dict[str, tuple[str, Fault | None]] = {
    "connection refused": ("passes", None),
    "reset before": ("passes", faults.reset_before),
    "reset after": ("passes", faults.reset_after),
    "silence": ("passes", faults.silence),
    "dripped header": ("lasts", faults.dripped_header),
    "dripped body": ("lasts", faults.dripped_body),
    "cut body": ("passes", faults.cut_body),
    "401": ("login", faults.status(401)),
    "403": ("no", faults.status(403)),
    "404": ("for good", faults.status(404)),
    "408": ("passes", faults.status(408)),
    "429": ("passes", faults.status(429)),
    "429, Retry-After": ("lasts", faults.status(429, Retry_After="9")),
    "500": ("passes", faults.status(500)),
    "502": ("passes", faults.status(502)),
    "503": ("passes", faults.status(503)),
    "HTML 200": ("passes", faults.html),
    "empty 200": ("passes", faults.empty),
    "succeeded: false": ("for good", faults.not_succeeded),
    "redirect": ("no", faults.redirect),
    "1 GiB answer": ("passes", faults.gigabyte),
}

# Where the fault strikes, and the options that make a difference there.
OPERATIONS: dict[str, list[tuple[str, ...]]] = {
    "token": [(), ("require_start",), ("require_finish",)],
    "StartRun": [(), ("require_start",), ("require_finish",)],
    "OkToRun": [("check_ok_to_run",), ("check_ok_to_run", "require_start")],
    "FinishRun": [(), ("require_finish",), ("no_credit",)],
    "token again": [(), ("require_finish",)],  # FinishRun hears 401, and the login that follows is struck
    "Failure": [("report_failure",), ("report_failure", "require_finish")],
}
BEFORE = {"StartRun": "token", "OkToRun": "token", "FinishRun": "StartRun", "Failure": "FinishRun"}


@dataclass(frozen=True)
class Case:
    """One combination.

    Attributes:
        number: Its place in the list.
        operation: Where the fault strikes.
        fault: Which one.
        lasting: Whether it strikes until the guard is left, or once.
        body: "returns", "raises" or "interrupts".
        in_async: Whether the body is a coroutine function.
        options: What the guard asks for.
    """

    number: int
    operation: str
    fault: str
    lasting: bool
    body: str
    in_async: bool
    options: tuple[str, ...]

    def __str__(self) -> str:
        how = "always" if self.lasting else "once"
        kind = "async " if self.in_async else ""
        return f"{self.number}: {self.fault} {how} at {self.operation}, {kind}body {self.body}, {self.options}"

    @property
    def process_key(self) -> str:
        """A process of its own."""
        return f"case-{self.number}"

    @property
    def meaning(self) -> str:
        """What the fault means."""
        return FAULTS[self.fault][0]

    def call(self, operation: str) -> Call:
        """What becomes of a call that meets the fault."""
        if self.meaning in {"passes", "lasts"}:
            return "unreachable" if self.lasting or self.meaning == "lasts" else "done"
        if operation == "token":
            return "refused"
        if self.meaning == "login" or (self.fault == "404" and operation == "StartRun"):  # there is another route
            return "refused" if self.lasting else "done"
        if operation == "FinishRun" and self.fault == "succeeded: false":
            # The run is not open; what was never sent then gets a run of its own.
            return "refused" if self.lasting else "done"
        return "refused"

    @property
    def raises_at_entry(self) -> tuple[str, ...]:
        """The errors of which one keeps the body from running; none when it has to run."""
        required = "require_start" in self.options
        if self.operation in {"token", "StartRun"}:
            found = self.call(self.operation)
            if found == "refused":
                return ("ApiError", "AuthenticationError")
            return ("UnreachableError",) if found == "unreachable" and required else ()
        if self.operation == "OkToRun" and required and self.call("OkToRun") != "done":
            return ("ApiError", "AuthenticationError", "UnreachableError")
        return ()

    @property
    def finish(self) -> str:
        """What becomes of a finish: "delivered", "owed" or "refused"."""
        if self.fault == "connection refused" and self.operation in {"token", "StartRun", "OkToRun"}:
            return "owed"
        if self.operation in {"token", "StartRun"}:
            return "owed" if self.lasting and self.call(self.operation) == "unreachable" else "delivered"
        if self.operation == "FinishRun":
            found = self.call("FinishRun")
            if found == "refused":
                return "refused" if self.meaning == "for good" else "owed"
            return "delivered" if found == "done" else "owed"
        if self.operation == "token again":
            return "delivered" if self.call("token") == "done" else "owed"
        return "delivered"

    @property
    def raises_at_exit(self) -> bool:
        """Whether the guard raises though the body succeeded."""
        return "require_finish" in self.options and self.body == "returns" and self.finish != "delivered"


def cases() -> Iterator[Case]:
    """All of them, always in the same order."""
    numbers = itertools.count(1)
    for operation, options in OPERATIONS.items():
        bodies = ["raises"] if operation == "Failure" else ["returns", "raises", "interrupts"]
        for fault, asked, lasting, body, in_async in itertools.product(
            FAULTS, options, [False, True], bodies, [False, True]
        ):
            if fault == "connection refused" and (not lasting or operation == "token again"):
                continue  # a server that is down is so for a while, and for every call
            yield Case(next(numbers), operation, fault, lasting, body, in_async, asked)


def sample() -> list[Case]:
    """A fixed choice among them, in which every fault strikes everywhere."""
    chosen: dict[tuple[str, str], Case] = {}
    for case in sorted(cases(), key=lambda case: case.number * 7919 % 10_007):
        chosen.setdefault((case.operation, case.fault), case)
    return sorted(chosen.values(), key=lambda case: case.number)

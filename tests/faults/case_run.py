"""Runs one case: a guard that meets a fault, then one that meets none."""

from __future__ import annotations

import asyncio
import math
import sqlite3
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anymate_guard import AnymateClient, AnymateGuardError, anymate_run, current_run
from anymate_guard.sandbox import Sandbox
from tests.faults.cases import BEFORE, DEADLINE, ENTRIES, FAULTS, LATE, SECONDS, TIMEOUT, Case
from tests.support.clients import client_of
from tests.support.proxy import Exchange, FaultProxy
from tests.support.tracebacks import rendered


class Boom(Exception):
    """What a body raises."""


@dataclass
class Course:
    """What happened to a body.

    Attributes:
        begun: When the guard was called.
        entered: When the body began.
        done: When it ended.
        left: When the guard was left.
        result: What came out.
        error: What was raised.
    """

    begun: float = 0
    entered: float = 0
    done: float = 0
    left: float = 0
    result: object = None
    error: BaseException | None = None


def run_case(case: Case, sandbox: Sandbox, lines: Callable[[str], list[str]]) -> tuple[str, list[str]]:
    """Run a case.

    Args:
        case: Which one.
        sandbox: The server behind the proxy.
        lines: Gives the log lines about a process key.

    Returns:
        What became of it, and which promises were broken.
    """
    problems: list[str] = []

    def check(fine: object, problem: str) -> None:
        if not fine:
            problems.append(problem)

    with tempfile.TemporaryDirectory() as folder, FaultProxy(sandbox.url, drip=TIMEOUT / 3) as proxy:
        broken = client_of(sandbox, proxy.url, timeout=TIMEOUT, deadline=DEADLINE, state_dir=folder)
        ends = {"returns": object(), "raises": Boom(), "interrupts": KeyboardInterrupt()}
        end = ends[case.body]
        _strike(case, proxy)
        course = _guarded(case, broken, end)
        ran = course.entered > 0
        outcome = _outcome(case, sandbox, Path(folder), lines, ran=ran)
        broken.close()
        proxy.heal()

        check(ran != bool(case.raises_at_entry), f"the body {'ran' if ran else 'did not run'}")
        check((course.entered or course.left) - course.begun < DEADLINE + LATE, "entering took too long")
        check(not ran or course.left - course.done < DEADLINE + LATE, "leaving took too long")
        _check_what_came_out(case, course, end, check)
        check(outcome in _allowed(case, ran=ran), f"it was {outcome}")
        secrets = [sandbox.environ["ANYMATE_PASSWORD"], sandbox.environ["ANYMATE_CLIENT_SECRET"], *proxy.tokens]
        seen = _journal_bytes(Path(folder)) + "\n".join(lines(case.process_key))
        if isinstance(course.error, AnymateGuardError):
            seen += rendered(course.error)
        check(not any(secret in seen for secret in (*secrets, "grant_type")), "a secret was seen")

        healthy = client_of(sandbox, proxy.url, timeout=10, deadline=20, state_dir=folder)
        with healthy, anymate_run(case.process_key, client=healthy) as run:
            run.add_entries(1)
        told = any("anymate.finish_refused" in line for line in lines(case.process_key))
        check(told == (outcome == "refused for good"), "a finish that was owed was refused later")
        check(_owed(Path(folder)) == 0, "the journal still owes something after a healthy guard")
        _check_totals(case, sandbox, check, credited=ran and outcome != "refused for good")
    return outcome, problems


def _strike(case: Case, proxy: FaultProxy) -> None:
    fault = FAULTS[case.fault][1]
    if fault is None:
        if case.operation == "token":
            proxy.down()
        else:
            proxy.down_after(BEFORE[case.operation])
        return
    times = math.inf if case.lasting else 1
    if case.operation == "token again":

        def refuse_then_strike(exchange: Exchange) -> None:
            proxy.break_next("token", fault, times)
            exchange.answer(401)

        proxy.break_next("FinishRun", refuse_then_strike)
    else:
        proxy.break_next(case.operation, fault, times)


def _guarded(case: Case, client: AnymateClient, end: object) -> Course:
    """Call a guarded function; what comes out is noted."""
    course = Course()
    options: dict[str, Any] = {name: True for name in case.options if name != "no_credit"}
    options["default_credit"] = "succeeded" if "no_credit" in case.options else "always"
    guard = anymate_run(case.process_key, client=client, **options)

    def body() -> object:
        course.entered = time.monotonic()
        current_run().add_entries(ENTRIES)
        if "no_credit" not in case.options:
            current_run().add_seconds_saved(SECONDS)
        course.done = time.monotonic()
        if isinstance(end, BaseException):
            raise end
        return end

    async def async_body() -> object:
        return body()

    course.begun = time.monotonic()
    try:
        course.result = asyncio.run(guard(async_body)()) if case.in_async else guard(body)()
    except BaseException as error:  # noqa: BLE001  # whatever it is
        course.error = error
    course.left = time.monotonic()
    return course


def _check_what_came_out(case: Case, course: Course, end: object, check: Callable[[object, str], None]) -> None:
    name = type(course.error).__name__
    if case.raises_at_entry:
        check(name in case.raises_at_entry, f"entering raised {course.error!r}")
    elif case.raises_at_exit:
        check(isinstance(course.error, AnymateGuardError), f"leaving raised {course.error!r}")
    elif isinstance(end, BaseException):
        check(course.error is end, f"another exception came out: {course.error!r}")
        check(end.__context__ is None and end.__cause__ is None, "the exception was given a context")
    else:
        check(course.result is end, f"another result came out: {course.result!r}, {course.error!r}")


def _outcome(case: Case, sandbox: Sandbox, folder: Path, lines: Callable[[str], list[str]], *, ran: bool) -> str:
    """What became of the finish, as the server, the journal and the log know it."""
    owed = _owed(folder)
    refusals = [line for line in lines(case.process_key) if "anymate.finish_refused" in line]
    runs = [run for run in sandbox.runs() if run["processKey"] == case.process_key]
    if refusals:
        told = all(f"entries={ENTRIES}" in line and line.startswith("ERROR") for line in refusals)
        return "refused for good" if told and not owed else "refused and mistold"
    if owed:
        return "owed" if owed == 1 else f"owed {owed} times"
    if not ran:
        return "never begun"
    return "finished" if [run["finished"] for run in runs] == [True] else "lost"


def _allowed(case: Case, *, ran: bool) -> set[str]:
    if not ran:
        return {"never begun"}
    found = {"delivered": "finished", "owed": "owed", "refused": "refused for good"}
    return {found[case.finish]}


def _check_totals(case: Case, sandbox: Sandbox, check: Callable[[object, str], None], *, credited: bool) -> None:
    runs = [run for run in sandbox.runs() if run["processKey"] == case.process_key]
    check(all(run["finished"] for run in runs), "a run is open at the end")
    entries = sum(run["overwriteEntries"] or 0 for run in runs)
    check(entries == 1 + (ENTRIES if credited else 0), f"{entries} entries were counted")
    seconds = {run["overwriteSecondsSaved"] for run in runs} - {None}
    if "no_credit" not in case.options:
        expected = {2} if credited else set()
    else:
        expected = {0} if credited and case.body != "returns" else set()
    check(seconds == expected, f"seconds saved were {seconds}")
    if case.operation == "Failure" and case.call("Failure") == "done":
        failures = [found for found in sandbox.failures() if found["processKey"] == case.process_key]
        check(failures, "the failure was not reported")


def _owed(folder: Path) -> int:
    """Rows in the journal that are owed, read without its own code; refused ones stay for people to see."""
    path = folder / "journal.sqlite3"
    if not path.exists():
        return 0
    database = sqlite3.connect(path)
    try:
        return int(database.execute("SELECT count(*) FROM rows WHERE state <> 'refused'").fetchone()[0])
    finally:
        database.close()


def _journal_bytes(folder: Path) -> str:
    return "".join(file.read_bytes().decode("latin-1") for file in sorted(folder.iterdir()))

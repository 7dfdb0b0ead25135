"""What type checkers promise a bot developer; read by mypy and pyright, never run.

A wrong call carries an ignore for each checker, with its code. Both complain when an ignore is no longer needed, so
each line that is wrong has to stay wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

from typing_extensions import assert_type

import anymate_guard
from anymate_guard import (
    AnymateClient,
    AnymateGuardError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    Kpis,
    NoCurrentRun,
    NotOkToRun,
    Run,
    Settings,
    UnreachableError,
    anymate_run,
    current_run,
)
from anymate_guard.pytest_plugin import AnymateSandbox
from anymate_guard.sandbox import Sandbox

client = AnymateClient(Settings.from_env())


# Decorated functions keep their parameters, their names and defaults, and what they return.
@anymate_run("invoice-intake")
def function(path: Path, *files: str, limit: int = 3, **options: bool) -> list[str]:
    """Be a function."""
    return [str(path), *files, str(limit), *options]


assert_type(function(Path(), "a", limit=2, fast=True), list[str])
function("a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
function(Path(), limit="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
function()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


@anymate_run
def bare(number: int) -> str:
    """Be decorated without parentheses."""
    return str(number)


assert_type(bare(1), str)
bare("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@anymate_run()
def empty_parentheses(number: int) -> str:
    """Be decorated with empty parentheses."""
    return str(number)


assert_type(empty_parentheses(1), str)


@anymate_run("invoice-intake")
async def coroutine(number: int, *, name: str = "") -> float:
    """Be a coroutine function."""
    return number + len(name)


async def use_coroutine() -> None:
    """Await it."""
    assert_type(await coroutine(1, name="a"), float)
    await coroutine("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def run_coroutine() -> None:
    """Run it; what a call gives is a coroutine still."""
    work: Coroutine[Any, Any, float] = coroutine(1)
    assert_type(asyncio.run(work), float)


class Bot:
    """A bot with every kind of method."""

    @anymate_run("invoice-intake")
    def method(self, number: int) -> str:
        """Be a method."""
        return str(number)

    @anymate_run
    def bare_method(self, number: int) -> str:
        """Be a method, decorated without parentheses."""
        return str(number)

    @anymate_run("invoice-intake")
    async def coroutine_method(self, number: int) -> str:
        """Be a coroutine method."""
        return str(number)

    @classmethod
    @anymate_run("invoice-intake")
    def class_method(cls, number: int) -> Bot:
        """Be a class method."""
        return cls() if number else Bot()

    @staticmethod
    @anymate_run("invoice-intake")
    def static_method(number: int) -> bytes:
        """Be a static method."""
        return bytes(number)


bot = Bot()
assert_type(bot.method(1), str)
assert_type(bot.bare_method(1), str)
assert_type(Bot.class_method(1), Bot)
assert_type(Bot.static_method(1), bytes)
assert_type(bot.static_method(1), bytes)
bot.method("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
bot.bare_method()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Bot.class_method("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Bot.static_method(1, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def use_methods() -> None:
    """Await a method."""
    assert_type(await bot.coroutine_method(1), str)
    await bot.coroutine_method("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def generic(work: Callable[[int], str]) -> Callable[[int], str]:
    """Decorate what came as an argument."""
    return anymate_run("invoice-intake")(work)


# Every option, by its name and of its type only.
anymate_run(
    "invoice-intake",
    client=client,
    run_id=5,
    check_ok_to_run=True,
    report_failure=True,
    default_credit="succeeded",
    require_start=True,
    require_finish=True,
)
anymate_run(process_key=None, client=None, run_id=None)
anymate_run(5)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType, reportCallIssue]
anymate_run("a", check_ok_to_run="yes")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
anymate_run("a", run_id="5")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
anymate_run("a", client="b")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
anymate_run("a", require_strat=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
anymate_run("a", client)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


# A guard gives a run, to `with` and to `async with`, and swallows no exception.
def with_block() -> int:
    """Return from inside; no checker asks for a return behind the block."""
    with anymate_run("invoice-intake") as run:
        assert_type(run, Run)
        return 1


async def async_block() -> int:
    """Return from inside, asynchronously."""
    async with anymate_run("invoice-intake") as run:
        assert_type(run, Run)
        return 1


def recording(run: Run) -> None:
    """Record everything that can be recorded, and read it."""
    assert_type(run.run_id, int | None)
    assert_type(run.process_key, str)
    assert_type(run.entries, int | None)
    assert_type(run.seconds_saved, float | None)
    assert_type(run.kpis, Kpis)
    run.add_entries()
    run.add_entries(3)
    run.add_seconds_saved(1)
    run.add_seconds_saved(1.5)
    run.add_seconds_saved(timedelta(minutes=1))
    run.set_kpis(entries=1, seconds_saved=timedelta(1))
    run.merge(Kpis(1) + Kpis(entries=2, seconds_saved=2.5))
    with run.attempt() as attempt:
        attempt.add_entries()
    run.add_entries(1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run.add_entries("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run.add_seconds_saved("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run.merge(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run.set_kpis(5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    run.run_id = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    run.entires  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    if run.outcome == "succeeded":
        pass


assert_type(current_run(), Run)
assert_type(Kpis(1).entries, int | None)
assert_type(Kpis(1) + Kpis(2), Kpis)
assert_type(sum([Kpis(1)], Kpis()), Kpis)

assert_type(client.start_run("a"), int)
client.finish_run(1)
client.finish_run(1, Kpis(1))
client.failure("a", "message")
assert_type(client.ok_to_run("a").ok_to_run, bool)
client.start_run(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
client.finish_run("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
with AnymateClient(Settings(client_id="a", timeout=1.5)) as other:
    assert_type(other, AnymateClient)
assert_type(Settings.from_env({"ANYMATE_CLIENT_ID": "a"}), Settings)
Settings(timeuot=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def errors(error: AnymateGuardError) -> None:
    """Read the facts of each error."""
    if isinstance(error, ConfigurationError):
        assert_type(error.problems, tuple[str, ...])
    elif isinstance(error, NotOkToRun):
        assert_type((error.gate_open, error.tasks_available, error.not_blocked_date), tuple[bool, bool, bool])
    elif isinstance(error, UnreachableError):
        assert_type(error.operation, str)
    elif isinstance(error, AuthenticationError | ApiError):
        assert_type((error.operation, error.status, error.message), tuple[str, int, str])
    elif isinstance(error, NoCurrentRun):
        found: LookupError = error
        raise found


# The sandbox, and the fixture in a test.
def test_bot(anymate_sandbox: AnymateSandbox) -> None:
    """Read all that a test reads."""
    anymate_sandbox.fail_next("FinishRun", status=503)
    anymate_sandbox.set_process("a", stopped=True)
    for run in anymate_sandbox.runs:
        assert_type((run.process_key, run.run_id, run.finished), tuple[str, int, bool])
        assert_type(run.entries, int | None)
        assert_type(run.seconds_saved, int | None)
    assert_type([failure.message for failure in anymate_sandbox.failures], list[str])
    assert_type([request.status for request in anymate_sandbox.requests], list[int | None])
    assert_type(anymate_sandbox.server, Sandbox)
    anymate_sandbox.fail_next("FinishRun", status="503")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    anymate_sandbox.fail_next(statsu=503)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


with Sandbox(port=0) as sandbox:
    assert_type(sandbox, Sandbox)
    assert_type(sandbox.runs()[0]["creditedEntries"], int | None)


# What is not public is no attribute of the package.
anymate_guard.Guard  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

"""A guard around functions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import pytest

from anymate_guard import Kpis, anymate_run, current_run
from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST


def test_function(sandbox: Sandbox) -> None:
    """A decorated function is one run a call, and its result and arguments are its own."""

    @anymate_run("invoice-intake")
    def work(first: int, *, second: int = 2) -> int:
        current_run().add_entries(first)
        return first + second

    assert work(3, second=4) == 7
    assert work(1) == 3
    assert [(run["finished"], run["overwriteEntries"]) for run in sandbox.runs()] == [(True, 3), (True, 1)]


def test_function_that_raises(sandbox: Sandbox) -> None:
    """The exception of a decorated function comes out as the same object."""
    error = ValueError("flawed")

    @anymate_run("invoice-intake")
    def work() -> None:
        raise error

    with pytest.raises(ValueError, match="flawed") as caught:
        work()
    assert caught.value is error
    assert [run["finished"] for run in sandbox.runs()] == [True]


def test_bare_decorator(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare @anymate_run takes the process key from the environment at each call; decorating sends nothing."""

    @anymate_run
    def work() -> str:
        return current_run().process_key

    @anymate_run
    async def work_async() -> str:
        return current_run().process_key

    assert sandbox.requests() == []
    monkeypatch.setenv("ANYMATE_PROCESS_KEY", "from-environment")
    assert work() == "from-environment"
    monkeypatch.setenv("ANYMATE_PROCESS_KEY", "changed")
    assert asyncio.run(work_async()) == "changed"
    assert [run["processKey"] for run in sandbox.runs()] == ["from-environment", "changed"]


def test_name_and_signature() -> None:
    """Decorated functions keep name, docstring and signature, and async ones stay coroutine functions."""

    @anymate_run("invoice-intake")
    def work(first: int, *, second: str = "x") -> bool:
        """Do the work."""
        return bool(first) and bool(second)

    @anymate_run("invoice-intake")
    async def work_async() -> None: ...

    assert (work.__name__, work.__doc__) == ("work", "Do the work.")
    assert str(inspect.signature(work)) == "(first: 'int', *, second: 'str' = 'x') -> 'bool'"
    assert inspect.iscoroutinefunction(work_async)


def test_methods(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods, class methods and static methods can be decorated, in either order of the decorators."""
    monkeypatch.setenv("ANYMATE_PROCESS_KEY", "bare")

    class Bot:
        name = "bot"

        @anymate_run("method")
        def method(self) -> str:
            return self.name

        @classmethod
        @anymate_run("classmethod")
        def class_method(cls) -> str:
            return cls.name

        @anymate_run("classmethod-inside")
        @classmethod
        def class_method_inside(cls) -> str:
            return cls.name

        @anymate_run
        @classmethod
        def bare_class_method(cls) -> str:
            return cls.name

        @anymate_run("staticmethod")
        @staticmethod
        def static_method() -> str:
            return "static"

        @anymate_run("coroutine-method")
        async def coroutine_method(self) -> str:
            return self.name

    bot = Bot()
    results = [
        bot.method(),
        bot.class_method(),
        bot.class_method_inside(),
        bot.bare_class_method(),
        bot.static_method(),
    ]
    results.append(asyncio.run(bot.coroutine_method()))
    assert results == ["bot", "bot", "bot", "bot", "static", "bot"]
    assert all(run["finished"] for run in sandbox.runs())
    assert len(sandbox.runs()) == 6


def test_partials(sandbox: Sandbox) -> None:
    """A partial of a function, or of a coroutine function, which is awaited inside its run, can be decorated."""

    def work(count: int) -> int:
        current_run().add_entries(count)
        return 5

    async def work_async(count: int) -> int:
        await asyncio.sleep(0)
        return work(count)

    assert anymate_run("invoice-intake")(partial(work, 1))() == 5
    assert asyncio.run(anymate_run("invoice-intake")(partial(work_async, 2))()) == 5
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [1, 2]


@contextlib.contextmanager
def _opened() -> Iterator[int]:
    yield 1


@contextlib.asynccontextmanager
async def _opened_async() -> AsyncIterator[int]:
    yield 1


def _generator() -> Iterator[int]:
    yield 1


async def _async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    "function", [_generator, _async_generator, partial(_generator), _opened, _opened_async, partial(_opened)]
)
def test_functions_whose_body_comes_later_are_refused(function: Callable[[], object]) -> None:
    """Generator functions, and what contextlib made of them, are refused: their run would end before their body."""
    with pytest.raises(TypeError, match="its run would end before its body began; use `with anymate_run"):
        anymate_run("invoice-intake")(function)


class Task:
    """An object that can be called, as a task of Celery is."""

    def __call__(self) -> None:
        """Do nothing."""


class Flow(Task):
    """One that a class binds as it binds its methods, as a flow of Prefect is."""

    def __get__(self, instance: object, owner: type) -> Flow:
        return self


@pytest.mark.parametrize("made", [Task(), Flow()])
def test_what_is_no_function_is_refused(made: Task) -> None:
    """An object that can be called, as tasks and flows of frameworks are, is refused, with what to do instead."""
    with pytest.raises(
        TypeError, match=r"is not the function itself: put @anymate_run nearest the function.* this (Task|Flow) of it"
    ):
        anymate_run("invoice-intake")(made)


def test_function_that_is_cached(sandbox: Sandbox) -> None:
    """What Python's own `functools.cache` makes of a function can be decorated."""
    double = anymate_run("invoice-intake")(cache(lambda number: 2 * number))
    assert [double(2), double(2)] == [4, 4]
    assert [run["finished"] for run in sandbox.runs()] == [True, True]


def test_function_that_returns_an_awaitable(sandbox: Sandbox) -> None:
    """A function that is no `async def` but returns an awaitable is an error at the call; the coroutine never runs."""

    async def late() -> None:
        pytest.fail("it ran")

    ways: list[Callable[[], object]] = [late, lambda: asyncio.Future(loop=loop)]
    loop = asyncio.new_event_loop()
    for way in ways:
        with pytest.raises(TypeError, match="make it an `async def`"):
            anymate_run("invoice-intake")(lambda way=way: way())()
    with pytest.raises(TypeError, match="make it an `async def`"):
        anymate_run("invoice-intake")(functools.partial(lambda way: way(), late))()
    loop.close()
    assert [run["finished"] for run in sandbox.runs()] == [True, True, True]


def test_name_and_place_of_the_code() -> None:
    """Frameworks that go by the code find the name, file and line of the function itself."""

    def work() -> None: ...

    async def work_async() -> None: ...

    for function in (work, work_async):
        code, own = anymate_run("invoice-intake")(function).__code__, function.__code__
        assert (code.co_name, code.co_filename, code.co_firstlineno) == (
            own.co_name,
            own.co_filename,
            own.co_firstlineno,
        )


def test_lines_of_the_code(sandbox: Sandbox) -> None:
    """A debugger or a tool that measures coverage sees no line of the function that was not run."""

    def work() -> int:
        if sandbox.runs():
            return 1
        return 0

    async def work_async() -> int:
        return work()

    for function in (work, work_async):
        code = anymate_run("invoice-intake")(function).__code__
        assert {line for *_, line in code.co_lines() if line} == {function.__code__.co_firstlineno}


def test_classes_are_refused() -> None:
    """A class is refused, as decorating it would guard no work."""

    class Bot: ...

    with pytest.raises(TypeError, match="decorate the method"):
        anymate_run("invoice-intake")(Bot)


def test_recursion(sandbox: Sandbox) -> None:
    """A decorated function that calls itself is one run: the inner calls join, and the outermost one finishes it."""

    @anymate_run("invoice-intake")
    def work(depth: int) -> None:
        current_run().add_entries(1)
        if depth:
            work(depth - 1)
            assert not sandbox.runs()[0]["finished"]

    work(3)
    (run,) = sandbox.runs()
    assert (run["finished"], run["overwriteEntries"]) == (True, 4)
    assert [request["operation"] for request in sandbox.requests()].count("FinishRun") == 1


@pytest.mark.parametrize("first_in_is_first_out", [True, False])
def test_eight_threads(sandbox: Sandbox, first_in_is_first_out: bool) -> None:
    """Eight threads in one decorated function share its run, whatever the order they leave in; it is finished once."""
    inside = threading.Barrier(8)
    leave = [threading.Event() for _ in range(8)]

    @anymate_run("invoice-intake")
    def work(number: int) -> int | None:
        current_run().add_entries(number)
        inside.wait(LONGEST)
        assert leave[number].wait(LONGEST)
        return current_run().run_id

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(work, number) for number in range(8)]
        order = range(8) if first_in_is_first_out else reversed(range(8))
        for number in order:
            assert not sandbox.runs() or not sandbox.runs()[0]["finished"]
            leave[number].set()
            futures[number].result(10)
    (run,) = sandbox.runs()
    assert (run["finished"], run["overwriteEntries"]) == (True, 28)
    assert [request["operation"] for request in sandbox.requests()].count("FinishRun") == 1


def test_gathered_tasks(sandbox: Sandbox) -> None:
    """Gathered calls of one decorated coroutine function share its run, and each sees its own context."""
    inside: list[int] = []
    together: asyncio.Event

    @anymate_run("invoice-intake")
    async def work(number: int) -> int:
        with current_run().attempt() as attempt:
            inside.append(number)
            if len(inside) == 8:
                together.set()
            await together.wait()
            assert current_run() is attempt
            current_run().add_entries(number)
        return number

    async def main() -> list[int]:
        nonlocal together
        together = asyncio.Event()
        return await asyncio.gather(*(work(number) for number in range(8)))

    assert asyncio.run(main()) == list(range(8))
    (run,) = sandbox.runs()
    assert (run["finished"], run["overwriteEntries"]) == (True, 28)


def test_own_keys_in_threads(sandbox: Sandbox) -> None:
    """Guards on different process keys in eight threads at once are runs of their own, each with its own KPIs."""
    inside = threading.Barrier(8)

    def work(number: int) -> None:
        for _ in range(5):
            with anymate_run(f"process-{number}") as run:
                inside.wait(LONGEST)
                run.merge(Kpis(number, number))
                assert current_run() is run

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    credited = sorted((run["processKey"], run["overwriteEntries"]) for run in sandbox.runs())
    assert credited == sorted((f"process-{number}", number) for number in range(8) for _ in range(5))
    assert all(run["finished"] for run in sandbox.runs())

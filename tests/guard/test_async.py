"""A guard in async code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import structlog

from anymate_guard import AnymateClient, ApiError, NoCurrentRun, anymate_run, current_run
from anymate_guard._guard import defaults, threads
from anymate_guard._guard.driver import program
from anymate_guard._journal.journals import all_journals
from anymate_guard.sandbox import Sandbox
from tests.support.faults import held
from tests.support.proxy import FaultProxy
from tests.support.waiting import LONGEST
from tests.support.waiting import until as wait_until


async def until(condition: Any) -> None:
    """Wait for something to come true, for ten seconds at most."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        await asyncio.sleep(0.005)


async def reach_body(coroutine: Coroutine[Any, Any, None]) -> None:
    """Drive a coroutine by hand, through the entering of its guard and up to where its body waits."""
    entering = coroutine.send(None)
    await until(entering.done)
    coroutine.send(None)


def test_another_loop(sandbox: Sandbox) -> None:
    """Where another loop than asyncio's drives the coroutine, a guard is refused before anything is sent."""
    entering = anymate_run("invoice-intake").__aenter__()
    with pytest.raises(RuntimeError, match="needs asyncio"):
        entering.send(None)
    assert sandbox.requests() == []


def finishes(sandbox: Sandbox) -> list[int]:
    """The numbers of finished runs."""
    return [run["runId"] for run in sandbox.runs() if run["finished"]]


def test_async_block(sandbox: Sandbox) -> None:
    """`async with` starts and finishes a run; current run and log context are those of its task."""

    async def main() -> None:
        async with anymate_run("invoice-intake") as run:
            assert current_run() is run
            assert structlog.contextvars.get_contextvars()["run_id"] == run.run_id
            run.add_entries(2)
            assert finishes(sandbox) == []
        with pytest.raises(NoCurrentRun):
            current_run()
        assert structlog.contextvars.get_contextvars() == {}

    asyncio.run(main())
    assert [(run["finished"], run["overwriteEntries"]) for run in sandbox.runs()] == [(True, 2)]


def test_two_tasks(sandbox: Sandbox) -> None:
    """Two tasks that guard different keys each see their own run and log context, whatever the order they leave in."""

    async def work(key: str, mine: asyncio.Event, other: asyncio.Event) -> None:
        async with anymate_run(key) as run:
            mine.set()
            await other.wait()
            assert current_run() is run
            assert structlog.contextvars.get_contextvars()["process_key"] == key
            run.add_entries(len(key))

    async def main() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        await asyncio.gather(work("short", first, second), work("rather-long", second, first))

    asyncio.run(main())
    assert {run["processKey"]: run["overwriteEntries"] for run in sandbox.runs()} == {
        "short": 5,
        "rather-long": 11,
    }


@pytest.mark.parametrize("operation", ["StartRun", "FinishRun"])
def test_the_loop_never_blocks(sandbox: Sandbox, operation: str) -> None:
    """While Anymate takes its time, the event loop goes on with other tasks."""
    sandbox.fail_next(operation, hang=True)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def wake() -> None:
        await until(lambda: any(request["operation"] == operation for request in sandbox.requests()))
        seen = ticks
        await until(lambda: ticks > seen + 100)
        sandbox.close()
        sandbox.start()

    async def main() -> None:
        ticking, waking = asyncio.create_task(tick()), asyncio.create_task(wake())
        async with anymate_run("invoice-intake"):
            pass
        await waking
        ticking.cancel()

    asyncio.run(main())
    assert len(finishes(sandbox)) == 1


def test_loop_off_the_main_thread(sandbox: Sandbox) -> None:
    """An event loop in another thread than the main one guards as any other."""

    async def main() -> None:
        async with anymate_run("invoice-intake") as run:
            run.add_entries(2)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join()
    assert len(finishes(sandbox)) == 1


def test_exception_in_async_block(sandbox: Sandbox) -> None:
    """The body's exception comes out of `async with` as the same object, with no context of ours."""
    error = ValueError("flawed")

    async def main() -> None:
        async with anymate_run("invoice-intake", report_failure=True):
            raise error

    with pytest.raises(ValueError, match="flawed") as caught:
        asyncio.run(main())
    assert caught.value is error
    assert (error.__context__, error.__cause__) == (None, None)
    assert [failure["message"] for failure in sandbox.failures()] == ["ValueError: flawed"]


def test_refused_start_in_async_code(sandbox: Sandbox) -> None:
    """What entering raises, `async with` raises; the guard can be used again."""
    sandbox.fail_next("StartRun", status=400)
    guard = anymate_run("invoice-intake", require_start=True)

    async def main() -> None:
        async with guard:
            pass

    with pytest.raises(ApiError):
        asyncio.run(main())
    asyncio.run(main())
    assert len(finishes(sandbox)) == 1


def test_required_finish_in_async_code(sandbox: Sandbox) -> None:
    """require_finish raises out of `async with`."""

    async def main() -> None:
        async with anymate_run("invoice-intake", require_finish=True):
            sandbox.fail_next("FinishRun", answer={"succeeded": False, "message": "too late"}, times=2)

    with pytest.raises(Exception, match="too late"):
        asyncio.run(main())


def test_cancelled_in_the_body(sandbox: Sandbox) -> None:
    """A task cancelled in its body is interrupted: the run is finished, and CancelledError goes on."""
    outcomes = []

    async def work(inside: asyncio.Event) -> None:
        async with anymate_run("invoice-intake", default_credit="succeeded") as run:
            outcomes.append(run)
            inside.set()
            await asyncio.Event().wait()

    async def main() -> None:
        inside = asyncio.Event()
        task = asyncio.create_task(work(inside))
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert (outcomes[0].outcome, sandbox.runs()[0]["overwriteEntries"]) == ("interrupted", 0)
    assert len(finishes(sandbox)) == 1


def test_cancelled_while_entering(sandbox: Sandbox) -> None:
    """A task cancelled while its run is being started leaves at once; the run, once named, is finished with zeros."""
    sandbox.fail_next("StartRun", delay=0.2)

    async def work() -> None:
        async with anymate_run("invoice-intake"):
            pytest.fail("the body ran")

    async def main() -> None:
        task = asyncio.create_task(work())
        await until(lambda: any(request["operation"] == "StartRun" for request in sandbox.requests()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: len(finishes(sandbox)) == 1)

    asyncio.run(main())
    (run,) = sandbox.runs()
    assert (run["overwriteEntries"], run["overwriteSecondsSaved"]) == (0, 0)


def test_cancelled_before_the_body(sandbox: Sandbox) -> None:
    """A task cancelled when its run is open and its body has not begun, finishes it with zeros: no work was done."""

    async def work() -> None:
        async with anymate_run("invoice-intake"):
            raise AssertionError("it was cancelled before")

    async def main() -> None:
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        wait_until(lambda: [shared.state for shared in program.runs()] == ["open"])  # and this loop goes on only then
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    wait_until(lambda: [run["finished"] for run in sandbox.runs()] == [True])
    assert [(run["overwriteEntries"], run["overwriteSecondsSaved"]) for run in sandbox.runs()] == [(0, 0)]


def test_cancelled_while_joining(sandbox: Sandbox) -> None:
    """A task cancelled while it waits to join a run leaves the others' run alone."""
    sandbox.fail_next("StartRun", delay=0.2)

    async def work(number: int) -> None:
        async with anymate_run("invoice-intake") as run:
            run.add_entries(number)

    async def main() -> None:
        first = asyncio.create_task(work(1))
        await until(lambda: any(request["operation"] == "StartRun" for request in sandbox.requests()))
        second = asyncio.create_task(work(2))
        await asyncio.sleep(0)
        second.cancel()
        await first
        with pytest.raises(asyncio.CancelledError):
            await second
        await until(lambda: len(finishes(sandbox)) == 1)

    asyncio.run(main())
    assert sandbox.runs()[0]["overwriteEntries"] == 1


@pytest.mark.parametrize("times", [1, 3])
def test_cancelled_while_finishing(sandbox: Sandbox, times: int) -> None:
    """A task cancelled, even repeatedly, while its run is being finished completes that first; then CancelledError."""
    sandbox.fail_next("FinishRun", delay=0.2)

    async def work() -> None:
        async with anymate_run("invoice-intake") as run:
            run.add_entries(1)

    async def main() -> None:
        task = asyncio.create_task(work())
        await until(lambda: any(request["operation"] == "FinishRun" for request in sandbox.requests()))
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(finishes(sandbox)) == 1

    asyncio.run(main())


def test_cancelled_without_end_while_finishing(sandbox: Sandbox, client: AnymateClient, proxy: FaultProxy) -> None:
    """A task cancelled in each turn of the loop while it finishes, as by anyio, needs no memory for each time."""
    finishing, enough = threading.Event(), threading.Event()
    proxy.break_next("FinishRun", held(finishing, enough))

    async def work() -> None:
        async with anymate_run("invoice-intake", client=client):
            pass

    async def main() -> int:
        task = asyncio.create_task(work())
        await until(finishing.is_set)
        for _ in range(1000):
            task.cancel()
            await asyncio.sleep(0)
        futures = sum(isinstance(thing, asyncio.Future) for thing in gc.get_objects())
        enough.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return futures

    assert asyncio.run(main()) < 100
    assert len(finishes(sandbox)) == 1


def test_cancelled_while_finishing_a_failed_body(sandbox: Sandbox) -> None:
    """A task cancelled while the run of its failed body is being finished raises the body's own exception."""
    sandbox.fail_next("FinishRun", delay=0.2)
    error = ValueError("flawed")

    async def work() -> None:
        async with anymate_run("invoice-intake"):
            raise error

    async def main() -> None:
        task = asyncio.create_task(work())
        await until(lambda: any(request["operation"] == "FinishRun" for request in sandbox.requests()))
        task.cancel()
        with pytest.raises(ValueError, match="flawed") as caught:
            await task
        assert caught.value is error

    asyncio.run(main())
    assert len(finishes(sandbox)) == 1


def test_cancelled_while_a_required_finish_fails(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation is not lost to a finish that fails at the same time, even one that is required."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "4")
    sandbox.fail_next("FinishRun", hang=True)

    async def work() -> None:
        async with anymate_run("invoice-intake", require_finish=True):
            pass

    async def main() -> None:
        task = asyncio.create_task(work())
        await until(lambda: any(request["operation"] == "FinishRun" for request in sandbox.requests()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_no_thread_can_be_started(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system starts no more threads, entering and leaving happen once, in the loop's own thread."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("anymate_guard_"):
            raise RuntimeError("can't start new thread")
        start(thread)

    async def main() -> None:
        monkeypatch.setattr(threads, "_executor", None)
        monkeypatch.setattr(threading.Thread, "start", refuse)
        async with anymate_run("invoice-intake") as run:
            run.add_entries(2)
            monkeypatch.setattr(threading.Thread, "start", start)  # what was refused may be done now, too
            async with anymate_run("another"):
                pass
        assert run.outcome == "succeeded"

    asyncio.run(main())
    assert [(run["processKey"], run["overwriteEntries"], run["finished"]) for run in sandbox.runs()] == [
        ("invoice-intake", 2, True),
        ("another", None, True),
    ]


def test_closed_by_the_garbage_collector(sandbox: Sandbox) -> None:
    """A coroutine that is closed in the midst of whatever its thread does waits for nobody; its run is finished."""

    async def work() -> None:
        async with anymate_run("invoice-intake"):
            await asyncio.Event().wait()

    coroutine = work()

    asyncio.run(reach_body(coroutine))

    def close() -> None:
        with threads._lock, program._lock, defaults._lock, journal.wanted.lock:
            coroutine.close()

    (journal,) = (one for one in all_journals() if one.path.parent == Path(os.environ["ANYMATE_STATE_DIR"]))
    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    closing.join(LONGEST)
    assert not closing.is_alive()
    wait_until(lambda: len(finishes(sandbox)) == 1)


def test_closed_coroutine(sandbox: Sandbox) -> None:
    """A coroutine that is closed in its body can't await, and its run is finished all the same."""
    runs = []

    async def work() -> None:
        async with anymate_run("invoice-intake") as run:
            runs.append(run)
            await asyncio.Event().wait()

    async def main() -> None:
        coroutine = work()
        await reach_body(coroutine)
        coroutine.close()
        await until(lambda: len(finishes(sandbox)) == 1)

    asyncio.run(main())
    assert runs[0].outcome == "interrupted"


def test_coroutine_closed_after_its_loop(sandbox: Sandbox) -> None:
    """The run of a coroutine that is closed when no loop runs any more is finished all the same, a moment later."""

    async def work() -> None:
        async with anymate_run("invoice-intake"):
            await asyncio.Event().wait()

    coroutine = work()

    asyncio.run(reach_body(coroutine))
    coroutine.close()
    wait_until(lambda: len(finishes(sandbox)) == 1)


@pytest.mark.usefixtures("no_garbage_collector")
def test_coroutine_in_a_cycle_of_garbage(sandbox: Sandbox) -> None:
    """A coroutine that refers to itself is closed as any other: it sees GeneratorExit, and signals are put back."""
    seen: list[BaseException] = []

    async def work(itself: list[object]) -> None:
        try:
            async with anymate_run("invoice-intake"):
                await asyncio.Event().wait()
        except BaseException as error:
            assert itself
            seen.append(error)
            raise

    itself: list[object] = []
    coroutine = work(itself)
    itself.append(coroutine)
    gc.collect(0)  # what is younger comes first: what `async with` holds, before the coroutine
    asyncio.run(reach_body(coroutine))
    del coroutine, itself
    gc.collect()
    assert [type(error) for error in seen] == [GeneratorExit]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    wait_until(lambda: len(finishes(sandbox)) == 1)


def test_async_generator_in_a_cycle_of_garbage(sandbox: Sandbox) -> None:
    """An async generator that the garbage collector finds is closed by its loop later: it is in its run until then."""

    async def pages(itself: list[object], closed: asyncio.Event) -> Any:
        async with anymate_run("invoice-intake", default_credit="succeeded") as run:
            with contextlib.suppress(GeneratorExit):
                yield 1
            await asyncio.sleep(0)
            assert itself
            run.add_entries(2)
        closed.set()

    async def main() -> None:
        itself: list[object] = []
        closed = asyncio.Event()
        generator = pages(itself, closed)
        itself.append(generator)
        await anext(generator)
        del generator, itself
        gc.collect()
        await asyncio.wait_for(closed.wait(), LONGEST)

    asyncio.run(main())
    [run] = sandbox.runs()
    assert (run["finished"], run["overwriteEntries"], run["overwriteSecondsSaved"]) == (True, 2, None)


def test_async_guard_left_in_another_context(sandbox: Sandbox) -> None:
    """An async generator with a guard inside, closed in another context than it was entered in, finishes quietly."""

    async def pages() -> Any:
        async with anymate_run("invoice-intake"):
            yield 1

    async def main() -> None:
        generator = pages()
        await asyncio.create_task(anext(generator))
        await generator.aclose()
        await until(lambda: len(finishes(sandbox)) == 1)

    asyncio.run(main())


def test_left_but_not_entered_in_async_code() -> None:
    """Leaving a guard that was not entered is refused in async code, too."""
    with pytest.raises(RuntimeError, match="was not entered"):
        asyncio.run(anymate_run("invoice-intake").__aexit__(None, None, None))

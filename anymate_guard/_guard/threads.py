"""Calls from async code, in worker threads of our own: the loop never waits, and its threads are the bot's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from anymate_guard._process import signals
from anymate_guard._process.fork import in_child
from anymate_guard._process.locks import Lock

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")

_MOST = 32  # each call is short, or waits for Anymate

_lock = Lock()
_executor: ThreadPoolExecutor | None = None


def in_thread(future: Future[T], call: Callable[..., T], *args: object) -> None:
    """Call in a worker thread, in a copy of this context; where no thread can be started any more, in this one.

    Args:
        future: Gets what comes of it, also when an interruption comes out of this very function.
        call: What to call.
        args: With what.
    """
    global _executor
    context = copy_context()
    unclaimed = [True]

    def work() -> None:
        try:
            unclaimed.pop()
        except IndexError:  # the executor may refuse a call, and do it all the same
            return
        try:
            future.set_result(context.run(call, *args))
        except BaseException as error:  # noqa: BLE001  # raised where the result is asked for
            future.set_exception(error)

    # A signal's exit in the midst of starting a thread would leave one that the interpreter's end waits for.
    with signals.deferred(), _lock, contextlib.suppress(RuntimeError):
        if _executor is None:
            from concurrent.futures import ThreadPoolExecutor  # raises, too, at the interpreter's exit

            _executor = ThreadPoolExecutor(_MOST, "anymate_guard")
        _executor.submit(work)
        return
    work()


def waiting_for(future: Future[Any]) -> asyncio.Future[None]:
    """What to await for the end of a call in a thread; cancelled, it leaves that alone."""
    import asyncio  # whose own way to wait cancels the call, too, and takes longer

    loop = asyncio.get_running_loop()
    waiting = loop.create_future()

    def wake() -> None:
        if not waiting.done():
            waiting.set_result(None)

    def call_loop(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(wake)

    future.add_done_callback(call_loop)
    return waiting


def _after_fork() -> None:
    global _lock, _executor
    _lock, _executor = Lock(), None


in_child(_after_fork)

"""Calls from async code, in worker threads of our own: the loop never waits, and its threads are the bot's."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from anymate_guard._fork import in_child

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")

_MOST = 32  # each call is short, or waits for Anymate

_lock = threading.Lock()
_executor: ThreadPoolExecutor | None = None


def in_thread(call: Callable[..., T], *args: object) -> Future[T]:
    """Call in a worker thread, in a copy of this context; at the interpreter's exit, in this thread."""
    from concurrent.futures import Future

    global _executor
    context = copy_context()
    with _lock, contextlib.suppress(RuntimeError):
        if _executor is None:
            from concurrent.futures import ThreadPoolExecutor  # raises, too, at the interpreter's exit

            _executor = ThreadPoolExecutor(_MOST, "anymate_guard")
        return _executor.submit(context.run, call, *args)
    future: Future[T] = Future()
    try:
        future.set_result(context.run(call, *args))
    except BaseException as error:  # noqa: BLE001  # raised where the result is asked for
        future.set_exception(error)
    return future


async def ended(future: Future[Any]) -> None:
    """Wait for a call in a thread; cancelled, leave it alone."""
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
    await waiting


def loop_is_running() -> bool:
    """Whether this thread runs an event loop."""
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _after_fork() -> None:
    global _lock, _executor
    _lock, _executor = threading.Lock(), None


in_child(_after_fork)

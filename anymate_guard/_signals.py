"""A termination signal becomes an exit that unwinds, for as long as a guard is open in the main thread.

SIGTERM's default action ends a process without running one `finally` or `__exit__`. Where that default is in force, the
first signal raises `SystemExit(128 + n)`, and a second one ends the process at once. A program's own handler is left
alone. Raised in the midst of an event loop's own code, an exit would lose what the loop is about to run, and with it
maybe the end of a task that the program waits for; so there the loop itself raises it, before its next step.
"""

from __future__ import annotations

import contextlib
import inspect
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from anymate_guard._fork import around

_NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]

_holds = 0  # open guards that asked for the signals
_taken: list[int] = []  # the signals we handle now
_exit: SystemExit | None = None  # raised by the first signal
_waiting: list[set[signal.Signals | int]] = []  # what was held back before, while a process forks
_deferring = False  # while a finish is sent: it is completed first


def hold() -> bool:
    """Take the signals that have their default action; True if `release` is owed. Does nothing off the main thread."""
    global _holds
    if threading.current_thread() is not threading.main_thread():
        return False
    if _holds == 0:
        for number in _NUMBERS:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _unwind)
                _taken.append(number)
    _holds += 1
    return True


def release() -> None:
    """Put the signals back when the last guard that held them is left."""
    global _holds, _exit
    _holds -= 1
    if _holds == 0 and threading.current_thread() is threading.main_thread():
        _exit = None
        _give_back()


def raised(error: BaseException | None) -> bool:
    """Whether this is the exit that a signal raised, and not one of the body's own."""
    return error is not None and error is _exit


@contextmanager
def deferred() -> Iterator[None]:
    """Let a first signal wait until the block is done; a second one still ends the process at once."""
    global _deferring
    before = _exit
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
    if _exit is not None and _exit is not before:
        raise _exit


def _unwind(number: int, frame: FrameType | None) -> None:
    global _exit
    if _exit is not None or _holds == 0:
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    _exit = SystemExit(128 + number)
    if _deferring:
        return
    loop = _interrupted_loop(frame)
    if loop is None:
        raise _exit
    loop.call_soon_threadsafe(_leave_loop, _exit)


def _interrupted_loop(frame: FrameType | None) -> Any:
    """The event loop that runs in this thread, unless it runs a task just now."""
    asyncio = sys.modules.get("asyncio")
    loop = None
    if asyncio is not None:
        with contextlib.suppress(RuntimeError):  # none is running
            loop = asyncio.get_running_loop()
    while loop is not None and frame is not None:
        if frame.f_code.co_flags & (inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR):
            return None
        frame = frame.f_back
    return loop


def _leave_loop(error: SystemExit) -> NoReturn:
    raise error


def _hold_back() -> None:
    """Let signals wait while a process forks: Python forgets those that reach the child before it runs."""
    if sys.platform != "win32" and _taken:
        _waiting.append(signal.pthread_sigmask(signal.SIG_BLOCK, _taken))


def _let_come() -> None:
    if sys.platform != "win32":
        while _waiting:
            signal.pthread_sigmask(signal.SIG_SETMASK, _waiting.pop())


def _let_go() -> None:
    """In a forked child: the guards are its parent's, so its signals get their default action back."""
    global _holds, _exit, _deferring
    _holds, _exit, _deferring = 0, None, False
    _give_back()
    _let_come()


def _give_back() -> None:
    while _taken:
        number = _taken.pop()
        if signal.getsignal(number) is _unwind:  # else the program installed its own meanwhile
            signal.signal(number, signal.SIG_DFL)


around(_hold_back, _let_come, _let_go)

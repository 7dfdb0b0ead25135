"""A termination signal becomes an exit that unwinds, for as long as a guard is open in the main thread.

SIGTERM's default action ends a process without running one `finally` or `__exit__`. Where that default is in force, the
first signal raises `SystemExit(128 + n)`, and a second one ends the process at once. A program's own handler is left
alone.

There are moments at which the exit can't be raised: while a finish is sent, which is completed first; in the code of an
event loop, which would lose the callback that it is about to run, and with it maybe the end of a task; around a fork,
where Python drops it. Then it is raised at the next occasion: by the loop, by a guard, or when the signal comes again,
which `remind` sees to. Raised or not, it is asked for until a guard has seen it leave: something may have swallowed it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from anymate_guard._process.fork import Taken, around, forking

Came = tuple[int, float]  # a signal, and when it came

_NUMBERS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)]
_TWICE = 0.5  # seconds within which the same signal may come twice

_holds = 0  # open guards that asked for the signals
_taken: list[int] = []  # the signals we handle now
_came: Came = (0, 0.0)  # the first one
_exit: SystemExit | None = None  # what it asks for
_raised = False  # whether that was raised
_seen = False  # whether a guard was left with it
_reminding = False  # whether the next signal is but a reminder
_deferring = False  # while a finish is sent


def hold() -> bool:
    """Take the signals that have their default action; True if `release` is owed. Does nothing off the main thread."""
    global _holds
    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        for number in _NUMBERS if _holds == 0 else ():
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _unwind)
                _taken.append(number)
    except ValueError:  # another program runs Python, before 3.13, and this thread is the main one for `threading` only
        return False
    _holds += 1
    return True


def release() -> None:
    """Put the signals back when the last guard that held them is left."""
    global _holds, _exit, _raised, _seen
    _holds -= 1
    if _holds == 0 and threading.current_thread() is threading.main_thread():
        if _seen:
            _exit, _raised, _seen = None, False, False
        _give_back()


def raised(error: BaseException | None) -> bool:
    """Whether this is the exit that a signal raised, and not one of the body's own."""
    return error is not None and error is _exit


def saw(error: BaseException | None) -> None:
    """Note how a guard is left."""
    global _seen
    if raised(error):
        _seen = True


def let_pass(error: Exception) -> None:
    """Raise an exception again that came out of a handler of the program: an interruption, and no trouble of a call.

    A time limit, mostly: the usual one, of `signal.alarm`, raises TimeoutError, which a slow network raises, too.
    """
    if threading.current_thread() is threading.main_thread():
        handlers = {_code(signal.getsignal(number)) for number in signal.valid_signals()}
        if any(frame.f_code in handlers for frame, _ in traceback.walk_tb(error.__traceback__)):
            raise error


def _code(handler: object) -> object:
    """The code of a function or method, of a `functools.partial` of one, or of an object that can be called."""
    called = getattr(handler, "func", handler)
    return getattr(called, "__code__", getattr(getattr(called, "__call__", None), "__code__", None))  # noqa: B004


@contextmanager
def deferred() -> Iterator[None]:
    """Let a first signal wait until the block is done; a second one still ends the process at once.

    Does nothing off the main thread, where no signal is raised.
    """
    global _deferring
    if _deferring or threading.current_thread() is not threading.main_thread():
        yield
        return
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
        _raise_pending()


def raise_asked() -> None:
    """Raise the exit that a signal asked for, unless a guard has seen it leave."""
    global _raised
    if _exit is not None and not _seen:
        _raised = True
        raise _exit


def _raise_pending() -> None:
    """Raise the exit that a signal asked for, if that could not be done when it came."""
    if not _raised:
        raise_asked()


def remind() -> bool:
    """From another thread, now and then: let the main thread try again to raise an exit; whether that was needed."""
    global _reminding
    if _exit is None or _raised or _deferring:
        return False
    _reminding = True
    if sys.platform == "win32":
        signal.raise_signal(_came[0])
    else:  # so that it interrupts what the main thread waits for
        signal.pthread_kill(threading.main_thread().ident or 0, _came[0])
    return True


def _unwind(number: int, frame: FrameType | None) -> None:
    global _came, _exit, _raised, _seen, _reminding
    reminded, _reminding = _reminding, False
    if not reminded:
        same = number if _deferring else _came[0]  # another one ends at once what is being finished, not the body
        if _exit is not None and is_the_same(same, _came):
            return
        if _holds == 0 or _exit is not None:
            end_at_once(number)
        _came, _exit, _raised, _seen = (number, time.monotonic()), SystemExit(128 + number), False, False
    if _deferring or forking():
        return
    if _interrupts_a_loop(frame):
        import asyncio

        asyncio.get_running_loop().call_soon_threadsafe(_raise_pending)
    else:
        _raise_pending()


def is_the_same(number: int, came: Came) -> bool:
    """Whether a signal is the one that came a moment ago: supervisors send it to a process, and to its group."""
    return number == came[0] and time.monotonic() - came[1] < _TWICE


def end_at_once(number: int) -> None:
    """End the process by a signal."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    os._exit(128 + number)  # the kernel drops the default action for process 1


def _interrupts_a_loop(frame: FrameType | None) -> bool:
    """Whether an event loop's own code was interrupted, and not what it runs for the program."""
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in {"asyncio", "selectors"}:
        if frame.f_code.co_name == "_run_once":
            return True
        frame = frame.f_back
    return False


def _hold_back(blocked: Taken) -> None:
    """Let signals wait while a process forks: Python forgets those that reach the child before it runs."""
    if sys.platform != "win32" and _taken:
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, _taken))


def _let_come(blocked: Taken) -> None:
    if sys.platform != "win32":
        while blocked:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked.pop())


def _let_go(blocked: Taken) -> None:
    """In a forked child: the guards are its parent's, so its signals get their default action back."""
    global _holds, _exit, _raised, _seen, _reminding, _deferring
    _holds, _exit, _raised, _seen, _reminding, _deferring = 0, None, False, False, False, False
    _give_back()
    _let_come(blocked)


def _give_back() -> None:
    while _taken:
        number = _taken.pop()
        if signal.getsignal(number) is _unwind:  # else the program installed its own meanwhile
            signal.signal(number, signal.SIG_DFL)


around(_hold_back, _let_come, _let_go)

"""Our locks are not held by who was interrupted while taking them."""

from __future__ import annotations

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from types import CodeType
from typing import Any

from anymate_guard._process.locks import TakenAtOnce

from .test_interrupts import MONITORING


class Interruption:
    """Ctrl-C where Python looks for signals the next time, and again each time that it looks."""

    def __init__(self, number: int, functions: list[CodeType]) -> None:
        self.hits = 0
        self._left = number
        self._functions = functions

    def __call__(self, code: CodeType, *_: object) -> None:
        """Python looks for signals."""
        if code in self._functions:
            self._left -= 1
            if self._left <= 0:
                self.hits += 1
                raise KeyboardInterrupt


def take(lock: Any) -> None:
    """Take a lock, and give it back."""
    with lock:
        pass


@MONITORING
def test_ctrl_c_while_a_lock_is_taken() -> None:
    """Ctrl-C again and again while a lock is taken leaves it to other threads, wherever it comes first."""
    monitoring: Any = vars(sys)["monitoring"]
    tool, events = monitoring.PROFILER_ID, monitoring.events
    monitoring.use_tool_id(tool, "Ctrl-C")
    with ExitStack() as stack:
        stack.callback(monitoring.free_tool_id, tool)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        for number in itertools.count(1):
            lock: Any = TakenAtOnce()
            interruption = Interruption(number, [take.__code__, TakenAtOnce.__enter__.__code__])
            for event in (events.PY_START, events.C_RETURN):
                monitoring.register_callback(tool, event, interruption)
            with suppress(KeyboardInterrupt):
                monitoring.set_events(tool, events.PY_START | events.CALL)
                take(lock)
            monitoring.set_events(tool, events.NO_EVENTS)
            assert pool.submit(TakenAtOnce.acquire, lock, blocking=False).result() is True, number
            if not interruption.hits:
                break
    assert number > 3

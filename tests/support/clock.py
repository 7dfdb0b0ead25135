"""A clock that stands still, and that tests put forward instead of waiting."""

from __future__ import annotations

import threading
import time


class Clock:
    """The monotonic clock and the time of day; the thread that made it puts it forward by sleeping.

    Attributes:
        ahead: By how many seconds it was put forward.
        sleeps: How long was slept, each time.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        self.sleeps: list[float] = []
        self._began = time.monotonic(), time.time()
        self._sleep, self._thread = time.sleep, threading.get_ident()

    def monotonic(self) -> float:
        """Give the monotonic time."""
        return self._began[0] + self.ahead

    def time(self) -> float:
        """Give the time of day."""
        return self._began[1] + self.ahead

    def sleep(self, seconds: float) -> None:
        """Put the clock forward; other threads, such as those of tests before, really sleep."""
        if threading.get_ident() != self._thread:
            self._sleep(seconds)
            return
        self.sleeps.append(seconds)
        self.ahead += seconds

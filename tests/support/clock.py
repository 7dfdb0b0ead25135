"""A clock that stands still, and that tests put forward instead of waiting."""

from __future__ import annotations

import time


class Clock:
    """The monotonic clock and the time of day; who sleeps by it puts it forward.

    Attributes:
        ahead: By how many seconds it was put forward.
        sleeps: How long was slept, each time.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        self.sleeps: list[float] = []
        self._began = time.monotonic(), time.time()

    def monotonic(self) -> float:
        """Give the monotonic time."""
        return self._began[0] + self.ahead

    def time(self) -> float:
        """Give the time of day."""
        return self._began[1] + self.ahead

    def sleep(self, seconds: float) -> None:
        """Put the clock forward."""
        self.sleeps.append(seconds)
        self.ahead += seconds

"""How long entering or leaving a guard may take in all, and how waits in it vary."""

from __future__ import annotations

import random
import time
from typing import NamedTuple

chance = random.SystemRandom()  # not the bot's, which may have seeded it, so that many bots would wait in step


class Deadline(NamedTuple):
    """A point of the monotonic clock, and whether calls may be tried again until then.

    Attributes:
        at: Monotonic time of the end, in seconds.
        retry: False for one try, while Anymate is known to be unreachable.
    """

    at: float
    retry: bool = True

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds until the end, negative after it."""
        return self.at - time.monotonic()

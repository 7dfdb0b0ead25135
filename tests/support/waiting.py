"""How long tests wait: generously, as what is tested is never how fast the machine is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from time import monotonic, sleep  # not what a test puts in their place
from typing import TypeVar

T = TypeVar("T")

LONGEST = 60.0  # seconds: what has not come by then never will
IN_TIME = 30.0  # seconds that a deadline of a few may be late on a busy machine; without it a test would take longer
POLL = 0.01  # seconds between two looks


def until(look: Callable[[], T]) -> T:
    """Look again and again until there is something to see, and give it."""
    end = monotonic() + LONGEST
    while not (seen := look()):
        assert monotonic() < end, "it never came to be"
        sleep(POLL)
    return seen


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Fail when the block is not over for long after its deadline of a few seconds."""
    begun = monotonic()
    yield
    assert monotonic() - begun < IN_TIME

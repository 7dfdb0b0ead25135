"""Our locks are not held by who was interrupted while taking them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from anymate_guard._process.locks import GivenBack


@pytest.mark.parametrize("taken", [False, True], ids=["before it is taken", "after it was taken"])
def test_ctrl_c_while_a_lock_is_taken(taken: bool) -> None:
    """Ctrl-C while a lock is taken goes on, and leaves the lock to other threads."""

    class Interrupted(GivenBack):
        def acquire(self) -> bool:
            """Take it, perhaps, and be interrupted."""
            if taken:
                super().acquire()
            raise KeyboardInterrupt

    lock: Any = Interrupted()
    with pytest.raises(KeyboardInterrupt), lock:
        pass
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(GivenBack.acquire, lock, blocking=False).result() is True

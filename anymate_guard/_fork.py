"""What a forked child must do over: locks, connections and files that belong to its parent."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_child(do: Callable[[], None]) -> None:
    """Call `do` in every child that this process forks; a platform without fork needs nothing."""
    getattr(os, "register_at_fork", lambda **_: None)(after_in_child=do)

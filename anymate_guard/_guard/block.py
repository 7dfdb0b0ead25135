"""Sees that a block is left: Python may be interrupted before the first line of `__exit__` has run."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anymate_guard._guard.use import Use

_local = threading.local()


class Leaving:
    """An `__exit__` or `__aexit__` that notices when it is gone without having been called.

    `with` takes it from the guard before it enters, and holds it for as long as the block runs. So when it is deleted,
    the block is over, even if an interruption came before any of our code.

    Args:
        function: What leaving does; it gets what `with` held, too.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __get__(self, guard: Any, owner: type) -> Any:
        if guard is None:
            return lambda guard, *error: self._function(guard, None, *error)
        held = Held(guard, self._function)
        _local.latest = weakref.ref(held)
        return held

    @staticmethod
    def expect(guard: Any, use: Use) -> None:
        """Let the use end with the block that this thread enters just now, with this guard."""
        held = getattr(_local, "latest", lambda: None)()
        if held is not None and held.guard is guard and held.use is None:
            held.use, held.hold = use, use.place.hold()


class Held:
    """What `with` holds.

    Attributes:
        guard: The guard.
        use: The use that the block is; None if it was not entered by `with`.
        hold: What makes its place a held one.
    """

    use: Use | None = None
    hold: memoryview | None = None

    def __init__(self, guard: Any, function: Callable[..., Any]) -> None:
        self.guard = guard
        self._function = function

    def __call__(self, *error: Any) -> Any:
        return self._function(self.guard, self, *error)

    def __del__(self) -> None:
        if self.use is not None:
            self.use.close()

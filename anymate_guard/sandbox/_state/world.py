"""Everything one sandbox holds."""

from __future__ import annotations

from collections.abc import Callable

from anymate_guard.sandbox._journal import Journal
from anymate_guard.sandbox._state.faults import Alarm, Faults
from anymate_guard.sandbox._state.state import State
from anymate_guard.sandbox._state.tokens import Tokens
from anymate_guard.sandbox._state.traffic import Traffic


class World:
    """The state of Anymate, and what the sandbox adds to it: faults to come, requests seen, a journal to show."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.state = State(clock)
        self.tokens = Tokens(clock)
        self.faults = Faults()
        self.traffic = Traffic()
        self.alarm = Alarm()
        self.journal: Journal | None = None

    def end_faults(self) -> None:
        """Forget the faults still to come and wake hanging requests."""
        self.faults.reset()
        self.alarm.ring()

    def reset(self) -> None:
        """Forget everything and wake hanging requests; tokens stay good, for clients that live on."""
        self.faults.reset()
        self.state.reset()
        self.tokens.reset()
        self.traffic.reset()
        self.alarm.ring()

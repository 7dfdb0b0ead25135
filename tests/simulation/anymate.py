"""A model of Anymate: one open run for each process, resumed by StartRun, closed by FinishRun."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from anymate_guard import ApiError


@dataclass(eq=False)
class Run:
    """A run as Anymate has it; `credited` is None until it is finished."""

    run_id: int
    process_key: str
    credited: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is not finished yet."""
        return self.credited is None


@dataclass
class Anymate:
    """All runs, and what is still on its way here."""

    runs: dict[int, Run] = field(default_factory=dict)
    late: list[tuple[str, Callable[[], None]]] = field(default_factory=list)

    def start(self, process_key: str) -> int:
        """StartRun."""
        for run in self.runs.values():
            if run.process_key == process_key and run.is_open:
                return run.run_id
        run = Run(100 + len(self.runs), process_key)
        self.runs[run.run_id] = run
        return run.run_id

    def finish(self, run_id: int, entries: int | None) -> None:
        """FinishRun."""
        run = self.runs.get(run_id)
        if run is None or not run.is_open:
            raise ApiError("FinishRun", 200, "succeeded is false: the run is not open", said_no=True)
        run.credited = entries or 0

    @property
    def credited(self) -> int:
        """All that was credited."""
        return sum(run.credited or 0 for run in self.runs.values())

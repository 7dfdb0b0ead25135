"""What Anymate keeps: processes with their settings, runs and tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from typing import Any

from anymate_guard.sandbox._state.kpi import Credit, Defaults, Overrides
from anymate_guard.sandbox._values import iso
from anymate_guard.sandbox._views import OkToRunView, ProcessView, RunView

DEFAULT_SECONDS_SAVED = 60


@dataclass
class Run:
    """One working session of a mate on a process."""

    process_key: str
    run_id: int
    started_at: float
    finished_at: float | None = None
    overrides: Overrides = field(default_factory=Overrides)
    credit: Credit = field(default_factory=Credit)

    def view(self) -> RunView:
        """Return the run as the control side shows it; credit is logged when a run ends, not before."""
        finished = self.finished_at is not None
        return {
            "processKey": self.process_key,
            "runId": self.run_id,
            "finished": finished,
            "overwriteEntries": self.overrides.entries,
            "overwriteSecondsSaved": self.overrides.seconds,
            "creditedEntries": self.credit.entries if finished else None,
            "creditedSecondsSaved": self.credit.seconds if finished else None,
            "startedAt": iso(self.started_at),
            "finishedAt": None if self.finished_at is None else iso(self.finished_at),
        }


@dataclass
class Task:
    """One piece of work; `place` orders tasks that became active at the same time."""

    process_key: str
    task_id: int
    fields: dict[str, object]
    active_from: float
    place: int
    ready: bool = True
    run: Run | None = None
    reason: str = ""

    def take(self, run: Run) -> dict[str, Any]:
        """Lock the task for a run and return it the way TakeNext does."""
        self.ready, self.run = False, run
        return {
            **self.fields,
            "taskId": self.task_id,
            "reason": self.reason,
            "runId": run.run_id,
            "processKey": self.process_key,
        }


@dataclass(frozen=True)
class Settings:
    """What a user sets up for a process."""

    stopped: bool = False
    blocked_date: date | None = None
    defaults: Defaults = field(default_factory=lambda: Defaults(DEFAULT_SECONDS_SAVED))
    tasks_enabled: bool = False


@dataclass
class Process:
    """One unit that is automated, with at most one ongoing run."""

    key: str
    settings: Settings = field(default_factory=Settings)
    failure: str | None = None
    run: Run | None = None
    tasks: list[Task] = field(default_factory=list)

    def queue(self, now: float) -> list[Task]:
        """Return the tasks that may be taken now, in order."""
        ready = (task for task in self.tasks if task.ready and task.active_from <= now)
        return sorted(ready, key=lambda task: (task.active_from, task.place))

    def gate(self, now: float) -> OkToRunView:
        """Return whether work would be welcome now; the calendar is kept in UTC."""
        settings = self.settings
        gate_open = not settings.stopped
        not_blocked = settings.blocked_date != datetime.fromtimestamp(now, timezone.utc).date()
        tasks_available = settings.tasks_enabled and bool(self.queue(now))
        return {
            "gateOpen": gate_open,
            "tasksAvailable": tasks_available,
            "notBlockedDate": not_blocked,
            "okToRun": gate_open and not_blocked and (tasks_available or not settings.tasks_enabled),
        }

    def finish(self, run: Run, now: float, overrides: Overrides) -> None:
        """End the ongoing run and credit it, unless that was done task by task."""
        run.finished_at, run.overrides, self.run = now, overrides, None
        if not self.settings.tasks_enabled:
            run.credit = self.settings.defaults.credit(overrides)

    def view(self, now: float) -> ProcessView:
        """Return the process as the control side shows it."""
        kpi, blocked = self.settings.defaults, self.settings.blocked_date
        simple = kpi.entries is None
        return {
            "processKey": self.key,
            "stopped": self.settings.stopped,
            "blockedDate": None if blocked is None else blocked.isoformat(),
            "secondsSaved": kpi.seconds if simple else None,
            "entries": kpi.entries,
            "secondsSavedPerEntry": None if simple else kpi.seconds,
            "tasksEnabled": self.settings.tasks_enabled,
            "readyTasks": len(self.queue(now)),
            "failure": self.failure,
            "runId": None if self.run is None else self.run.run_id,
        }

"""The rules by which calls change what Anymate keeps."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from anymate_guard.sandbox._state.kpi import Overrides
from anymate_guard.sandbox._state.model import Process, Run, Settings, Task
from anymate_guard.sandbox._values import iso
from anymate_guard.sandbox._views import FailureView, OkToRunView, ProcessView, RunView

IDS_A_SECOND = 10_000  # more than any sandbox gives, and 2**53, where JavaScript stops counting, is far


class State:
    """Everything Anymate remembers; each method is one atomic step.

    A process comes into being when its key is first mentioned. Numbers begin above those of any sandbox before and
    go on growing over a reset, so that a number from before can never mean something new.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._ids = itertools.count(int(time.time() * IDS_A_SECOND))
        self._places = itertools.count()
        self._clear()

    def _clear(self) -> None:
        self._processes: dict[str, Process] = {}
        self._runs: dict[int, Run] = {}
        self._tasks: dict[int, Task] = {}
        self._failures: list[FailureView] = []

    def reset(self) -> None:
        """Forget all processes, runs, tasks and failures."""
        with self._lock:
            self._clear()

    def start_run(self, key: str) -> int:
        """Start a run, or resume the ongoing one, whatever the gate and the calendar say."""
        with self._lock:
            process = self._process(key)
            process.failure = None
            return self._ongoing(process).run_id

    def finish_run(self, run_id: int, overrides: Overrides) -> str | None:
        """Finish a run; return None, or why it cannot be finished."""
        with self._lock:
            run = self._runs.get(run_id)
            if run is None:
                return f"Run {run_id} was not found."
            if run.finished_at is not None:
                return f"Run {run_id} is already finished."
            process = self._process(run.process_key)
            process.failure = None
            process.finish(run, self._clock(), overrides)
            return None

    def fail(self, key: str, message: str) -> None:
        """Put a process into failure and notify; an ongoing run stays open."""
        with self._lock:
            self._process(key).failure = message
            self._failures.append({"processKey": key, "message": message, "at": iso(self._clock())})

    def ok_to_run(self, key: str) -> OkToRunView:
        """Tell whether a run would be welcome; nothing follows from it."""
        with self._lock:
            return self._process(key).gate(self._clock())

    def create_tasks(self, key: str, tasks: list[tuple[dict[str, object], float | None]]) -> list[int]:
        """Put tasks, given as fields and activation time, into the queue; return their numbers."""
        with self._lock:
            process, now = self._process_with_tasks(key), self._clock()
            ids = []
            for fields, at in tasks:
                task = Task(key, next(self._ids), fields, now if at is None else at, next(self._places))
                self._tasks[task.task_id] = task
                process.tasks.append(task)
                ids.append(task.task_id)
            return ids

    def take_next(self, key: str) -> dict[str, Any]:
        """Take the first task into the ongoing run; an empty queue or a closed gate ends that run."""
        with self._lock:
            process, now = self._process_with_tasks(key), self._clock()
            process.failure = None
            if process.gate(now)["okToRun"]:
                return process.queue(now)[0].take(self._ongoing(process))
            run = process.run
            if run is not None:
                process.finish(run, now, Overrides())
            return {"taskId": -1, "reason": "", "runId": -1 if run is None else run.run_id, "processKey": key}

    def give_back(
        self, task_id: int, action: str, reason: str, overrides: Overrides, active_from: float | None
    ) -> str | None:
        """End the work on a task; return None, or why that cannot be.

        Assumed, since nothing public says so: of the ways to end it, only Solved is credited.
        """
        with self._lock:
            task = self._tasks.get(task_id)
            if task is None or task.run is None:
                return f"Task {task_id} is not being worked on."
            run, task.run, task.reason = task.run, None, reason
            if action == "Solved":
                run.credit += self._process(task.process_key).settings.defaults.credit(overrides)
            elif action == "Retry":
                task.active_from = self._clock() if active_from is None else active_from
                task.ready, task.place = True, next(self._places)
            return None

    def configure(self, key: str, change: Callable[[Settings], Settings]) -> ProcessView:
        """Change the settings of a process."""
        with self._lock:
            process = self._process(key)
            process.settings = change(process.settings)
            return process.view(self._clock())

    def key_of_run(self, run_id: int) -> str | None:
        """Return the process key of a run."""
        with self._lock:
            run = self._runs.get(run_id)
            return None if run is None else run.process_key

    def key_of_task(self, task_id: int) -> str | None:
        """Return the process key of a task."""
        with self._lock:
            task = self._tasks.get(task_id)
            return None if task is None else task.process_key

    def runs(self) -> list[RunView]:
        """Return all runs in the order they were started."""
        with self._lock:
            return [run.view() for run in self._runs.values()]

    def failures(self) -> list[FailureView]:
        """Return all reported failures in the order they came."""
        with self._lock:
            return [failure.copy() for failure in self._failures]

    def processes(self) -> list[ProcessView]:
        """Return all processes in the order they were first mentioned."""
        with self._lock:
            return [process.view(self._clock()) for process in self._processes.values()]

    def _process(self, key: str) -> Process:
        return self._processes.setdefault(key, Process(key))

    def _process_with_tasks(self, key: str) -> Process:
        process = self._process(key)
        process.settings = replace(process.settings, tasks_enabled=True)
        return process

    def _ongoing(self, process: Process) -> Run:
        if process.run is None:
            process.run = Run(process.key, next(self._ids), self._clock())
            self._runs[process.run.run_id] = process.run
        return process.run

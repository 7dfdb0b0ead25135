"""The shapes the control side and the API answer with."""

from __future__ import annotations

from typing import TypedDict


class RunView(TypedDict):
    """A run; what is credited is None until it is finished."""

    processKey: str
    runId: int
    finished: bool
    overwriteEntries: int | None
    overwriteSecondsSaved: int | None
    creditedEntries: int | None
    creditedSecondsSaved: int | None
    startedAt: str
    finishedAt: str | None


class FailureView(TypedDict):
    """A reported failure."""

    processKey: str
    message: str
    at: str


class ProcessView(TypedDict):
    """A process: `secondsSaved` in simple mode, `entries` and `secondsSavedPerEntry` in advanced mode."""

    processKey: str
    stopped: bool
    blockedDate: str | None
    secondsSaved: int | None
    entries: int | None
    secondsSavedPerEntry: int | None
    tasksEnabled: bool
    readyTasks: int
    failure: str | None
    runId: int | None


class RequestView(TypedDict):
    """A request.

    `status` is None while no answer has been given, and stays so when none ever is; `processKey` is None for a request
    that is about no process.
    """

    operation: str | None
    method: str
    path: str
    processKey: str | None
    body: str
    status: int | None
    answer: str
    connection: int
    at: str
    userAgent: str


class OkToRunView(TypedDict):
    """Whether a run would be welcome, and why."""

    gateOpen: bool
    tasksAvailable: bool
    notBlockedDate: bool
    okToRun: bool

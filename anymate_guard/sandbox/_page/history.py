"""Runs with their failures and the requests about them, worked out from the lists of the control side."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from anymate_guard.sandbox._views import FailureView, RequestView, RunView

Kind = Literal["failed", "running", "finished"]

AFTERWARDS = ("FinishRun", "Failure")  # calls that are about a run also when it has ended


@dataclass(frozen=True)
class Run:
    """A run, with its times as numbers, and the failures that were reported about it."""

    view: RunView
    began: float
    ended: float | None
    failures: list[FailureView] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        """How it went, as far as Anymate knows."""
        if self.ended is None:
            return "running"
        return "failed" if self.failures else "finished"


@dataclass(frozen=True)
class Sums:
    """What runs add up to."""

    runs: int
    entries: int
    seconds: int


def moment(iso: str) -> float:
    """Return a time of the control side in seconds since 1970."""
    return datetime.fromisoformat(iso).timestamp()


def by_process(views: Iterable[RunView], failures: Iterable[FailureView]) -> dict[str, list[Run]]:
    """Return the runs of each process; a failure belongs to the last run that its process had started by then."""
    runs: dict[str, list[Run]] = defaultdict(list)
    for view in views:
        ended = None if view["finishedAt"] is None else moment(view["finishedAt"])
        runs[view["processKey"]].append(Run(view, moment(view["startedAt"]), ended))
    for failure in failures:
        own = runs.get(failure["processKey"], [])
        before = bisect_right(own, moment(failure["at"]), key=lambda run: run.began)
        if before:
            own[before - 1].failures.append(failure)
    return dict(runs)


def requests_about(run: Run, neighbours: Sequence[Run], requests: Iterable[RequestView]) -> list[RequestView]:
    """Return the requests about a run, those included that came before it could be started.

    Args:
        run: Which run.
        neighbours: All runs of its process.
        requests: All requests.
    """
    place = neighbours.index(run)
    after = neighbours[place - 1].ended or 0 if place else 0
    end = math.inf if run.ended is None else run.ended
    before = neighbours[place + 1].began if place + 1 < len(neighbours) else math.inf
    own = (request for request in requests if request["processKey"] == run.view["processKey"])
    return [
        request
        for request in own
        if after < moment(request["at"]) <= (before if request["operation"] in AFTERWARDS else end)
    ]


def sums(runs: Iterable[Run]) -> Sums:
    """Return what is credited for runs in all."""
    views = [run.view for run in runs]
    return Sums(
        len(views),
        sum(view["creditedEntries"] or 0 for view in views),
        sum(view["creditedSecondsSaved"] or 0 for view in views),
    )

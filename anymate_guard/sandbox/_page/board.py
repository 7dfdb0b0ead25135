"""What the page shows, worked out from the lists of the control side; no markup."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from anymate_guard.sandbox._state.world import World
    from anymate_guard.sandbox._views import FailureView, ProcessView, RequestView, RunView

Kind = Literal["finished", "failed", "running"]

RUNS_ON_A_PAGE = 25
MOST_PROCESSES = 100
MOST_FAILURES = 10
MOST_REQUESTS = 40
SHORTEST_SPAN = 10.0  # seconds on the time line, so that one short run is not drawn as wide as the page
THINNEST = 0.5  # percent of the time line, so that a short run can be seen
NEAR = 0.1  # percent of the time line: runs this close are drawn as one bar


@dataclass(frozen=True)
class Query:
    """What the reader chose to see.

    Attributes:
        window: Seconds on the time line; None for all.
        process: Only the runs of this process; None for all.
        page: Which page of the runs, the newest first, from 1.
    """

    window: int | None = None
    process: str | None = None
    page: int = 1

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Query:
        """Read it from the fields of an address; what makes no sense there is left out."""
        window, page = (_number(fields.get(name, "")) for name in ("window", "page"))
        return cls(window or None, fields.get("process") or None, page or 1)

    def fields(self, **changes: object) -> dict[str, object]:
        """Return the fields of an address for this choice with something changed."""
        fields = {"window": self.window, "process": self.process, "page": self.page, **changes}
        return {name: value for name, value in fields.items() if value is not None and (name, value) != ("page", 1)}


class Span(NamedTuple):
    """The part of time that is shown."""

    start: float
    end: float

    def percent(self, moment: float) -> float:
        """Return where a moment is."""
        return 100 * (moment - self.start) / (self.end - self.start)


@dataclass(frozen=True)
class Run:
    """A run, with its times as numbers and whether a failure was reported about it."""

    view: RunView
    began: float
    ended: float | None
    failed: bool

    @property
    def kind(self) -> Kind:
        """How it went, as far as Anymate knows."""
        if self.ended is None:
            return "running"
        return "failed" if self.failed else "finished"


class Bar(NamedTuple):
    """One or more runs of a kind, drawn as one; in percent of the time line."""

    kind: Kind
    start: float
    width: float
    runs: int
    began: float
    ended: float | None


@dataclass(frozen=True)
class Sums:
    """What runs add up to."""

    runs: int = 0
    entries: int = 0
    seconds: int = 0


@dataclass(frozen=True)
class Process:
    """A process with its runs on the time line."""

    view: ProcessView
    sums: Sums
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Board:
    """All that is shown."""

    now: float
    query: Query
    span: Span | None
    sums: Sums
    running: int
    processes: Sequence[Process]
    more_processes: int
    runs: Sequence[Run]
    chosen_runs: int
    pages: int
    tasks_enabled: frozenset[str]
    failures: Sequence[FailureView]
    all_failures: int
    requests: Sequence[RequestView]
    faults: Sequence[dict[str, object]]


def board(world: World, query: Query) -> Board:
    """Look at the sandbox."""
    now = world.clock()
    processes, failures = world.state.processes(), world.state.failures()
    runs = _runs(world.state.runs(), failures)
    span = _span(runs, query.window, now)
    of_process = defaultdict(list)
    for run in runs:
        of_process[run.view["processKey"]].append(run)
    chosen = of_process[query.process] if query.process else runs
    pages = max(1, -(-len(chosen) // RUNS_ON_A_PAGE))
    newest = len(chosen) - RUNS_ON_A_PAGE * (min(query.page, pages) - 1)
    shown = processes[:MOST_PROCESSES]
    return Board(
        now=now,
        query=query,
        span=span,
        sums=_sums(runs),
        running=sum(run.ended is None for run in runs),
        processes=[
            Process(view, _sums(of_process[view["processKey"]]), _bars(of_process[view["processKey"]], span, now))
            for view in shown
        ],
        more_processes=len(processes) - len(shown),
        runs=chosen[max(0, newest - RUNS_ON_A_PAGE) : newest][::-1],
        chosen_runs=len(chosen),
        pages=pages,
        tasks_enabled=frozenset(view["processKey"] for view in processes if view["tasksEnabled"]),
        failures=failures[-MOST_FAILURES:][::-1],
        all_failures=len(failures),
        requests=world.traffic.list()[-MOST_REQUESTS:][::-1],
        faults=world.faults.list(),
    )


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


def moment(iso: str) -> float:
    """Return a time of the control side in seconds since 1970."""
    return datetime.fromisoformat(iso).timestamp()


def _runs(views: Sequence[RunView], failures: Iterable[FailureView]) -> list[Run]:
    """Return the runs; a failure belongs to the last run that its process had started by then."""
    runs = [Run(view, moment(view["startedAt"]), _ended(view), failed=False) for view in views]
    places = defaultdict(list)
    starts = defaultdict(list)
    for place, run in enumerate(runs):
        places[run.view["processKey"]].append(place)
        starts[run.view["processKey"]].append(run.began)
    for failure in failures:
        key = failure["processKey"]
        before = bisect_right(starts[key], moment(failure["at"]))
        if before:
            place = places[key][before - 1]
            runs[place] = replace(runs[place], failed=True)
    return runs


def _ended(view: RunView) -> float | None:
    return None if view["finishedAt"] is None else moment(view["finishedAt"])


def _span(runs: Sequence[Run], window: int | None, now: float) -> Span | None:
    """Return the time to show: up to now while something runs, else up to the last finish."""
    if not runs:
        return None
    end = max(now if run.ended is None else run.ended for run in runs)
    start = runs[0].began if window is None else max(runs[0].began, end - window)
    return Span(min(start, end - SHORTEST_SPAN), end)


def _sums(runs: Iterable[Run]) -> Sums:
    total: Counter[str] = Counter()
    for run in runs:
        total["runs"] += 1
        total["entries"] += run.view["creditedEntries"] or 0
        total["seconds"] += run.view["creditedSecondsSaved"] or 0
    return Sums(total["runs"], total["entries"], total["seconds"])


def _bars(runs: Iterable[Run], span: Span | None, now: float) -> list[Bar]:
    """Return what to draw: one bar for runs that could not be told apart, but never across kinds."""
    bars: dict[Kind, list[Bar]] = {"finished": [], "failed": [], "running": []}
    for run in runs:
        if span is None or (run.ended or now) < span.start:
            continue
        start = max(0.0, span.percent(run.began))
        width = max(THINNEST, span.percent(run.ended or now) - start)
        bar = Bar(run.kind, min(start, 100 - width), width, 1, run.began, run.ended)
        alike = bars[run.kind]
        if alike and bar.start - (alike[-1].start + alike[-1].width) < NEAR:
            last = alike.pop()
            bar = last._replace(width=bar.start + bar.width - last.start, runs=last.runs + 1, ended=run.ended)
        alike.append(bar)
    return [bar for alike in bars.values() for bar in alike]

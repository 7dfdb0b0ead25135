"""What the page shows, by what the reader chose to see; no markup."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from anymate_guard.sandbox._journal import JournalRow
from anymate_guard.sandbox._page.history import Run, Sums, by_process, requests_about, sums
from anymate_guard.sandbox._page.timeline import Bar, Bucket, Span, bars, buckets, span_of
from anymate_guard.sandbox._state.world import World
from anymate_guard.sandbox._views import FailureView, ProcessView, RequestView

T = TypeVar("T")

RUNS_ON_A_PAGE = 25
MOST_PROCESSES = 100
MOST_FAILURES = 10
MOST_REQUESTS = 25
MOST_ROWS = 20


@dataclass(frozen=True)
class Query:
    """What the reader chose to see; it stands in the address of the page.

    Attributes:
        window: Seconds on the time line; None for all.
        find: Only processes, and runs of processes, with this in their key.
        process: Only the runs of this process, and its settings; None for all.
        state: Only the runs in this state; None for all.
        page: Which page of the runs, the newest first, from 1.
        run: The run whose details are shown.
        tokens: 1 to show token calls too.
    """

    window: int | None = None
    find: str = ""
    process: str | None = None
    state: str | None = None
    page: int = 1
    run: int | None = None
    tokens: int | None = None

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Query:
        """Read it from the fields of an address; what makes no sense there is left out."""
        numbers = {name: _number(fields.get(name, "")) or None for name in ("window", "run", "tokens")}
        return cls(
            find=fields.get("find", ""),
            process=fields.get("process") or None,
            state=fields.get("state") or None,
            page=_number(fields.get("page", "")) or 1,
            **numbers,
        )

    def fields(self, **changes: object) -> dict[str, object]:
        """Return the fields of an address for this choice with something changed."""
        wanted = {**vars(self), **changes}
        return {name: value for name, value in wanted.items() if value != getattr(Query, name)}


@dataclass(frozen=True)
class Newest(Generic[T]):
    """The newest of many things, the newest first, and how many more there are."""

    shown: Sequence[T]
    more: int

    @classmethod
    def of(cls, things: Sequence[T], most: int) -> Newest[T]:
        """Take them from the end of a list."""
        return cls(things[-most:][::-1], max(0, len(things) - most))


@dataclass(frozen=True)
class Process:
    """A process with its runs on the time line."""

    view: ProcessView
    sums: Sums
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Runs:
    """A page of the runs.

    Attributes:
        shown: The runs, the newest first.
        skipped: How many newer ones are on the pages before.
        counts: How many runs there are in each state; those in all under None.
        page: Which page this is.
        pages: How many there are.
    """

    shown: Sequence[Run]
    skipped: int
    counts: Mapping[str | None, int]
    page: int
    pages: int


@dataclass(frozen=True)
class Board:
    """All that is shown; `details` has the requests about the run that was chosen."""

    now: float
    query: Query
    span: Span | None
    sums: Sums
    running: int
    chosen: Sums
    buckets: Sequence[Bucket]
    processes: Sequence[Process]
    more_processes: int
    runs: Runs
    details: Newest[RequestView]
    tasks_enabled: frozenset[str]
    failures: Newest[FailureView]
    all_failures: int
    requests: Newest[RequestView]
    faults: Sequence[dict[str, object]]
    journal: tuple[Sequence[JournalRow], int] | None


def board(world: World, query: Query) -> Board:
    """Look at the sandbox."""
    now, requests = world.clock(), world.traffic.list()
    processes, failures = world.state.processes(), world.state.failures()
    histories = by_process(world.state.runs(), failures)
    runs = sorted((run for history in histories.values() for run in history), key=lambda run: run.began)
    chosen = [run for run in runs if _wanted(run.view["processKey"], query)]
    span = span_of(runs, query.window, now)
    found = sorted((view for view in processes if _found(view["processKey"], query)), key=_rank)
    return Board(
        now=now,
        query=query,
        span=span,
        sums=sums(runs),
        running=sum(run.ended is None for run in runs),
        chosen=sums(chosen),
        buckets=[] if span is None else buckets(chosen, span),
        processes=[_process(view, histories, span, now) for view in found[:MOST_PROCESSES]],
        more_processes=max(0, len(found) - MOST_PROCESSES),
        runs=_runs(chosen, query),
        details=_details(histories, query, requests),
        tasks_enabled=frozenset(view["processKey"] for view in processes if view["tasksEnabled"]),
        failures=Newest.of(failures, MOST_FAILURES),
        all_failures=len(failures),
        requests=Newest.of([one for one in requests if query.tokens or one["operation"] != "token"], MOST_REQUESTS),
        faults=world.faults.list(),
        journal=None if world.journal is None else world.journal.rows(MOST_ROWS),
    )


def _number(text: str) -> int:
    return int(text) if re.fullmatch("[0-9]{1,16}", text) else 0


def _found(key: str, query: Query) -> bool:
    return query.find.casefold() in key.casefold()


def _wanted(key: str, query: Query) -> bool:
    return _found(key, query) and query.process in (None, key)


def _rank(view: ProcessView) -> tuple[bool, bool, str, str]:
    """Order processes: failed ones first, then running ones, each by name."""
    key = view["processKey"]
    return view["failure"] is None, view["runId"] is None, key.casefold(), key


def _process(view: ProcessView, histories: Mapping[str, Sequence[Run]], span: Span | None, now: float) -> Process:
    runs = histories.get(view["processKey"], ())
    return Process(view, sums(runs), [] if span is None else bars(runs, span, now))


def _runs(runs: Sequence[Run], query: Query) -> Runs:
    in_state = [run for run in runs if query.state in (None, run.kind)]
    pages = max(1, -(-len(in_state) // RUNS_ON_A_PAGE))
    page = min(query.page, pages)
    skipped = RUNS_ON_A_PAGE * (page - 1)
    shown = in_state[::-1][skipped : skipped + RUNS_ON_A_PAGE]
    return Runs(shown, skipped, {None: len(runs), **Counter(run.kind for run in runs)}, page, pages)


def _details(
    histories: Mapping[str, Sequence[Run]], query: Query, requests: Sequence[RequestView]
) -> Newest[RequestView]:
    for history in histories.values():
        for run in history:
            if run.view["runId"] == query.run:
                return Newest.of(requests_about(run, history, requests), MOST_REQUESTS)
    return Newest((), 0)

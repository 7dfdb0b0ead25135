"""Where runs lie in time: bars on a line for each process, and what was credited in each part of the time shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from anymate_guard.sandbox._page.history import Kind, Run, Sums, sums

SHORTEST_SPAN = 10.0  # seconds, so that one short run is not drawn as wide as the page
THINNEST = 0.5  # percent, so that a short run can be seen
NEAR = 0.1  # percent: runs this close are drawn as one bar
BUCKETS = 40


class Span(NamedTuple):
    """The part of time that is shown."""

    start: float
    end: float

    def percent(self, moment: float) -> float:
        """Return where a moment is."""
        return 100 * (moment - self.start) / (self.end - self.start)


class Bar(NamedTuple):
    """One or more runs of a kind, drawn as one; in percent of the time line."""

    kind: Kind
    start: float
    width: float
    runs: int
    began: float
    ended: float | None


class Bucket(NamedTuple):
    """What was credited between two moments."""

    start: float
    end: float
    sums: Sums


def span_of(runs: Sequence[Run], window: int | None, now: float) -> Span | None:
    """Return the time to show: up to now while something runs, else up to the last finish.

    Args:
        runs: What is to be seen; without any there is nothing to show.
        window: How many seconds, at most; None for all.
        now: The time.
    """
    if not runs:
        return None
    first = min(run.began for run in runs)
    end = max(now if run.ended is None else run.ended for run in runs)
    start = first if window is None else max(first, end - window)
    return Span(min(start, end - SHORTEST_SPAN), end)


def bars(runs: Iterable[Run], span: Span, now: float) -> list[Bar]:
    """Return what to draw: one bar for runs that could not be told apart, but never across kinds."""
    drawn: dict[Kind, list[Bar]] = {"finished": [], "failed": [], "running": []}
    for run in runs:
        if (run.ended or now) < span.start:
            continue
        start = max(0.0, span.percent(run.began))
        width = max(THINNEST, span.percent(run.ended or now) - start)
        bar = Bar(run.kind, min(start, 100 - width), width, 1, run.began, run.ended)
        alike = drawn[run.kind]
        if alike and bar.start - (alike[-1].start + alike[-1].width) < NEAR:
            last = alike.pop()
            bar = last._replace(width=bar.start + bar.width - last.start, runs=last.runs + 1, ended=run.ended)
        alike.append(bar)
    return [bar for alike in drawn.values() for bar in alike]


def buckets(runs: Iterable[Run], span: Span) -> list[Bucket]:
    """Return what was credited in each part of the time shown, by when runs ended; all parts are equally long."""
    within: list[list[Run]] = [[] for _ in range(BUCKETS)]
    for run in runs:
        if run.ended is not None and run.ended >= span.start:
            place = int(span.percent(run.ended) * BUCKETS / 100)
            within[min(place, BUCKETS - 1)].append(run)
    length = (span.end - span.start) / BUCKETS
    return [
        Bucket(span.start + place * length, span.start + (place + 1) * length, sums(part))
        for place, part in enumerate(within)
    ]

"""The page's upper part as HTML: sums, charts, and the processes with their settings."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlencode

from markupsafe import Markup

from anymate_guard.sandbox._page import markup
from anymate_guard.sandbox._page.board import Board, Process
from anymate_guard.sandbox._page.history import Kind, Sums
from anymate_guard.sandbox._page.markup import chip, fragment, join
from anymate_guard.sandbox._page.timeline import Bar, Span
from anymate_guard.sandbox._views import ProcessView

WINDOWS = {None: "All", 3600: "1 hour", 600: "10 minutes", 60: "1 minute"}
OUTCOMES: dict[Kind, str] = {"running": "Running", "finished": "Finished", "failed": "Failed"}
SELECTED = Markup(" selected")


def href(board: Board, **changes: object) -> str:
    """Return where the page shows the same with something changed."""
    return "?" + urlencode(board.query.fields(**changes))


def summary(board: Board) -> Markup:
    """Return the sums over everything."""
    sums = board.sums
    return fragment(
        "summary",
        runs=markup.number(sums.runs),
        running=markup.number(board.running),
        entries=markup.number(sums.entries),
        saved=markup.duration(sums.seconds),
        failures=markup.number(board.all_failures),
    )


def charts(board: Board) -> Markup:
    """Return what was saved and done over time."""
    if board.span is None:
        return Markup()
    links = join(
        markup.link(href(board, window=window), name, current=board.query.window == window)
        for window, name in WINDOWS.items()
    )
    return fragment(
        "charts",
        title=f"{board.query.process} over time" if board.query.process else "Over time",
        windows=fragment("nav", name="Time shown", links=links),
        charts=_chart(board, board.span, "Time saved", lambda sums: sums.seconds, markup.duration)
        + _chart(board, board.span, "Entries", lambda sums: sums.entries, markup.number),
    )


def _chart(board: Board, span: Span, name: str, value: Callable[[Sums], int], written: Callable[[int], str]) -> Markup:
    values = [value(bucket.sums) for bucket in board.buckets]
    most, width = max(values), 100 / len(values)
    columns = [
        fragment(
            "column",
            x=place * width,
            width=width * 0.8,
            y=100 - 100 * number / most,
            height=100 * number / most,
            text=f"{_period(bucket.start, bucket.end, board.now)}: {written(number)}",
        )
        for place, (bucket, number) in enumerate(zip(board.buckets, values, strict=True))
        if number
    ]
    return fragment(
        "chart",
        name=name,
        total=written(sum(values)),
        most=written(most),
        part=markup.duration(board.buckets[0].end - board.buckets[0].start),
        bars=join(columns),
        ticks=_ticks(span, board.now),
    )


def _period(start: float, end: float, now: float) -> str:
    return f"{markup.clock(start, now)} to {markup.clock(end, now)}"


def _ticks(span: Span, now: float) -> Markup:
    return join(markup.time(moment, now) for moment in span)


def processes(board: Board) -> Markup:
    """Return the processes, one line each."""
    if not board.processes:
        if board.query.find:
            return markup.nothing(f"No process has “{board.query.find}” in its name.")
        return markup.nothing("No bot has called yet. “Point a bot here”, above, has the settings it needs.")
    rows = join(_process(process, board) for process in board.processes)
    ticks = Markup() if board.span is None else _ticks(board.span, board.now)
    return fragment("processes", ticks=ticks, rows=rows) + markup.more(board.more_processes)


def _process(process: Process, board: Board) -> Markup:
    view, sums = process.view, process.sums
    key = view["processKey"]
    chosen = board.query.process == key
    stop = {"stopped": str(view["stopped"]).lower(), "verb": "Resume" if view["stopped"] else "Stop"}
    return fragment(
        "process",
        id=quote(key, safe=""),
        key=key,
        href=href(board, process=None if chosen else key, page=1),
        open=str(chosen).lower(),
        states=join(chip(kind, text) for kind, text in _states(view)),
        bars=join(_bar(bar, board.now) for bar in process.bars),
        runs=markup.number(sums.runs),
        entries=markup.number(sums.entries),
        saved=markup.duration(sums.seconds),
        details=_settings(view, stop) if chosen else "",
        **stop,
    )


def _states(view: ProcessView) -> list[tuple[str, str]]:
    states = [("failed", "Failed")] if view["failure"] is not None else []
    if view["runId"] is not None:
        states.append(("running", "Running"))
    if view["stopped"]:
        states.append(("stopped", "Stopped"))
    if view["blockedDate"] is not None:
        states.append(("stopped", f"Blocked {view['blockedDate']}"))
    if view["tasksEnabled"]:
        states.append(("idle", f"{view['readyTasks']} task{'' if view['readyTasks'] == 1 else 's'}"))
    return states or [("idle", "Idle")]


def _bar(bar: Bar, now: float) -> Markup:
    until = "until now"
    if bar.ended is not None:
        until = f"to {markup.clock(bar.ended, now)}, {markup.duration(bar.ended - bar.began)}"
    many = f"{bar.runs} runs: " if bar.runs > 1 else ""
    text = f"{many}{OUTCOMES[bar.kind]}, {markup.clock(bar.began, now)} {until}"
    return fragment("bar", kind=bar.kind, x=bar.start, width=bar.width, text=text)


def _settings(view: ProcessView, stop: dict[str, str]) -> Markup:
    key, simple = view["processKey"], view["entries"] is None
    name = quote(key, safe="")
    failure = view["failure"]
    text = "" if failure is None else markup.folded(failure or "(no message)", f"{name}-failure")
    return fragment(
        "process-details",
        id=name,
        key=key,
        failure=fragment("failed", text=text) if text else "",
        simple=SELECTED if simple else "",
        advanced="" if simple else SELECTED,
        entries="1" if simple else view["entries"],
        seconds=view["secondsSaved"] if simple else view["secondsSavedPerEntry"],
        blocked=view["blockedDate"] or "",
        **stop,
    )

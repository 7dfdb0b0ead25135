"""The page's parts as HTML; everything that came from a bot is escaped by Markup.format."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from markupsafe import Markup
from werkzeug.http import HTTP_STATUS_CODES

from anymate_guard.sandbox._page.board import MOST_FAILURES, MOST_REQUESTS, RUNS_ON_A_PAGE, moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anymate_guard.sandbox._page.board import Bar, Board, Process, Run, Span, Sums
    from anymate_guard.sandbox._views import FailureView, ProcessView, RequestView, RunView

WINDOWS = {None: "All", 3600: "1 hour", 600: "10 minutes", 60: "1 minute"}
OUTCOMES = {"running": "Running", "finished": "Finished", "failed": "Failure reported"}
LONG_TEXT = 90
REDIRECTS = 300  # and above: answers that are no success
NOT_YET = "\N{EN DASH}"
TENTHS_BELOW = 10  # seconds

SUMMARY = Markup(
    '<dl class="sums"><div><dt>Runs</dt><dd>{}</dd></div><div><dt>Running</dt><dd>{}</dd></div>'
    "<div><dt>Entries</dt><dd>{}</dd></div><div><dt>Time saved</dt><dd>{}</dd></div>"
    "<div><dt>Failures</dt><dd>{}</dd></div></dl>"
)
NOTHING = Markup('<p class="nothing">{}</p>')
CHIP = Markup('<span class="chip {}">{}</span>')
PROCESS = Markup(
    '<li id="process-{place}"><div class="who"><h3><a data-view href="{href}">{key}</a></h3>'
    '<p class="chips">{chips}</p></div>'
    '<svg class="lane" role="img" aria-label="{lane}">{bars}</svg><p class="total">{total}</p>'
    '<button type="button" id="stop-{place}" data-process="{key}" data-stopped="{stopped}">{verb}'
    '<span class="unseen"> {key}</span></button>{failure}</li>'
)
BAR = Markup('<rect class="{}" x="{:.3f}%" width="{:.3f}%" height="100%"><title>{}</title></rect>')
PROCESSES = Markup('{}<ol class="processes">{}</ol>{}')
AXIS = Markup('<div class="axis"><nav aria-label="Time line">{}</nav><p class="ticks">{}</p></div>')
LINK = Markup('<a data-view href="{}"{}>{}</a>')
CURRENT = Markup(' aria-current="true"')
TIME = Markup('<time datetime="{}">{}</time>')
RUNS = Markup(
    '{}<table role="table" class="list"><caption class="unseen">Runs, the newest first</caption>'
    '<thead role="rowgroup"><tr role="row">{}</tr></thead><tbody role="rowgroup">{}</tbody></table>{}'
)
HEAD = Markup('<th role="columnheader" scope="col" class="{}">{}</th>')
ROW = Markup('<tr role="row" id="{}" class="{}">{}</tr>')
CELL = Markup('<td role="cell" class="{}" data-label="{}"><div>{}</div></td>')
TAG = Markup('{} <span class="tag">{}</span>')
PAGER = Markup('<nav class="pager" aria-label="Pages of runs">{}<span>{}</span>{}</nav>')
FAULTS = Markup('<ul>{}</ul><button type="button" id="end-faults">Let all calls through</button>')
FAULT = Markup("<li>{} of <b>{}</b>{}: {}</li>")
FAILURE = Markup('<li id="failure-{}"><p class="where"><b>{}</b> {}</p><p class="said">{}</p></li>')
CODE = Markup('<code class="text">{}</code>')
LONG = Markup('<details id="{}"><summary><code class="text">{}…</code></summary><code class="text">{}</code></details>')
REQUESTS = Markup(
    '<table role="table" class="list requests"><caption class="unseen">Requests, the newest first</caption>'
    '<thead role="rowgroup"><tr role="row">{}</tr></thead><tbody role="rowgroup">{}</tbody></table>{}'
)


def parts(board: Board) -> dict[str, Markup]:
    """Return the parts of the page that change, by the id of the element they go into."""
    return {
        "summary": _summary(board),
        "processes": _processes(board),
        "runs": _runs(board),
        "faults": _faults(board.faults),
        "failures": _failures(board),
        "requests": _requests(board),
    }


def exports(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the lines that point a bot here, by shell."""
    return {
        "bash": "\n".join(f"export {name}={value}" for name, value in environ.items()),
        "powershell": "\n".join(f'$env:{name} = "{value}"' for name, value in environ.items()),
    }


def _summary(board: Board) -> Markup:
    sums = board.sums
    return SUMMARY.format(
        _number(sums.runs),
        _number(board.running),
        _number(sums.entries),
        _duration(sums.seconds),
        board.all_failures,
    )


def _processes(board: Board) -> Markup:
    if not board.processes:
        return NOTHING.format("No bot has called yet. “Point a bot here”, above, has the settings it needs.")
    axis = Markup() if board.span is None else _axis(board, board.span)
    rows = _join(_process(process, place, board) for place, process in enumerate(board.processes))
    more = NOTHING.format(f"And {board.more_processes} more.") if board.more_processes else ""
    return PROCESSES.format(axis, rows, more)


def _axis(board: Board, span: Span) -> Markup:
    links = [
        LINK.format(_href(board, window=window), CURRENT if board.query.window == window else "", name)
        for window, name in WINDOWS.items()
    ]
    ticks = [span.start, (span.start + span.end) / 2, span.end]
    return AXIS.format(_join(links), _join(_time(tick, board.now) for tick in ticks))


def _process(process: Process, place: int, board: Board) -> Markup:
    view = process.view
    key, stopped = view["processKey"], view["stopped"]
    failure = view["failure"]
    return PROCESS.format(
        place=place,
        key=key,
        href=_href(board, process=key, page=1),
        chips=_join(CHIP.format(kind, text) for kind, text in _states(view)),
        lane=f"Time line of {key}: {_count(process.sums.runs, 'run')}",
        bars=_join(_bar(bar, board.now) for bar in process.bars),
        total=_total(process.sums),
        stopped="true" if stopped else "false",
        verb="Resume" if stopped else "Stop",
        failure=Markup('<p class="said">{}</p>').format(failure) if failure else "",
    )


def _states(view: ProcessView) -> list[tuple[str, str]]:
    states = [("running", "Running")] if view["runId"] is not None else []
    if view["stopped"]:
        states.append(("stopped", "Stopped"))
    if view["failure"] is not None:
        states.append(("failed", "Failed"))
    if view["blockedDate"] is not None:
        states.append(("stopped", f"Blocked on {view['blockedDate']}"))
    if view["tasksEnabled"]:
        states.append(("idle", _count(view["readyTasks"], "task")))
    return states or [("idle", "Idle")]


def _bar(bar: Bar, now: float) -> Markup:
    until = f"to {_clock(bar.ended, now)}, {_duration(bar.ended - bar.began)}" if bar.ended is not None else "until now"
    many = f"{bar.runs} runs: " if bar.runs > 1 else ""
    return BAR.format(bar.kind, bar.start, bar.width, f"{many}{OUTCOMES[bar.kind]}, {_clock(bar.began, now)} {until}")


def _total(sums: Sums) -> str:
    if not sums.runs:
        return "no runs"
    entries = "entry" if sums.entries == 1 else "entries"
    return f"{_count(sums.runs, 'run')}, {_number(sums.entries)} {entries}, {_duration(sums.seconds)} saved"


def _runs(board: Board) -> Markup:
    chosen = board.query.process
    only = Markup()
    if chosen:
        link = LINK.format(_href(board, process=None, page=1), "", "Show all")
        only = Markup('<p class="chosen">Only <b>{}</b>. {}</p>').format(chosen, link)
    if not board.runs:
        return only + NOTHING.format("No runs yet.")
    head = ("Process", "Started", "Duration", "Outcome", "Entries", "Time saved")
    rows = _join(_run(run, board, head) for run in board.runs)
    return RUNS.format(only, _head(head), rows, _pager(board))


def _run(run: Run, board: Board, head: tuple[str, ...]) -> Markup:
    view = run.view
    entries, seconds = _credit(view, by_task=view["processKey"] in board.tasks_enabled)
    name = Markup('{} <span class="number">{}</span>').format(view["processKey"], view["runId"])
    duration = _duration((board.now if run.ended is None else run.ended) - run.began)
    outcome = [CHIP.format(run.kind, OUTCOMES[run.kind])]
    if run.failed and run.kind == "running":
        outcome.append(CHIP.format("failed", OUTCOMES["failed"]))
    values = (name, _time(run.began, board.now), duration, _join(outcome), entries, seconds)
    cells = (CELL.format(_class(label), label, value) for label, value in zip(head, values, strict=True))
    return ROW.format(f"run-{view['runId']}", run.kind, _join(cells))


def _credit(view: RunView, *, by_task: bool) -> tuple[Markup | str, Markup | str]:
    """Return the credited entries and time, each with where it comes from."""
    entries, seconds = view["creditedEntries"], view["creditedSecondsSaved"]
    if entries is None or seconds is None:
        return NOT_YET, NOT_YET
    sources = ["override" if view["overwriteEntries"] is not None else "default"]
    if view["overwriteSecondsSaved"] is not None:
        sources.append("override")
    else:
        sources.append("by entries" if view["overwriteEntries"] is not None else "default")
    if by_task:
        sources = ["by task", "by task"]
    return TAG.format(_number(entries), sources[0]), TAG.format(_duration(seconds), sources[1])


def _pager(board: Board) -> Markup:
    page, pages = min(board.query.page, board.pages), board.pages
    if pages == 1:
        return Markup()
    newer = LINK.format(_href(board, page=page - 1), "", "Newer") if page > 1 else ""
    older = LINK.format(_href(board, page=page + 1), "", "Older") if page < pages else ""
    last = board.chosen_runs - RUNS_ON_A_PAGE * (page - 1)
    first = max(1, last - RUNS_ON_A_PAGE + 1)
    return PAGER.format(newer, f"{_number(last)} to {_number(first)} of {_number(board.chosen_runs)} runs", older)


def _faults(faults: Iterable[dict[str, object]]) -> Markup:
    rows = [
        FAULT.format(
            "Next call" if fault["times"] == 1 else f"Next {fault['times']} calls",
            "any operation" if fault["operation"] == "*" else fault["operation"],
            f" for {fault['processKey']}" if fault.get("processKey") else "",
            _fault(fault),
        )
        for fault in faults
    ]
    return FAULTS.format(_join(rows)) if rows else NOTHING.format("Nothing is set to fail.")


def _fault(fault: Mapping[str, object]) -> str:
    if "status" in fault:
        return _status(int(str(fault["status"])))
    if "reset" in fault:
        return f"reset {fault['reset']} it counts"
    return next((kind for kind in ("hang", "delay", "html") if kind in fault), "a made-up answer")


def _failures(board: Board) -> Markup:
    if not board.failures:
        return NOTHING.format("No failure was reported.")
    rows = [_failure(failure, board.all_failures - place, board.now) for place, failure in enumerate(board.failures)]
    hidden = board.all_failures - MOST_FAILURES
    more = NOTHING.format(f"And {hidden} before these.") if hidden > 0 else ""
    return Markup("<ul>{}</ul>{}").format(_join(rows), more)


def _failure(failure: FailureView, number: int, now: float) -> Markup:
    said = failure["message"] or "(no message)"
    return FAILURE.format(number, failure["processKey"], _time(moment(failure["at"]), now), said)


def _requests(board: Board) -> Markup:
    if not board.requests:
        return NOTHING.format("No request came yet.")
    head = ("Time", "Call", "Sent", "Answer", "Said")
    more = NOTHING.format(f"The latest {MOST_REQUESTS}.") if len(board.requests) == MOST_REQUESTS else ""
    rows = _join(_request(request, board, head) for request in board.requests)
    return REQUESTS.format(_head(head), rows, more)


def _request(request: RequestView, board: Board, head: tuple[str, ...]) -> Markup:
    number = f"request-{request['at']}-{request['connection']}"
    call = Markup('<b>{}</b> <code class="text">{} {}</code>').format(
        request["operation"] or "unknown", request["method"], request["path"]
    )
    status = request["status"]
    if status is None:
        answer = CHIP.format("failed", "No answer")
    else:
        answer = CHIP.format("finished" if status < REDIRECTS else "failed", _status(status))
    sent, said = _long(request["body"], f"{number}-sent"), _long(request["answer"], f"{number}-said")
    values = (_time(moment(request["at"]), board.now), call, sent, answer, said)
    cells = (CELL.format(_class(label), label, value) for label, value in zip(head, values, strict=True))
    return ROW.format(number, "", _join(cells))


def _status(status: int) -> str:
    return f"{status} {HTTP_STATUS_CODES.get(status, '')}".strip()


def _long(text: str, name: str) -> Markup:
    """Return a text, folded if it is long."""
    if len(text) <= LONG_TEXT:
        return CODE.format(text) if text else Markup()
    return LONG.format(name, text[:LONG_TEXT], text)


def _href(board: Board, **changes: object) -> str:
    return "?" + urlencode(board.query.fields(**changes))


def _join(pieces: Iterable[Markup]) -> Markup:
    return Markup("").join(pieces)


def _head(labels: Iterable[str]) -> Markup:
    return _join(HEAD.format(_class(label), label) for label in labels)


def _class(label: str) -> str:
    return label.lower().replace(" ", "-")


def _count(number: int, what: str) -> str:
    return f"{_number(number)} {what}{'' if number == 1 else 's'}"


def _number(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _duration(seconds: float) -> str:
    if seconds < TENTHS_BELOW:
        return f"{max(0.0, seconds):.1f} s".replace(".0 s", " s")
    minutes, seconds = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {seconds:02} s" if seconds else f"{minutes} min"
    return f"{_number(hours)} h {minutes:02} min" if minutes else f"{_number(hours)} h"


def _time(moment: float, now: float) -> Markup:
    iso = datetime.fromtimestamp(moment, timezone.utc).isoformat()
    return TIME.format(iso, _clock(moment, now))


def _clock(moment: float, now: float) -> str:
    """Return a time as it reads on this machine's clock, with its date unless that is today."""
    local, today = (datetime.fromtimestamp(when).astimezone() for when in (moment, now))
    return f"{local:%H:%M:%S}" if local.date() == today.date() else f"{local:%Y-%m-%d %H:%M:%S}"

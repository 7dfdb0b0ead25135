"""The runs as HTML, page by page, and the details of one."""

from __future__ import annotations

from markupsafe import Markup

from anymate_guard.sandbox._page import calls, markup
from anymate_guard.sandbox._page.board import RUNS_ON_A_PAGE, Board
from anymate_guard.sandbox._page.history import Run
from anymate_guard.sandbox._page.markup import NOT_YET, chip, fragment, join
from anymate_guard.sandbox._page.overview import OUTCOMES, href
from anymate_guard.sandbox._views import RunView


def runs(board: Board) -> Markup:
    """Return the runs that were chosen."""
    key = board.query.process
    title = f"Runs of {key}" if key else "Runs"
    return fragment("runs", title=title, states=_states(board) if board.runs.counts[None] else "", list=_list(board))


def _states(board: Board) -> Markup:
    names = {None: "All", "failed": "Failed", "running": "Running", "finished": "Finished"}
    links = [
        markup.link(
            href(board, state=state, page=1),
            f"{name} {markup.number(board.runs.counts.get(state, 0))}",
            current=board.query.state == state,
        )
        for state, name in names.items()
    ]
    if board.query.process:
        links.append(markup.link(href(board, process=None, page=1), "Those of all processes"))
    return fragment("nav", name="Runs shown", links=join(links))


def _list(board: Board) -> Markup:
    if not board.runs.shown:
        return markup.nothing("No such runs." if board.runs.counts[None] else "No runs yet.")
    rows = join(_run(run, board) for run in board.runs.shown)
    return fragment("run-list", rows=rows, pager=_pager(board))


def _run(run: Run, board: Board) -> Markup:
    view = run.view
    open_ = board.query.run == view["runId"]
    entries, saved = _credit(view, by_task=view["processKey"] in board.tasks_enabled)
    outcome = chip(run.kind, OUTCOMES[run.kind])
    if run.failures and run.kind == "running":
        outcome += chip("failed", OUTCOMES["failed"])
    return fragment(
        "run",
        id=view["runId"],
        kind=run.kind,
        key=view["processKey"],
        href=href(board, run=None if open_ else view["runId"]),
        open=str(open_).lower(),
        outcome=outcome,
        started=markup.time(run.began, board.now),
        took=markup.duration((board.now if run.ended is None else run.ended) - run.began),
        entries=entries,
        saved=saved,
        details=_details(run, board) if open_ else "",
    )


def _credit(view: RunView, *, by_task: bool) -> tuple[Markup, Markup]:
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
    return (
        fragment("credit", amount=markup.entries(entries), source=sources[0]),
        fragment("credit", amount=markup.saved(seconds), source=sources[1]),
    )


def _details(run: Run, board: Board) -> Markup:
    view = run.view
    name = f"run-{view['runId']}"
    failures = [
        fragment("failed", text=markup.folded(failure["message"] or "(no message)", f"{name}-{failure['at']}"))
        for failure in run.failures
    ]
    return fragment(
        "run-details",
        id=view["runId"],
        key=view["processKey"],
        started=markup.time(run.began, board.now),
        finished=NOT_YET if run.ended is None else markup.time(run.ended, board.now),
        entries=markup.entries(view["overwriteEntries"]),
        saved=markup.saved(view["overwriteSecondsSaved"]),
        failures=join(failures),
        requests=calls.requests(board.details, board.now, f"{name}-"),
    )


def _pager(board: Board) -> Markup:
    shown = board.runs
    if shown.pages == 1:
        return Markup()
    total = shown.counts.get(board.query.state, 0)
    last = min(shown.skipped + RUNS_ON_A_PAGE, total)
    return fragment(
        "pager",
        newer=markup.link(href(board, page=shown.page - 1), "Newer") if shown.page > 1 else "",
        range=f"{markup.number(shown.skipped + 1)} to {markup.number(last)} of {markup.number(total)} runs",
        older=markup.link(href(board, page=shown.page + 1), "Older") if shown.page < shown.pages else "",
    )

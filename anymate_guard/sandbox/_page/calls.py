"""The page's lower part as HTML: requests, failures, faults to come, and the journal of the machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from anymate_guard.sandbox._journal import JournalRow
from anymate_guard.sandbox._page import markup
from anymate_guard.sandbox._page.board import Newest
from anymate_guard.sandbox._page.history import moment
from anymate_guard.sandbox._page.markup import NOT_YET, chip, fragment, join
from anymate_guard.sandbox._views import FailureView, RequestView

REDIRECTS = 300  # and above: answers that are no success
ROW_CHIPS = {"open": "running", "owed": "stopped", "refused": "failed"}


def requests(newest: Newest[RequestView], now: float, prefix: str = "") -> Markup:
    """Return requests with their answers; the prefix tells the same request in two lists apart."""
    if not newest.shown:
        return markup.nothing("No request came yet.")
    rows = join(_request(request, now, prefix) for request in newest.shown)
    return fragment("requests", rows=rows, more=markup.more(newest.more))


def _request(request: RequestView, now: float, prefix: str) -> Markup:
    name, status = f"{prefix}request-{request['at']}-{request['connection']}", request["status"]
    good = status is not None and status < REDIRECTS
    return fragment(
        "request",
        id=name,
        time=markup.time(moment(request["at"]), now),
        operation=request["operation"] or "unknown",
        method=request["method"],
        path=request["path"],
        answer=chip("finished" if good else "failed", "No answer" if status is None else markup.status(status)),
        sent=_body("sent", request["body"], name),
        said=_body("said", request["answer"], name),
    )


def _body(what: str, text: str, name: str) -> Markup:
    return fragment("body", what=what, text=markup.folded(text, f"{name}-{what}")) if text else Markup()


def failures(newest: Newest[FailureView], total: int, now: float) -> Markup:
    """Return the failures that were reported."""
    if not newest.shown:
        return markup.nothing("No failure was reported.")
    rows = [
        fragment(
            "failure",
            id=number,
            key=failure["processKey"],
            time=markup.time(moment(failure["at"]), now),
            text=markup.folded(failure["message"] or "(no message)", f"failure-{number}-text"),
        )
        for number, failure in zip(range(total, 0, -1), newest.shown, strict=False)
    ]
    return fragment("failures", rows=join(rows), more=markup.more(newest.more))


def faults(coming: Iterable[Mapping[str, object]]) -> Markup:
    """Return the faults still to come."""
    rows = [
        fragment(
            "fault",
            times="Next call" if fault["times"] == 1 else f"Next {fault['times']} calls",
            operation="any operation" if fault["operation"] == "*" else fault["operation"],
            key=f" for {fault['processKey']}" if fault.get("processKey") else "",
            how=_how(fault),
        )
        for fault in coming
    ]
    return fragment("faults", rows=join(rows)) if rows else markup.nothing("Nothing is set to fail.")


def _how(fault: Mapping[str, object]) -> str:
    if "status" in fault:
        return markup.status(int(str(fault["status"])))
    if "reset" in fault:
        return f"reset {fault['reset']} it counts"
    return next((kind for kind in ("hang", "delay", "html") if kind in fault), "a made-up answer")


def journal(shown: tuple[Sequence[JournalRow], int] | None) -> Markup:
    """Return what is open and owed on this machine, and how many more rows there are; nothing without a journal."""
    if shown is None:
        return Markup()
    rows, more = shown
    owed = more or any(row["state"] == "owed" for row in rows)
    table = markup.nothing("Nothing is open and nothing is owed.")
    if rows:
        table = fragment("journal-rows", rows=join(map(_row, rows)), more=markup.more(more))
    return fragment("journal", disabled="" if owed else Markup(" disabled"), rows=table)


def _row(row: JournalRow) -> Markup:
    run = NOT_YET if row["runId"] is None else row["runId"]
    return fragment(
        "journal-row",
        key=row["processKey"],
        run=run,
        state=chip(ROW_CHIPS[row["state"]], row["state"].capitalize()),
        age=markup.age(row["age"]),
        entries=markup.entries(row["entries"]),
        saved=markup.saved(row["secondsSaved"]),
        reason=markup.folded(row["reason"], f"journal-{row['processKey']}-{run}"),
    )

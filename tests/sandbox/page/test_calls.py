"""The page's lower part: requests, failures, faults to come, and the journal of the machine."""

from __future__ import annotations

import re
from html import unescape

import pytest

from anymate_guard.sandbox import JournalRow, Sandbox

from ..support import Bot, Clock
from .support import local, markup, part, rows

NOT_YET = "\N{EN DASH}"


def test_requests(bot: Bot, browser: Bot, clock: Clock) -> None:
    """Requests are listed with what was sent and answered, the newest first, long texts folded."""
    run_id = bot.start("a")
    bot.get("/api/nonsense")
    bot.post("/api/Failure/", {"processKey": "a", "message": "x" * 200})
    bot.finish(run_id)
    bot.finish(run_id)
    now = local(clock)
    finish = f'{now} FinishRun POST /api/FinishRun/ 200 OK sent {{"runId": {run_id}}} said {{"succeeded": '
    long = f'{{"processKey": "a", "message": "{"x" * 200}"}}'
    done = '{"succeeded": true, "message": ""}'
    unknown = '404 Not Found said {"succeeded": false, "message": "There is nothing at this address."}'
    assert rows(browser, "requests") == [
        f'{finish}false, "message": "Run {run_id} is already finished."}}',
        f'{finish}true, "message": ""}}',
        f"{now} Failure POST /api/Failure/ 200 OK sent {long[:90]}… {long} Copy said {done}",
        f"{now} unknown GET /api/nonsense {unknown}",
        f'{now} StartRun GET /api/StartRun/a 200 OK said {{"processKey": "a", "runId": {run_id}}}',
    ]


def test_token_calls(bot: Bot, browser: Bot, sandbox: Sandbox) -> None:
    """Token calls are hidden unless asked for, and show neither secrets nor tokens."""
    assert part(browser, "requests") == "No request came yet."
    assert part(browser, "tokens") == "Show token calls"
    shown = part(browser, "requests", "?tokens=1")
    assert "token POST /connect/token 200 OK" in shown
    assert shown.endswith("said (a token)")
    assert part(browser, "tokens", "?tokens=1") == "Hide token calls"
    assert bot.headers["Authorization"].split()[1] not in browser.get("/?tokens=1").text
    assert "sandbox-password" not in shown
    assert sandbox.requests()[0]["answer"] == "(a token)"


def test_request_without_an_answer(bot: Bot, browser: Bot, sandbox: Sandbox) -> None:
    """A request that got no answer says so."""
    sandbox.fail_next("OkToRun", reset="before")
    with pytest.raises(ConnectionError):
        bot.get("/api/OkToRun/a")
    assert "OkToRun GET /api/OkToRun/a No answer" in part(browser, "requests")


def test_failures(bot: Bot, browser: Bot, clock: Clock) -> None:
    """Failures are listed, the newest first, with their process and text; long ones and those of many lines folded."""
    for message in ("first", "", "x" * 100, "two\nlines"):
        bot.post("/api/Failure/", {"processKey": "a", "message": message})
        clock.now += 1
    at = [local(clock, -seconds) for seconds in (1, 2, 3, 4)]
    assert rows(browser, "failures") == [
        f"a {at[0]} two… two lines Copy",
        f"a {at[1]} {'x' * 90}… {'x' * 100} Copy",
        f"a {at[2]} (no message)",
        f"a {at[3]} first",
    ]


def test_many_of_everything(bot: Bot, browser: Bot) -> None:
    """More failures and requests than fit are counted, not shown."""
    for number in range(103):
        bot.post("/api/Failure/", {"processKey": "a", "message": f"failure {number}."})
    assert re.findall(r"failure (\d+)\.", part(browser, "failures")) == [str(number) for number in range(102, 92, -1)]
    assert part(browser, "failures").endswith("And 93 more.")
    assert len(rows(browser, "requests")) == 25
    assert part(browser, "requests").endswith("And 78 more.")


@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ({"operation": "StartRun", "status": 503}, "Next call of StartRun: 503 Service Unavailable"),
        ({"operation": "StartRun", "status": 299}, "Next call of StartRun: 299"),
        ({"operation": "*", "status": 429, "times": 3}, "Next 3 calls of any operation: 429 Too Many Requests"),
        ({"operation": "token", "reset": "after"}, "Next call of token: reset after it counts"),
        ({"operation": "FinishRun", "hang": True, "processKey": "a"}, "Next call of FinishRun for a: hang"),
        ({"operation": "OkToRun", "html": True}, "Next call of OkToRun: html"),
        ({"operation": "OkToRun", "answer": {}}, "Next call of OkToRun: a made-up answer"),
    ],
)
def test_faults(browser: Bot, fault: dict[str, object], shown: str) -> None:
    """What is set to fail is listed."""
    assert browser.post("/sandbox/faults", fault).status == 200
    assert re.sub(" (?=:|for)", "", part(browser, "faults")) == re.sub(" (?=for)", "", f"{shown} Let all calls through")


def test_every_fault_of_the_form(browser: Bot) -> None:
    """Each call and each way to fail that the form offers is one the sandbox can do."""
    page = browser.get("/").text
    form = page.split('<form id="fault"')[1].split("</form>")[0]
    shapes = [unescape(value) for value in re.findall(r"<option value='([^']*)'", form)]
    operations = re.findall(r"<option(?: selected)?>(\w+)<", form)
    assert len(shapes) == 12
    assert len(operations) == 6
    for operation in ["*", *operations]:
        for shape in shapes:
            body = f'{{"operation": "{operation}", "times": 1, {shape[1:]}'.encode()
            assert browser.send("POST", "/sandbox/faults", body, Content_Type="application/json").status == 200


class Journal:
    """A journal with the rows that a test wants."""

    def __init__(self, *rows: JournalRow) -> None:
        """Take the rows."""
        self._rows = rows

    def rows(self, most: int) -> tuple[tuple[JournalRow, ...], int]:
        """The rows."""
        return self._rows[:most], len(self._rows[most:])

    def deliver(self) -> str:
        """Not wanted here."""
        raise NotImplementedError


def row(**changes: object) -> JournalRow:
    """Return a row of a journal."""
    usual: JournalRow = {
        "processKey": "a",
        "runId": None,
        "state": "open",
        "entries": None,
        "secondsSaved": None,
        "age": 7.5,
        "reason": "",
    }
    return {**usual, **changes}  # type: ignore[typeddict-item]  # the tests name fields that there are


def test_journal(browser: Bot, sandbox: Sandbox) -> None:
    """The journal of the machine tells what is open, owed and refused, for how long and why."""
    reason = "Run 7 was not found. " * 10
    sandbox.show_journal(
        Journal(
            row(),
            row(runId=7, state="owed", entries=3, secondsSaved=90.0, age=3600.0, reason="refused connection"),
            row(state="refused", entries=1, reason=reason),
        )
    )
    assert rows(browser, "journal") == [
        f"a {NOT_YET} Open 7.5 s old {NOT_YET} {NOT_YET}",
        "a 7 Owed 1 h old 3 entries 1 min 30 s saved refused connection",
        f"a {NOT_YET} Refused 7.5 s old 1 entry {NOT_YET} {reason[:90]}… {reason}Copy",
    ]
    assert '<button type="button" id="deliver">' in markup(browser, "journal")


def test_journal_that_owes_nothing(browser: Bot, sandbox: Sandbox) -> None:
    """Where nothing is owed, there is nothing to deliver."""
    sandbox.show_journal(Journal())
    assert part(browser, "journal").endswith("Nothing is open and nothing is owed.")
    assert '<button type="button" id="deliver" disabled>' in markup(browser, "journal")
    sandbox.show_journal(Journal(row()))
    assert '<button type="button" id="deliver" disabled>' in markup(browser, "journal")


def test_long_journal(browser: Bot, sandbox: Sandbox) -> None:
    """Of a long journal the page shows the beginning."""
    sandbox.show_journal(Journal(*[row(runId=number) for number in range(1, 124)]))
    assert len(rows(browser, "journal")) == 20
    assert part(browser, "journal").endswith("And 103 more.")

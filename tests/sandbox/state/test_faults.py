"""Calls that go wrong on request."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import IncompleteRead
from typing import Any
from urllib.parse import urlsplit

import pytest

from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST, until
from tests.support.wine import hides_resets

from ..support import Bot, ends_in_reset


@pytest.fixture(name="line")
def _line(sandbox: Sandbox) -> Iterator[socket.socket]:
    """Give a bare connection."""
    address = urlsplit(sandbox.url)
    with closing(socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=LONGEST)) as line:
        yield line


def ask(line: socket.socket, bot: Bot, path: str = "/api/StartRun/invoices") -> None:
    """Send a GET without waiting for the answer."""
    token = bot.headers["Authorization"]
    line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n".encode())


def test_default(sandbox: Sandbox, bot: Bot) -> None:
    """A fault that says no more is one 503 for the next call, which changes nothing."""
    sandbox.fail_next("StartRun")
    assert [bot.get("/api/StartRun/invoices").status for _ in range(2)] == [503, 200]
    assert sandbox.requests()[1]["status"] == 503
    assert sandbox.runs()[0]["runId"] == bot.start()


def test_over_http(sandbox: Sandbox, bot: Bot) -> None:
    """A fault asked for over HTTP hits as often as it says, and is listed until then."""
    shape = {"operation": "FinishRun", "status": 429, "retryAfter": 7, "times": 2}
    run_id = bot.start()
    assert bot.post("/sandbox/faults", shape).json == shape
    answer = bot.finish(run_id)
    assert (answer.status, answer.headers["Retry-After"]) == (429, "7")
    assert sandbox.faults() == [{**shape, "times": 1}]
    assert [bot.finish(run_id).status for _ in range(2)] == [429, 200]
    assert sandbox.faults() == []


def test_order(sandbox: Sandbox, bot: Bot) -> None:
    """Faults come in the order they were asked for, each for its own operation."""
    sandbox.fail_next("StartRun", 500)
    sandbox.fail_next("OkToRun", 501)
    sandbox.fail_next("StartRun", 502)
    assert [bot.get("/api/StartRun/invoices").status for _ in range(3)] == [500, 502, 200]
    assert bot.get("/api/OkToRun/invoices").status == 501


@pytest.mark.parametrize("operation", ["token", "StartRun", "StartOrGetRun", "OkToRun", "TakeNext"])
def test_operations(sandbox: Sandbox, bot: Bot, operation: str) -> None:
    """A fault hits the operation it names and no other; * hits any."""

    def call() -> int:
        return bot.ask_token().status if operation == "token" else bot.get(f"/api/{operation}/invoices").status

    sandbox.fail_next("Failure")
    assert call() == 200
    sandbox.fail_next(operation)
    assert [call(), call()] == [503, 200]
    sandbox.fail_next("*", 500)
    assert [call(), call()] == [500, 200]


def test_one_process(sandbox: Sandbox, bot: Bot) -> None:
    """A fault for one process leaves the others alone, however the call tells its process."""
    run_id, other = bot.start("a"), bot.start("b")
    task_id = bot.post("/api/CreateTask/a", {}).json["taskId"]
    for operation in ("token", "StartRun", "FinishRun", "Failure", "Solved"):
        sandbox.fail_next(operation, process_key="a")
    assert bot.ask_token().status == 200
    assert [bot.get(f"/api/StartRun/{key}").status for key in "ba"] == [200, 503]
    assert [bot.finish(number).status for number in (other, 5, run_id)] == [200, 200, 503]
    assert [bot.post("/api/Failure/", {"processKey": key}).status for key in "ba"] == [200, 503]
    assert [bot.post("/api/Solved/", {"taskId": number}).status for number in (5, task_id)] == [200, 503]


def test_one_process_and_a_bad_call(sandbox: Sandbox, bot: Bot) -> None:
    """A call that does not tell its process gets its own answer, not the fault of a process."""
    sandbox.fail_next("FinishRun", process_key="a")
    assert bot.post("/api/FinishRun/", {}).status == 400
    assert bot.post("/api/FinishRun/", {}, Content_Type="text/plain").status == 415


def test_wrong_verb_uses_up_no_fault(sandbox: Sandbox, bot: Bot) -> None:
    """A call that reaches no operation uses up no fault."""
    sandbox.fail_next("StartRun")
    assert bot.post("/api/StartRun/invoices", {}).status == 405
    assert len(sandbox.faults()) == 1


@pytest.mark.parametrize(
    ("body", "text", "content_type"),
    [
        ("Bad Gateway", "Bad Gateway", "text/plain; charset=utf-8"),
        ("", "", "text/plain; charset=utf-8"),
        ({"message": "no"}, '{"message": "no"}', "application/json; charset=utf-8"),
    ],
)
def test_body(sandbox: Sandbox, bot: Bot, body: object, text: str, content_type: str) -> None:
    """The body of a status can be text or JSON."""
    sandbox.fail_next("StartRun", 502, body=body)
    answer = bot.get("/api/StartRun/invoices")
    assert (answer.status, answer.text, answer.headers["Content-Type"]) == (502, text, content_type)


def test_headers(sandbox: Sandbox, bot: Bot) -> None:
    """More headers can go with a status, so that it can redirect or change its type."""
    sandbox.fail_next("StartRun", 302, headers={"Location": "/elsewhere", "content-type": "text/html"}, body="x")
    answer = bot.get("/api/StartRun/invoices")
    assert (answer.status, answer.headers["Location"]) == (302, "/elsewhere")
    assert answer.headers.get_all("Content-Type") == ["text/html"]


def test_retry_after_date(sandbox: Sandbox, bot: Bot) -> None:
    """Retry-After can be a date."""
    sandbox.fail_next("StartRun", retry_after="Wed, 24 Dec 2025 12:00:30 GMT")
    assert bot.get("/api/StartRun/invoices").headers["Retry-After"] == "Wed, 24 Dec 2025 12:00:30 GMT"


def test_cut_body(sandbox: Sandbox, bot: Bot) -> None:
    """A length that is too large, on a connection that closes, is a body cut short."""
    sandbox.fail_next("StartRun", 200, body='{"run', headers={"Content-Length": "50", "Connection": "close"})
    with pytest.raises(IncompleteRead):
        bot.get("/api/StartRun/invoices")


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body(sandbox: Sandbox, bot: Bot, status: int) -> None:
    """A status that has no body leaves the connection in order."""
    sandbox.fail_next("StartRun", status)
    assert [bot.get("/api/StartRun/invoices").status for _ in range(2)] == [status, 200]


def test_after(sandbox: Sandbox, bot: Bot) -> None:
    """With after the state changes, and only the answer goes wrong."""
    run_id = bot.start()
    sandbox.fail_next("FinishRun", after=True)
    assert bot.finish(run_id, overwriteEntries=2).status == 503
    assert sandbox.runs()[0]["creditedEntries"] == 2
    assert bot.finish(run_id).json["succeeded"] is False


@hides_resets
@pytest.mark.parametrize(("when", "started"), [("before", 0), ("after", 1)])
def test_reset(sandbox: Sandbox, bot: Bot, line: socket.socket, when: str, started: int) -> None:
    """A reset ends the connection hard, before or after the state changed, and has no status."""
    sandbox.fail_next("StartRun", reset=when)
    ask(line, bot)
    assert ends_in_reset(line)
    assert len(sandbox.runs()) == started
    assert sandbox.requests()[-1]["status"] is None


def test_html(sandbox: Sandbox, bot: Bot) -> None:
    """HTML is a login page with status 200, and changes nothing."""
    sandbox.fail_next("StartRun", html=True)
    answer = bot.get("/api/StartRun/invoices")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<form" in answer.text
    assert sandbox.runs() == []


@pytest.mark.parametrize("answer", [{"processKey": None, "runId": "x"}, [], "text", 5, None])
def test_answer(sandbox: Sandbox, bot: Bot, answer: object) -> None:
    """Any JSON can be the answer, null included, while the state stays as it is."""
    sandbox.fail_next("StartRun", answer=answer)
    assert bot.get("/api/StartRun/invoices").json == answer
    assert sandbox.runs() == []


@hides_resets
@pytest.mark.parametrize(("after", "started"), [(False, 0), (True, 1)])
def test_hang(sandbox: Sandbox, bot: Bot, line: socket.socket, after: bool, started: int) -> None:
    """A call that hangs is pending, before or after the state changed, until a reset ends it."""
    sandbox.fail_next("StartRun", hang=True, after=after)
    ask(line, bot)
    until(lambda: not sandbox.faults())
    until(lambda: len(sandbox.runs()) == started)
    assert sandbox.requests()[-1]["status"] is None
    line.setblocking(False)
    with pytest.raises(BlockingIOError):
        line.recv(1)
    line.settimeout(LONGEST)
    assert bot.post("/sandbox/reset", None).status == 200
    assert ends_in_reset(line)


@hides_resets
def test_end_of_faults(sandbox: Sandbox, bot: Bot, line: socket.socket) -> None:
    """Faults can be called off over HTTP: none is left, who hangs is let go, no more is forgotten."""
    run_id = bot.start()
    sandbox.fail_next("*", hang=True, times=1000)
    ask(line, bot)
    until(lambda: sandbox.faults()[0]["times"] == 999)
    assert bot.send("DELETE", "/sandbox/faults").status == 200
    assert ends_in_reset(line)
    assert sandbox.faults() == []
    assert bot.start() == run_id


@hides_resets
def test_hang_for_a_while(sandbox: Sandbox, bot: Bot, line: socket.socket) -> None:
    """A call that hangs for some time ends without an answer after it."""
    sandbox.fail_next("StartRun", hang=0.05)
    began = time.monotonic()
    ask(line, bot)
    assert ends_in_reset(line)
    assert time.monotonic() - began >= 0.05
    assert sandbox.runs() == []


def test_delay(sandbox: Sandbox, bot: Bot) -> None:
    """A delayed call is answered rightly, later."""
    sandbox.fail_next("StartRun", delay=0.05)
    began = time.monotonic()
    assert bot.start() == sandbox.runs()[0]["runId"]
    assert time.monotonic() - began >= 0.05


def test_delay_after(sandbox: Sandbox, bot: Bot) -> None:
    """With after the state changes at once, once, and the answer comes later."""
    run_id = bot.start()
    sandbox.fail_next("FinishRun", delay=0.001, after=True)
    assert bot.finish(run_id).json["succeeded"] is True


@hides_resets
def test_delays_overlap(sandbox: Sandbox, bot: Bot, line: socket.socket) -> None:
    """While one call waits others are served, and a reset drops the one that waits."""
    sandbox.fail_next("StartRun", delay=10_000)
    ask(line, bot)
    until(lambda: not sandbox.faults())
    assert bot.start("other")
    sandbox.reset()
    assert ends_in_reset(line)
    assert sandbox.runs() == []


def test_fault_before_authentication(sandbox: Sandbox, stranger: Bot) -> None:
    """A fault stands before the check of the token, as a broken gateway does."""
    sandbox.fail_next("StartRun")
    assert [stranger.get("/api/StartRun/invoices").status for _ in range(2)] == [503, 401]


GOOD: dict[str, Any] = {"operation": "StartRun", "status": 503}


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "StartOrGetRun"),
        ({"operation": "Start", "status": 503}, "TakeNext"),
        ({"operation": ["StartRun"], "status": 503}, "operation"),
        ({"operation": "StartRun"}, "delay"),
        ({**GOOD, "html": True}, "exactly one"),
        ({**GOOD, "tmies": 2}, "times"),
        ({**GOOD, "times": 0}, "times"),
        ({**GOOD, "times": True}, "times"),
        ({**GOOD, "after": "yes"}, "after"),
        ({**GOOD, "processKey": 5}, "processKey"),
        ({**GOOD, "status": 99}, "status"),
        ({**GOOD, "status": 600}, "status"),
        ({**GOOD, "status": "bad"}, "status"),
        ({**GOOD, "retryAfter": -1}, "retryAfter"),
        ({**GOOD, "retryAfter": "a\r\nb"}, "retryAfter"),
        ({**GOOD, "headers": []}, "headers"),
        ({**GOOD, "headers": {"X": 1}}, "headers"),
        ({**GOOD, "headers": {"X": "a\nb"}}, "headers"),
        ({"operation": "StartRun", "reset": True}, "reset"),
        ({"operation": "StartRun", "reset": "before", "after": True}, "after"),
        ({"operation": "StartRun", "html": True, "body": "x"}, "body"),
        ({"operation": "StartRun", "html": False}, "html"),
        ({"operation": "StartRun", "html": 1}, "html"),
        ({"operation": "StartRun", "hang": False}, "hang"),
        ({"operation": "StartRun", "hang": "long"}, "hang"),
        ({"operation": "StartRun", "delay": -1}, "delay"),
        ({"operation": "StartRun", "delay": True}, "delay"),
    ],
)
def test_bad_faults(sandbox: Sandbox, bot: Bot, fields: dict[str, Any], named: str) -> None:
    """A fault that makes no sense is answered 400 with a message that says what would; none is queued."""
    answer = bot.post("/sandbox/faults", fields)
    assert answer.status == 400
    assert named in json.loads(answer.text)["message"]
    assert sandbox.faults() == []


def test_bad_fault_from_python(sandbox: Sandbox) -> None:
    """From Python a fault that makes no sense is a ValueError that says what would."""
    with pytest.raises(ValueError, match="StartOrGetRun"):
        sandbox.fail_next("Start")

"""What is tried again, how often, and when to stop."""

from __future__ import annotations

import ctypes
import gzip
import math
import sys
import threading
from email.utils import formatdate

import pytest

from anymate_guard import AnymateClient, ApiError, Kpis, UnreachableError
from anymate_guard._api.client import means_not_open
from anymate_guard._deadline import Deadline
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.clients import client_of, one_try
from tests.support.clock import Clock
from tests.support.proxy import Exchange, Fault, FaultProxy
from tests.support.waiting import LONGEST, until

PASSING: dict[str, Fault] = {
    **{str(status): faults.status(status) for status in (408, 429, 500, 502, 503, 504)},
    "reset before": faults.reset_before,
    "reset after": faults.reset_after,
    "cut body": faults.cut_body,
    "HTML": faults.html,
    "empty": faults.empty,
    "junk": faults.junk,
    "no content": faults.sends(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "a list": faults.says(200, [1, 2]),
    "deep": faults.says(200, "[" * 100_000),
    "not UTF-8": faults.says(200, b'{"runId": "\xff"}'),
    "wrong chunks": faults.sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
    "a chunk of less than nothing": faults.sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}"),
    "endless line": faults.sends(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n{}"),
}
if sys.platform == "win32":
    REFUSED = f"ConnectionRefusedError: {str(ctypes.WinError(10061)).rstrip('.')}"
else:
    REFUSED = "ConnectionRefusedError: [Errno 111] Connection refused"
OPERATIONS = ("token", "StartRun", "OkToRun", "FinishRun", "Failure")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_trouble_that_passes(sandbox: Sandbox, proxy: FaultProxy, operation: str, fault: Fault) -> None:
    """Trouble that may pass is tried again, GET and POST alike, until there is an answer."""
    proxy.break_next(operation, fault)
    call_all(client_of(sandbox, proxy.url))
    assert proxy.calls.count(operation) == 2
    assert [(run["finished"], run["overwriteEntries"]) for run in sandbox.runs()] == [(True, 2)]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_silence_that_passes(sandbox: Sandbox, proxy: FaultProxy, operation: str) -> None:
    """A call on which nothing comes is made again after the timeout."""
    proxy.break_next(operation, faults.silence)
    call_all(client_of(sandbox, proxy.url, timeout=0.5))
    assert proxy.calls.count(operation) >= 2
    assert [(run["finished"], run["overwriteEntries"]) for run in sandbox.runs()] == [(True, 2)]


def call_all(client: AnymateClient) -> None:
    """Make each call once."""
    with client:
        run_id = client.start_run("invoice-intake")
        client.ok_to_run("invoice-intake")
        client.finish_run(run_id, Kpis(2))
        client.failure("invoice-intake", "boom")


def test_refused_connection(client: AnymateClient, proxy: FaultProxy, capture: list[dict[str, object]]) -> None:
    """A server that is down for a moment is called again when it is up."""
    client.ok_to_run("invoice-intake")
    proxy.down()

    def up_after_a_try() -> None:
        until(lambda: capture)
        proxy.up()

    thread = threading.Thread(target=up_after_a_try)
    thread.start()
    assert client.start_run("invoice-intake") > 0
    thread.join(LONGEST)
    assert capture[0]["error"] == f"{proxy.url}: {REFUSED}"


def test_one_try(client: AnymateClient, proxy: FaultProxy) -> None:
    """With a deadline that asks for one try there is one."""
    client.ok_to_run("invoice-intake")
    proxy.break_next("StartRun", faults.status(503), times=math.inf)
    with pytest.raises(UnreachableError):
        client.start_run("invoice-intake", deadline=one_try())
    assert proxy.calls.count("StartRun") == 1


def test_waits_grow(client: AnymateClient, proxy: FaultProxy, clock: Clock) -> None:
    """The waits between tries double with jitter, up to 8 seconds, until no time is left for another."""
    waits = clock.sleeps
    proxy.break_next("StartRun", faults.status(503), times=math.inf)
    with pytest.raises(UnreachableError):
        client.start_run("invoice-intake", deadline=Deadline.after(60))
    bounds = [min(8, 0.2 * 2**number) for number in range(len(waits))]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))
    assert 60 - 8 < sum(waits) < 60
    assert len(set(waits)) == len(waits)


@pytest.mark.parametrize("dated", [False, True])
def test_retry_after(
    client: AnymateClient, proxy: FaultProxy, clock: Clock, capture: list[dict[str, object]], dated: bool
) -> None:
    """A server's Retry-After is honoured, as seconds and as a date."""
    header = formatdate(clock.time() + 5, usegmt=True) if dated else "4"
    proxy.break_next("StartRun", faults.status(429, Retry_After=header))
    client.start_run("invoice-intake")
    (wait,) = clock.sleeps
    assert 4 <= wait <= 5 * 1.1  # a date has whole seconds
    assert [line["wait_s"] for line in capture] == [round(wait, 3)]


@pytest.mark.parametrize("behind", [3600, -3600], ids=["behind", "ahead"])
def test_retry_after_with_another_clock(client: AnymateClient, proxy: FaultProxy, clock: Clock, behind: float) -> None:
    """A Retry-After that is a date counts from the server's Date, as this machine's clock may be wrong."""
    now = clock.time() + behind
    dates = {"Date": formatdate(now, usegmt=True), "Retry_After": formatdate(now + 5, usegmt=True)}
    proxy.break_next("StartRun", faults.status(429, **dates))
    client.start_run("invoice-intake")
    (wait,) = clock.sleeps
    assert 5 <= wait <= 5 * 1.1


@pytest.mark.parametrize("header", ["6", "Fri, 04 Dec 2099 10:00:00 GMT", "9" * 400, "Sat, 05 Dec 2099 10:00:00 -0000"])
def test_retry_after_the_deadline(client: AnymateClient, proxy: FaultProxy, clock: Clock, header: str) -> None:
    """A Retry-After beyond what is left of the deadline ends the call at once."""
    proxy.break_next("StartRun", faults.status(503, Retry_After=header), times=math.inf)
    with pytest.raises(UnreachableError):
        client.start_run("invoice-intake", deadline=Deadline.after(5))
    assert proxy.calls.count("StartRun") == 1
    assert clock.sleeps == []


@pytest.mark.parametrize(
    "header",
    [
        "",
        "soon",
        "-1",
        "1.5",
        "0",
        formatdate(0, usegmt=True),
        "Sat, 99 Dec 2099 10:00:00 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
    ],
)
def test_odd_retry_after(client: AnymateClient, proxy: FaultProxy, clock: Clock, header: str) -> None:
    """A Retry-After that makes no sense, or is over, changes nothing."""
    proxy.break_next("StartRun", faults.status(503, Retry_After=header))
    client.start_run("invoice-intake")
    (wait,) = clock.sleeps
    assert wait <= 0.2


@pytest.mark.parametrize("status", [507, 520, 522, 524, 530, 599])
def test_statuses_of_gateways(client: AnymateClient, proxy: FaultProxy, sandbox: Sandbox, status: int) -> None:
    """What a gateway says of a server that it did not reach in time is no answer, and is asked again."""

    def late(exchange: Exchange) -> None:
        exchange.forward()
        exchange.answer(status, "error code: late")

    for operation in ("token", "StartRun", "FinishRun"):
        proxy.break_next(operation, late)
    client.finish_run(client.start_run("invoice-intake"), Kpis(2))
    assert proxy.calls == ["token", "token", "StartRun", "StartRun", "FinishRun", "FinishRun"]
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [2]


@pytest.mark.parametrize("status", [400, 402, 403, 405, 406, 407, 409, 410, 413, 415, 418, 422, 451, 501, 505])
def test_other_statuses_are_answers(client: AnymateClient, proxy: FaultProxy, status: int) -> None:
    """Any other status of 400 and more is an answer, and not asked for twice."""
    run_id = client.start_run("invoice-intake")
    proxy.break_next("FinishRun", faults.says(status, {"message": "No."}), times=math.inf)
    with pytest.raises(ApiError) as caught:
        client.finish_run(run_id)
    assert (caught.value.operation, caught.value.status, caught.value.message) == ("FinishRun", status, "No.")
    assert not caught.value.maybe_sent
    assert proxy.calls.count("FinishRun") == 1


def test_log_of_a_retry(client: AnymateClient, proxy: FaultProxy, capture: list[dict[str, object]]) -> None:
    """Each retry is a log line that says what went wrong, how often, and how long the wait is."""
    proxy.break_next("StartRun", faults.says(503, {"message": "Closed for lunch."}), times=2)
    client.start_run("invoice-intake")
    assert [line["attempt"] for line in capture] == [1, 2]
    first = capture[0]
    wait = first.pop("wait_s")
    assert isinstance(wait, float)
    assert first == {
        "event": "anymate.request_retried",
        "log_level": "info",
        "process_key": "invoice-intake",
        "run_id": None,
        "operation": "StartRun",
        "status": 503,
        "attempt": 1,
        "error": "HTTP 503: Closed for lunch.",
    }


def test_unreachable(client: AnymateClient, proxy: FaultProxy, clock: Clock) -> None:
    """Without an answer until the deadline there is an UnreachableError that quotes what came last."""
    proxy.break_next("StartRun", faults.says(502, "<html>\n  Bad \x1b[31m gateway</html>"), times=math.inf)
    with pytest.raises(UnreachableError) as caught:
        client.start_run("invoice-intake")
    assert clock.ahead < LONGEST
    assert caught.value.operation == "StartRun"
    assert caught.value.reason == "HTTP 502: <html> Bad [31m gateway</html>"
    assert str(caught.value) == (
        "StartRun got no usable answer from Anymate in time: HTTP 502: <html> Bad [31m gateway</html>"
    )


def test_compressed(client: AnymateClient, proxy: FaultProxy) -> None:
    """An answer that something on the way has compressed, which was not asked for, is told as that."""
    proxy.break_next("StartRun", faults.says(200, gzip.compress(b'{"runId": 1}'), Content_Encoding="gzip"))
    with pytest.raises(UnreachableError, match=r"comes compressed \(gzip\), which was not asked for"):
        client.start_run("invoice-intake", deadline=one_try())


def test_reason_when_the_last_try_is_cut_short(sandbox: Sandbox) -> None:
    """What came back before says more than that there was no time for the last try."""
    sandbox.fail_next("StartRun", status=503, body="down for maintenance")
    sandbox.fail_next("StartRun", hang=True)
    with client_of(sandbox, deadline=3) as client, pytest.raises(UnreachableError, match="down for maintenance"):
        client.start_run("invoice-intake")
    assert [request["operation"] for request in sandbox.requests()].count("StartRun") == 2


def test_reason_while_the_bot_handles_an_error(client: AnymateClient, proxy: FaultProxy) -> None:
    """What is told is our trouble, not the exception that the bot is handling meanwhile."""
    proxy.down()
    try:
        int("the bot's own")
    except ValueError:
        with pytest.raises(UnreachableError) as caught:
            client.start_run("invoice-intake", deadline=one_try())
    assert caught.value.reason.endswith(REFUSED)


class TestFinishAgain:
    """FinishRun names its run, so a second one can do no harm."""

    @pytest.mark.parametrize("fault", [faults.reset_after, faults.cut_body], ids=["reset", "cut"])
    def test_done_by_the_first_try(
        self, sandbox: Sandbox, client: AnymateClient, proxy: FaultProxy, fault: Fault
    ) -> None:
        """A retry that hears that the run is not open has been told that the first try did it."""
        run_id = client.start_run("invoice-intake")
        proxy.break_next("FinishRun", fault)
        client.finish_run(run_id, Kpis(2))
        assert proxy.calls.count("FinishRun") == 2
        assert sandbox.runs()[0]["overwriteEntries"] == 2

    @pytest.mark.parametrize("status", [404, 409, 410])
    def test_other_ways_to_say_so(self, client: AnymateClient, proxy: FaultProxy, status: int) -> None:
        """A server may say it with a status, too, beside `"succeeded": false`."""
        run_id = client.start_run("invoice-intake")
        no = faults.says(status, {"succeeded": False, "message": "No."})
        proxy.break_next("FinishRun", faults.in_turn(faults.reset_after, no), times=2)
        client.finish_run(run_id)

    @pytest.mark.parametrize("status", [404, 409, 410])
    @pytest.mark.parametrize("body", [b"", {"error": "no such route"}, {"succeeded": None}, [1]], ids=repr)
    def test_said_by_a_gateway(self, client: AnymateClient, proxy: FaultProxy, status: int, body: object) -> None:
        """A status alone says nothing about the run: a gateway may have given it, and the first try may be lost."""
        run_id = client.start_run("invoice-intake")
        proxy.break_next("FinishRun", faults.in_turn(faults.reset_before, faults.says(status, body)), times=2)
        with pytest.raises(ApiError) as caught:
            client.finish_run(run_id, Kpis(2))
        assert (caught.value.status, caught.value.maybe_sent) == (status, True)

    @pytest.mark.parametrize(
        ("status", "page"),
        [
            (404, "default backend - 404"),
            (405, "\ufeff<html>No</html>"),
            *((status, "\n<html>No</html>") for status in (400, 404, 405, 410, 422)),
        ],
    )
    def test_not_said_by_anymate(
        self, sandbox: Sandbox, client: AnymateClient, proxy: FaultProxy, status: int, page: str
    ) -> None:
        """A gateway that knows no Anymate just now says nothing about the run: it is asked again, nothing was sent."""
        run_id = client.start_run("invoice-intake")
        proxy.break_next("FinishRun", faults.in_turn(faults.status(503), faults.says(status, page)), times=2)
        client.finish_run(run_id, Kpis(2))
        assert proxy.calls.count("FinishRun") == 3
        assert sandbox.runs()[0]["overwriteEntries"] == 2
        proxy.break_next("FinishRun", faults.says(status, page))
        with pytest.raises(ApiError, match="already finished") as caught:
            client.finish_run(run_id, Kpis(2))
        assert not caught.value.maybe_sent

    def test_not_by_this_program(self, client: AnymateClient) -> None:
        """A first try that hears it is refused: somebody else has finished the run."""
        run_id = client.start_run("invoice-intake")
        client.finish_run(run_id)
        with pytest.raises(ApiError) as caught:
            client.finish_run(run_id)
        assert caught.value.message == f"succeeded is false: Run {run_id} is already finished."

    @pytest.mark.parametrize(
        ("operation", "fault", "expected"),
        [
            ("FinishRun", faults.not_succeeded, True),
            *[("FinishRun", faults.says(status, {"succeeded": False}), True) for status in (404, 409, 410)],
            *[("FinishRun", faults.says(status, {"succeeded": False}), False) for status in (400, 403, 422)],
            *[("FinishRun", faults.status(status), False) for status in (404, 409, 410)],
            ("token", faults.status(404), False),
        ],
    )
    def test_means_not_open(
        self, sandbox: Sandbox, proxy: FaultProxy, operation: str, fault: Fault, expected: bool
    ) -> None:
        """A refusal tells whether it means that the run is not open, which the token's own refusal never does."""
        proxy.break_next(operation, fault)
        with client_of(sandbox, proxy.url) as client, pytest.raises(ApiError) as caught:
            client.finish_run(1)
        assert means_not_open(caught.value) is expected

    def test_refused_before_it_was_sent(self, client: AnymateClient, proxy: FaultProxy) -> None:
        """A try that never reached the server is no reason to take a no for a yes."""
        run_id = client.start_run("invoice-intake")
        client.finish_run(run_id)
        proxy.break_next("FinishRun", faults.status(401))
        with pytest.raises(ApiError, match="already finished"):
            client.finish_run(run_id)

    def test_refused_otherwise(self, client: AnymateClient, proxy: FaultProxy) -> None:
        """Another no after a try that may have been done is a no; the error tells that it may have been done."""
        run_id = client.start_run("invoice-intake")
        proxy.break_next("FinishRun", faults.in_turn(faults.reset_after, faults.status(403)), times=2)
        with pytest.raises(ApiError) as caught:
            client.finish_run(run_id)
        assert (caught.value.status, caught.value.maybe_sent) == (403, True)

    @pytest.mark.usefixtures("clock")
    def test_never_sent(self, client: AnymateClient, proxy: FaultProxy) -> None:
        """An error tells that nothing was sent when no connection was made."""
        run_id = client.start_run("invoice-intake")
        proxy.down()
        with pytest.raises(UnreachableError) as caught:
            client.finish_run(run_id)
        assert not caught.value.maybe_sent

    @pytest.mark.usefixtures("clock")
    def test_maybe_sent(self, client: AnymateClient, proxy: FaultProxy) -> None:
        """An error tells that a try may have been done, also when a later one was not even sent."""
        run_id = client.start_run("invoice-intake")

        def down(exchange: Exchange) -> None:
            proxy.down()
            exchange.reset()

        proxy.break_next("FinishRun", down)
        with pytest.raises(UnreachableError) as caught:
            client.finish_run(run_id)
        assert caught.value.maybe_sent

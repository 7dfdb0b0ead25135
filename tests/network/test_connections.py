"""Connections: kept alive, shared, and never more than are in use."""

from __future__ import annotations

import gc
import math
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anymate_guard import AnymateClient, AnymateGuardError, Kpis, UnreachableError, anymate_run
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.clients import client_of, one_try
from tests.support.clock import Clock
from tests.support.forward import SlowLine
from tests.support.proxy import Exchange, Fault, FaultProxy
from tests.support.waiting import LONGEST, until
from tests.support.wine import wakes_nobody

THREADS = 64


def test_one_connection(sandbox: Sandbox) -> None:
    """100 guarded runs on one thread use one connection, and one token."""
    for _ in range(100):
        with anymate_run("invoice-intake"):
            pass
    requests = sandbox.requests()
    assert {request["connection"] for request in requests} == {requests[0]["connection"]}
    assert [request["operation"] for request in requests] == ["token", *["StartRun", "FinishRun"] * 100]


def test_many_threads(sandbox: Sandbox) -> None:
    """64 threads with 5 guarded runs each make one token request and no more connections than threads."""
    together = threading.Barrier(THREADS)

    def work(number: int) -> None:
        together.wait(LONGEST)
        for _ in range(5):
            with anymate_run(f"process-{number}") as run:
                run.add_entries()

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    requests = sandbox.requests()
    assert [request["operation"] for request in requests].count("token") == 1
    assert len({request["connection"] for request in requests}) <= THREADS
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [1] * THREADS * 5


def test_tls_that_is_none(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a test tool gives a plain socket for TLS, nothing is sent over it."""
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", lambda _, sock, **__: sock)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with (
            client_of(sandbox, f"https://127.0.0.1:{listener.getsockname()[1]}") as client,
            pytest.raises(UnreachableError, match="this connection is not encrypted"),
        ):
            client.start_run("invoice-intake")
        with listener.accept()[0] as accepted:
            assert accepted.recv(1) == b""


def eight_at_once(client: AnymateClient, proxy: FaultProxy) -> None:
    """Make eight calls, none of which is answered before all have come."""
    together = threading.Barrier(8)

    def meet(exchange: Exchange) -> None:
        together.wait(LONGEST)
        exchange.answer(*exchange.forward())

    proxy.break_next("OkToRun", meet, times=8)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client.ok_to_run, ["invoice-intake"] * 8))


def test_connections_are_kept(client: AnymateClient, proxy: FaultProxy) -> None:
    """Connections that threads used at the same time are all kept for later."""
    client.ok_to_run("invoice-intake")
    for _ in range(3):
        eight_at_once(client, proxy)
    assert proxy.connections == 8


def framed(head: bytes, tail: bytes = b"") -> Fault:
    """An answer with this head and tail around the sandbox's body, after which the connection ends."""

    def fault(exchange: Exchange) -> None:
        _, body = exchange.forward()
        size = f"{len(body):x}\r\n".encode() if b"chunked" in head else b""
        exchange.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + size + body + tail)
        exchange.end()

    return fault


@pytest.mark.parametrize(
    "answer",
    [
        framed(b"Connection: close"),
        framed(b"X-Nothing: else"),
        framed(b"Transfer-Encoding: chunked", b"\r\n0\r\n\r\n"),
        framed(b"Transfer-Encoding: chunked\r\nConnection: close", b"\r\n0\r\nX-Trailer: yes\r\n\r\n"),
    ],
    ids=["close", "until the end", "chunked", "chunked and close"],
)
def test_framing(client: AnymateClient, proxy: FaultProxy, answer: Fault) -> None:
    """An answer may be chunked, or go on to the end of its connection; the next call makes a new one."""
    proxy.break_next("StartRun", answer)
    run_id = client.start_run("invoice-intake")
    client.finish_run(run_id, Kpis(1))
    assert proxy.connections == 2
    assert proxy.calls == ["token", "StartRun", "FinishRun"]


@pytest.mark.parametrize(
    ("start", "header", "tail"),
    [("HTTP/1.1", "Connection: close", ""), ("HTTP/1.0", "X-Old: yes", ""), ("HTTP/1.1", "X-Chatty: yes", "more")],
    ids=["close", "old", "more than one answer"],
)
def test_connection_that_must_not_be_kept(
    client: AnymateClient, proxy: FaultProxy, start: str, header: str, tail: str
) -> None:
    """A connection that the server does not offer again, or on which it says more than it should, is not used again."""
    run_id = client.start_run("invoice-intake")

    def fault(exchange: Exchange) -> None:
        _, body = exchange.forward()
        exchange.send(
            f"{start} 200 OK\r\nContent-Length: {len(body)}\r\n{header}\r\n\r\n".encode() + body + tail.encode()
        )

    proxy.break_next("StartRun", fault)
    assert [client.start_run("invoice-intake") for _ in range(3)] == [run_id] * 3
    assert proxy.connections == 2


LENGTHS = (
    "Content-Length: {length}",
    "content-length:\t{length} ",
    "Content-Length: {length}\nX-Bare: line end",
    "Content-Length:\r\n {length}",
)
ODD_LENGTHS = (
    "Content-Length: {more}",
    "Content-Length: {less}",
    "Content-Length: +{length}",
    "Content-Length: 12345678901",
    "X-None: at all",
)
HEADERS = (
    "Transfer-Encoding: chunked",
    "Connection: close",
    "Connection: keep-alive",
    "X-Folded: one\r\n Content-Length: {less}",
    "X-Bare: line end\nTransfer-Encoding: chunked",
    "X-Long: " + "x" * 20_000,
    "No colon",
    "Content-Type: multipart/mixed; boundary=x",
    "Content-Type: message/rfc822",
)


@settings(max_examples=40)
@given(
    length=st.sampled_from(LENGTHS * 2 + ODD_LENGTHS),
    others=st.lists(st.sampled_from(HEADERS), max_size=2, unique=True),
    start=st.sampled_from(
        ["HTTP/1.1 200 OK"] * 4
        + ["HTTP/1.1 200 ", "HTTP/1.0 200 OK", "HTTP/1.1 201 Made", "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK"]
    ),
    tail=st.sampled_from([b"", b"", b"\r\n", b"HTTP/1.1 200 OK\r\n"]),
    pieces=st.integers(1, 3),
)
def test_kept_or_new(
    sandbox: Sandbox, proxy: FaultProxy, length: str, others: list[str], start: str, tail: bytes, pieces: int
) -> None:
    """However an answer is framed, it means the same on a kept connection and on a new one, and so does the next."""
    body = b'{"runId": 4711}'
    head = "\r\n".join([start, *others[:1], length, *others[1:], "", ""])
    data = head.format(length=len(body), more=len(body) + 9, less=len(body) - 1).encode() + body + tail

    def fault(exchange: Exchange) -> None:
        size = len(data) // pieces + 1
        for at in range(0, len(data), size):
            exchange.send(data[at : at + size])
        if length not in LENGTHS or any("chunked" in header or "No colon" in header for header in others):
            exchange.end()  # or the client would wait for more

    def asked(client: AnymateClient) -> object:
        try:
            return client.start_run("invoice-intake", deadline=one_try())
        except AnymateGuardError as error:
            return type(error)

    with client_of(sandbox, proxy.url) as client:
        run_id = client.start_run("invoice-intake")
        proxy.break_next("StartRun", fault)
        kept = asked(client), client.start_run("invoice-intake")
        client.close()
        proxy.break_next("StartRun", fault)
        new = asked(client), client.start_run("invoice-intake")
    assert kept == new
    assert new[1] == run_id


INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\nX-Still: at it\r\n\r\n",
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\nContent-Length: 3\r\n\r\n",
}


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
@pytest.mark.parametrize("interim", [*([each] for each in INTERIM), ["103", "100", "102", "103"]], ids="-".join)
def test_interim_answers(client: AnymateClient, proxy: FaultProxy, interim: list[str], late: bool) -> None:
    """An interim answer is never the answer, be the real one in the same packet or late."""
    keys = [f"process-{number}" for number in range(4)]

    def hinting(exchange: Exchange) -> None:
        status, body = exchange.forward()
        hints = b"".join(INTERIM[each] for each in interim)
        if late:
            exchange.send(hints)
            exchange.pause(0.05)
            hints = b""
        exchange.send(hints + f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    plain = [client.start_run(key) for key in keys]
    proxy.break_next("StartRun", hinting, times=math.inf)
    assert [client.start_run(key) for key in keys] == plain
    assert proxy.connections == 1


@wakes_nobody
def test_server_that_closes_idle_connections(sandbox: Sandbox) -> None:
    """A server may close a connection on which nothing comes; the next call makes a new one, without a failed try."""
    with FaultProxy(sandbox.url) as proxy, client_of(sandbox, proxy.url) as client:
        for _ in range(3):
            client.start_run("invoice-intake", deadline=one_try())
            proxy.hang_up()
            until(lambda: not proxy.still_open)
        assert proxy.connections == 3


def test_idle_connection_that_was_reset(client: AnymateClient, proxy: FaultProxy) -> None:
    """A kept connection that the server has reset meanwhile is replaced without a failed try."""

    def answer_and_reset(exchange: Exchange) -> None:
        exchange.answer(*exchange.forward())
        exchange.reset()

    proxy.break_next("StartRun", answer_and_reset)
    client.start_run("invoice-intake")
    until(lambda: not proxy.still_open)
    client.start_run("invoice-intake", deadline=one_try())


def test_idle_for_a_minute(client: AnymateClient, proxy: FaultProxy, clock: Clock) -> None:
    """A connection that was idle for more than a minute is not used again: it may lead nowhere."""
    client.start_run("invoice-intake")
    for idle, connections in [(59, 1), (59, 1), (61, 2), (1, 2)]:
        clock.sleep(idle)
        client.start_run("invoice-intake")
        assert proxy.connections == connections


def test_connections_of_a_rush(client: AnymateClient, proxy: FaultProxy, clock: Clock) -> None:
    """Connections that many threads needed at once are closed when they have been idle for more than a minute."""
    eight_at_once(client, proxy)
    assert proxy.still_open == 8
    for _ in range(10):
        clock.sleep(20)
        client.ok_to_run("invoice-intake")
    until(lambda: proxy.still_open == 1)
    assert proxy.connections == 8


def test_connections_that_lead_nowhere(sandbox: Sandbox, proxy: FaultProxy) -> None:
    """After a failure on one of eight kept connections, as after a NAT time-out, none of them is tried again."""
    with (
        SlowLine(f"127.0.0.1:{proxy.port}") as line,
        client_of(sandbox, f"http://{line.address}", timeout=1) as client,
    ):
        client.ok_to_run("invoice-intake")
        eight_at_once(client, proxy)
        assert line.connections == 8
        line.forget()
        with anymate_run("invoice-intake", client=client, require_start=True, require_finish=True):
            pass
        assert line.connections == 9
    assert [call for call in proxy.calls if call != "OkToRun"] == ["token", "StartRun", "FinishRun"]


def test_idle_connection_that_ended(client: AnymateClient, proxy: FaultProxy) -> None:
    """A kept connection that the server has closed meanwhile is replaced without a failed try."""
    client.start_run("invoice-intake")
    proxy.down()
    proxy.up()
    client.start_run("invoice-intake", deadline=one_try())


@pytest.mark.parametrize(
    "fault", [faults.says(200, b" " * (1 << 20) + b'{"runId": 1}'), faults.gigabyte_in_chunks], ids=["plain", "chunked"]
)
def test_too_much_is_not_kept(client: AnymateClient, proxy: FaultProxy, fault: Fault) -> None:
    """A connection on which more came than was read is not used again."""
    client.start_run("invoice-intake")
    proxy.break_next("StartRun", fault)
    with pytest.raises(UnreachableError, match="more than 1048576 bytes"):
        client.start_run("invoice-intake", deadline=one_try())
    client.start_run("invoice-intake")
    assert proxy.connections == 2


def test_largest_answer(client: AnymateClient, proxy: FaultProxy) -> None:
    """An answer of exactly 1 MiB is read."""
    body = b'{"runId": 1}'
    proxy.break_next("StartRun", faults.says(200, b" " * ((1 << 20) - len(body)) + body))
    assert client.start_run("invoice-intake") == 1


def test_forgotten_client(sandbox: Sandbox, proxy: FaultProxy, recwarn: pytest.WarningsRecorder) -> None:
    """A client that is forgotten, be it in a cycle, leaves no connection open, and Python does not warn of any."""
    client = client_of(sandbox, proxy.url)
    client.start_run("invoice-intake")
    cycle = [client]
    cycle.append(cycle)  # type: ignore[arg-type]
    del client, cycle
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []
    until(lambda: not proxy.still_open)


def test_after_many_failures(sandbox: Sandbox, proxy: FaultProxy) -> None:
    """Failed calls leave no connection behind."""
    with client_of(sandbox, proxy.url) as client:
        client.ok_to_run("invoice-intake")
        for fault in (faults.reset_before, faults.cut_body, faults.junk, faults.reset_after):
            proxy.break_next("OkToRun", fault)
            with pytest.raises(UnreachableError):
                client.ok_to_run("invoice-intake", deadline=one_try())
        client.ok_to_run("invoice-intake")
        assert proxy.connections == 5

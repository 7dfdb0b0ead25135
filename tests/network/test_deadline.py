"""The deadline is hard, whatever the other side does."""

from __future__ import annotations

import math
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from anymate_guard import AnymateClient, UnreachableError
from anymate_guard._deadline import Deadline
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.clients import client_of, settings_of
from tests.support.clock import Clock
from tests.support.proxy import Exchange, Fault, FaultProxy, read_request
from tests.support.waiting import LONGEST, in_time


def dripping(data: bytes, *, after: bytes = b"") -> Fault:
    """An answer that drips, perhaps after a beginning that does not."""

    def fault(exchange: Exchange) -> None:
        exchange.send(after)
        exchange.drip(data)

    return fault


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SLOW: dict[str, Fault] = {
    "silence": faults.silence,
    "header": faults.dripped_header,
    "body": faults.dripped_body,
    "chunks": dripping(b"1\r\n \r\n" * 1_000, after=CHUNKED),
    "status line": dripping(b"HTTP/1.1 200 " + b"O" * 10_000),
    "interim answers": dripping(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
    "after the body": dripping(b"X-Trailer: and on\r\n" * 1_000, after=CHUNKED + b"0\r\n"),
}


def interim_answers(exchange: Exchange) -> None:
    """Answers that say to go on, as fast as they are read."""
    while True:
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000)


@pytest.mark.parametrize("operation", ["token", "StartRun"])
@pytest.mark.parametrize("fault", SLOW.values(), ids=SLOW)
def test_slow_answer(sandbox: Sandbox, proxy: FaultProxy, operation: str, fault: Fault) -> None:
    """An answer on which nothing comes, or byte after byte, ends with the deadline."""
    proxy.break_next(operation, fault, times=math.inf)
    with client_of(sandbox, proxy.url, deadline=1) as client, in_time(), pytest.raises(UnreachableError):
        client.start_run("invoice-intake")


def backward_chunk(exchange: Exchange) -> None:
    """A chunk of -1 bytes, which http.client takes for all that come."""
    exchange.send(CHUNKED + b"-1\r\n")
    while True:
        exchange.send(b"x" * 100_000)


@pytest.mark.parametrize(
    "fault",
    [faults.gigabyte, faults.gigabyte_in_chunks, interim_answers, backward_chunk],
    ids=["plain", "chunked", "interim answers", "backward chunk"],
)
def test_gigabytes(sandbox: Sandbox, proxy: FaultProxy, fault: Fault) -> None:
    """An answer of 1 GiB is refused in time, and in constant memory."""
    with client_of(sandbox, proxy.url) as client:
        client.start_run("warm-up")
        proxy.break_next("StartRun", fault, times=math.inf)
        tracemalloc.start()
        try:
            with in_time(), pytest.raises(UnreachableError):
                client.start_run("invoice-intake", deadline=Deadline.after(2))
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()


def test_waiting_for_its_turn(client: AnymateClient) -> None:
    """A deadline that is over already ends a call at once, before anything is sent."""
    with pytest.raises(UnreachableError, match="the deadline is over"):
        client.start_run("invoice-intake", deadline=Deadline.after(-1))


Serve = Callable[[socket.socket, threading.Event], object]


@contextmanager
def listener(serve: Serve) -> Iterator[str]:
    """A server of raw sockets, which tells them when it is over; gives its address without a scheme."""
    over = threading.Event()

    def accept() -> None:
        with suppress(OSError):
            while True:
                sock, _ = server.accept()
                threading.Thread(target=attend, args=(sock,), daemon=True).start()

    def attend(sock: socket.socket) -> None:
        with suppress(OSError), sock:
            serve(sock, over)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        over.set()


def silent(_: socket.socket, over: threading.Event) -> None:
    """Say nothing."""
    over.wait()


def drip(data: bytes) -> Serve:
    """Send a byte each tenth of a second."""

    def serve(sock: socket.socket, over: threading.Event) -> None:
        for number in data:
            sock.sendall(bytes([number]))
            over.wait(0.1)

    return serve


def test_silent_handshake(sandbox: Sandbox) -> None:
    """A TLS handshake that is never answered ends with the deadline."""
    with listener(silent) as address:
        settings = settings_of(sandbox, f"https://{address}", deadline=1)
        with in_time(), pytest.raises(UnreachableError):
            AnymateClient(settings).start_run("invoice-intake")


def test_dripped_handshake(sandbox: Sandbox) -> None:
    """A TLS handshake that drips ends with the deadline."""
    with listener(drip(b"\x16\x03\x03\x40\x00" + b"\x02" * 1_000)) as address:
        settings = settings_of(sandbox, f"https://{address}", deadline=1)
        with in_time(), pytest.raises(UnreachableError):
            AnymateClient(settings).start_run("invoice-intake")


@pytest.mark.parametrize(
    "serve",
    [
        silent,
        drip(b"HTTP/1.1 200 Connection established" + b"." * 1_000),
    ],
    ids=["silent", "dripping"],
)
def test_tunnel(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, serve: Serve) -> None:
    """A proxy that is slow to open a tunnel ends with the deadline."""
    with listener(serve) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        client = client_of(sandbox, "https://anymate.invalid", deadline=1)
        with in_time(), pytest.raises(UnreachableError):
            client.start_run("invoice-intake")


def test_tunnel_to_nobody(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tunnel that is opened late leaves its TLS handshake only the rest of the deadline."""

    def late(sock: socket.socket, over: threading.Event) -> None:
        sock.recv(999)
        over.wait(1)
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        over.wait()

    with listener(late) as address:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        client = client_of(sandbox, "https://anymate.invalid", deadline=2)
        with in_time(), pytest.raises(UnreachableError):
            client.start_run("invoice-intake")


def test_dead_addresses(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """A host with six dead addresses ends with the deadline, and each of them was tried."""
    tried = dead(monkeypatch, [f"203.0.113.{number}" for number in range(1, 7)])
    client = client_of(sandbox, "https://anymate.example", deadline=1.2)
    with pytest.raises(UnreachableError) as caught:
        client.start_run("invoice-intake")
    assert clock.ahead == pytest.approx(1.2)
    assert set(tried) == {f"203.0.113.{number}" for number in range(1, 7)}
    assert not caught.value.maybe_sent
    assert caught.value.reason == "https://anymate.example: TimeoutError: timed out"


@pytest.mark.usefixtures("clock")
def test_dead_address_first(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host is reached by its live address though another one before it is dead."""
    port = int(sandbox.url.rpartition(":")[2])
    dead(monkeypatch, ["203.0.113.1", "127.0.0.1"])
    with client_of(sandbox, f"http://localhost:{port}") as client:
        assert client.start_run("invoice-intake") > 0


def dead(monkeypatch: pytest.MonkeyPatch, addresses: list[str]) -> list[str]:
    """Let every host have these addresses; nobody answers at those kept for documentation. Gives those tried."""
    tried: list[str] = []
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def found(host: str, port: int, *args: object, **kwargs: object) -> object:
        if host in addresses:
            return look_up(host, port, type=socket.SOCK_STREAM)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    def reach(sock: socket.socket, address: tuple[str, int]) -> None:
        if address[0].startswith("203."):
            tried.append(address[0])
            time.sleep(sock.gettimeout() or LONGEST)
            raise TimeoutError("timed out")
        connect(sock, address)

    monkeypatch.setattr(socket, "getaddrinfo", found)
    monkeypatch.setattr(socket.socket, "connect", reach, raising=False)
    return tried


def test_slow_connection(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """A connection that took long leaves its TLS handshake only the rest of the deadline."""
    connect = socket.socket.connect

    def slow(sock: socket.socket, address: tuple[str, int]) -> None:
        clock.sleep(LONGEST - 0.5)
        connect(sock, address)

    with listener(silent) as address:
        monkeypatch.setattr(socket.socket, "connect", slow, raising=False)
        client = client_of(sandbox, f"https://{address}")
        with in_time(), pytest.raises(UnreachableError):
            client.start_run("invoice-intake")


def test_unknown_host(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that has no address is named."""

    def unknown(*args: object, **kwargs: object) -> object:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with (
        client_of(sandbox, "https://anymate.example", deadline=0.3) as client,
        pytest.raises(UnreachableError) as caught,
    ):
        client.start_run("invoice-intake")
    assert caught.value.reason == "https://anymate.example: gaierror: [Errno -2] Name or service not known"


def test_host_that_cannot_be(sandbox: Sandbox) -> None:
    """A host name that can't be looked up at all is an error of ours, too."""
    with client_of(sandbox, f"https://{'ä' * 63}.example", deadline=0.3) as client, pytest.raises(UnreachableError):
        client.start_run("invoice-intake")


@pytest.mark.parametrize("delay", [0, LONGEST - 1.5])
def test_server_that_does_not_read(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, clock: Clock, delay: float
) -> None:
    """A request that the server does not take off the wire ends with the deadline, however long connecting took."""
    logged_in = threading.Event()
    connect = socket.socket.connect

    def slow(sock: socket.socket, address: tuple[str, int]) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        clock.sleep(delay if logged_in.is_set() else 0)
        connect(sock, address)

    def deaf(sock: socket.socket, over: threading.Event) -> None:
        if logged_in.is_set():
            over.wait()
        else:
            logged_in.set()
            read_request(sock)
            sock.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"access_token": "abc"}')

    monkeypatch.setattr(socket.socket, "connect", slow, raising=False)
    with listener(deaf) as address, in_time(), pytest.raises(UnreachableError) as caught:
        client_of(sandbox, f"http://{address}", deadline=delay + 1.5).start_run("x" * 200_000)
    assert (caught.value.operation, caught.value.maybe_sent) == ("StartRun", True)


def test_kept_connection_that_is_not_read(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request over a kept connection has the patience of its own deadline, not of the one before."""
    connect = socket.socket.connect

    def small(sock: socket.socket, address: tuple[str, int]) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connect(sock, address)

    def deaf(sock: socket.socket, over: threading.Event) -> None:
        for answer in (b'{"access_token": "abc"}', b'{"succeeded": true}    '):
            read_request(sock)
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n" + answer)
        over.wait()

    monkeypatch.setattr(socket.socket, "connect", small, raising=False)
    with listener(deaf) as address:
        client = client_of(sandbox, f"http://{address}")
        client.finish_run(1)
        with in_time(), pytest.raises(UnreachableError):
            client.start_run("x" * 200_000, deadline=Deadline.after(1))

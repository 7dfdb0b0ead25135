"""The server: connections, strangers, and the end."""

from __future__ import annotations

import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from anymate_guard.sandbox import Sandbox
from anymate_guard.sandbox._server import Server
from tests.support.waiting import LONGEST, until
from tests.support.wine import WINE, wakes_nobody

from .support import Bot

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def connect(sandbox: Sandbox) -> socket.socket:
    """Open a bare connection."""
    address = urlsplit(sandbox.url)
    return socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=LONGEST)


def read_all(line: socket.socket) -> bytes:
    """Read until the other side closes."""
    data = b""
    while piece := line.recv(65_536):
        data += piece
    return data


def test_keep_alive(sandbox: Sandbox, bot: Bot) -> None:
    """All requests of a connection that is kept alive, refused ones included, have its number."""
    bot.start()
    bot.post("/api/FinishRun/", b"no json")
    bot.get("/api/Nonsense")
    other = Bot(sandbox).login()
    other.close()
    assert [request["connection"] for request in sandbox.requests()] == [1, 1, 1, 1, 2]


def test_answers_come_in_one_piece(sandbox: Sandbox, bot: Bot) -> None:
    """Head and body of an answer come together: no packet waits for another, which costs 40 ms where it does."""
    request = f"GET /api/OkToRun/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bot.headers['Authorization']}\r\n\r\n"
    with closing(connect(sandbox)) as line:
        for _ in range(100):
            line.sendall(request.encode())
            head, _, body = line.recv(65_536).partition(b"\r\n\r\n")
            (length,) = re.findall(rb"(?i)content-length: (\d+)", head)
            assert len(body) == int(length) > 0


def test_pipelining(sandbox: Sandbox) -> None:
    """Requests sent at once are answered one after the other, and a wish to close is granted."""
    first = b"POST /sandbox/reset HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nxyz"
    last = b"GET /sandbox/runs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with closing(connect(sandbox)) as line:
        line.sendall(first + last)
        answer = read_all(line)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.count(b"Connection: close") == 1
    assert answer.endswith(b"[]")


def test_many_clients(sandbox: Sandbox, bot: Bot) -> None:
    """A hundred clients that come at the same moment are all served, and share one run."""
    barrier = threading.Barrier(100)

    def start() -> int:
        client = Bot(sandbox)
        client.headers = bot.headers
        barrier.wait(LONGEST)
        with closing(client):
            return client.start()

    with ThreadPoolExecutor(100) as pool:
        numbers = {future.result() for future in [pool.submit(start) for _ in range(100)]}
    assert len(numbers) == 1
    assert len(sandbox.runs()) == 1


def test_silence(bot: Bot, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed, whatever is sent."""
    bot.start()
    bot.get("/nonsense")
    with closing(connect(sandbox)) as line:
        line.sendall(b"rubbish\r\n\r\n")
        read_all(line)
    sandbox.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("head", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
def test_broken_body(bot: Bot, sandbox: Sandbox, head: bytes) -> None:
    """A body that breaks off changes nothing and gets no answer."""
    with closing(connect(sandbox)) as line:
        line.sendall(b"POST /api/FinishRun/ HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\nx")
        line.shutdown(socket.SHUT_WR)
        assert read_all(line) == b""
    assert bot.get("/api/OkToRun/invoices").status == 200


def test_client_that_leaves(bot: Bot, sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    """A client that leaves before its answer bothers nobody."""
    sandbox.fail_next("OkToRun", hang=True)
    with closing(connect(sandbox)) as line:
        line.sendall(b"GET /api/OkToRun/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: not sandbox.faults())
    sandbox.reset()
    assert bot.get("/api/OkToRun/invoices").status == 200
    sandbox.close()
    assert capfd.readouterr() == ("", "")


def test_expect_continue(sandbox: Sandbox) -> None:
    """A client that asks first is told to go on, once."""
    head = b"POST /sandbox/reset HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2\r\n"
    with closing(connect(sandbox)) as line:
        line.sendall(head + b"Expect: 100-continue\r\n\r\n{}")
        answer = read_all(line)
    assert answer.count(b"100 Continue") == 1
    assert b"200 OK" in answer


def test_bug() -> None:
    """An application that raises is answered 500 with the traceback, and the connection lives on."""

    def broken(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["no such thing"]]

    server = Server(broken, 0)
    server.start()
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=LONGEST)) as client:
        for _ in range(2):
            client.request("GET", "/")
            with client.getresponse() as answer:
                assert answer.status == 500
                assert b"KeyError: 'no such thing'" in answer.read()
        server.stop()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:1", "127.0.0.1:99", "[::1]:5"])
def test_own_hosts(bot: Bot, host: str) -> None:
    """Loopback names are let in with any port."""
    assert bot.get("/sandbox/runs", Host=host).status == 200


@pytest.mark.parametrize("path", ["/sandbox/runs", "/api/OkToRun/x", "/"])
@pytest.mark.parametrize("host", ["anymate.app", "evil.localhost.example", "localhost.", "127.0.0.1:x", "0.0.0.0", ""])
def test_foreign_hosts(bot: Bot, path: str, host: str) -> None:
    """Any other Host, as after DNS rebinding, is answered 403."""
    assert bot.get(path, Host=host).status == 403


def test_no_host(sandbox: Sandbox) -> None:
    """A request without a Host is answered 403, and closed if it is HTTP/1.0."""
    with closing(connect(sandbox)) as line:
        line.sendall(b"GET /sandbox/runs HTTP/1.0\r\n\r\n")
        answer = read_all(line)
    assert answer.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("origin", ["https://anymate.app", "null", "http://localhost:3000", "http://127.0.0.1:80"])
def test_foreign_origin(sandbox: Sandbox, bot: Bot, origin: str) -> None:
    """What a page of another origin sends is answered 403 and changes nothing."""
    bot.start()
    assert bot.post("/sandbox/reset", None, Origin=origin).status == 403
    assert bot.get("/sandbox/runs", Origin=origin).status == 403
    assert len(sandbox.runs()) == 1


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)]
)
def test_foreign_site(bot: Bot, site: str, status: int) -> None:
    """A write that a browser marks as coming from another site is answered 403; a read by a link is not."""
    assert bot.post("/sandbox/reset", None, Sec_Fetch_Site=site).status == status
    assert bot.get("/sandbox/runs", Sec_Fetch_Site=site).status == 200


def test_own_origin(bot: Bot) -> None:
    """A page of the sandbox itself may write."""
    assert bot.post("/sandbox/reset", None, Origin=bot.sandbox.url, Sec_Fetch_Site="same-origin").status == 200


@wakes_nobody
def test_close(sandbox: Sandbox, bot: Bot) -> None:
    """Closing waits for nobody: it ends open connections, hanging calls, threads and the address."""
    sandbox.close()
    before = set(threading.enumerate())
    sandbox.start()
    sandbox.fail_next("StartRun", hang=True)
    with closing(connect(sandbox)) as idle, closing(connect(sandbox)) as hanging:
        token = bot.headers["Authorization"]
        hanging.sendall(f"GET /api/StartRun/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\r\n".encode())
        until(lambda: not sandbox.faults())
        sandbox.close()
        assert idle.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(sandbox)
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("anymate-sandbox")]
    assert left == []


def test_close_twice(sandbox: Sandbox) -> None:
    """Closing again, or before starting, does nothing."""
    sandbox.close()
    sandbox.close()
    Sandbox().close()


def test_start_twice(sandbox: Sandbox) -> None:
    """Starting what is started does nothing."""
    url = sandbox.url
    assert sandbox.start() is sandbox
    assert sandbox.url == url


def test_outage(sandbox: Sandbox, bot: Bot) -> None:
    """A sandbox that was closed and started again is back at its address, with all it knew."""
    run_id, url = bot.start(), sandbox.url
    bot.close()
    sandbox.close()
    sandbox.start()
    assert sandbox.url == url
    assert bot.start() == run_id
    sandbox.fail_next("StartRun", delay=0.001)
    assert bot.start() == run_id


def test_no_address_before_start() -> None:
    """A sandbox that takes any port has no address before it is started."""
    with pytest.raises(RuntimeError, match="started"):
        _ = Sandbox().url


def test_port_is_taken(sandbox: Sandbox) -> None:
    """A port that is taken is an OSError, and ends no program."""
    port = urlsplit(sandbox.url).port
    assert port is not None
    with pytest.raises(OSError, match="10048" if WINE else r"(?i)us(e|age)"):
        Sandbox(port).start()


def test_chosen_port() -> None:
    """A sandbox can be told where to serve."""
    with Sandbox() as first:
        port = urlsplit(first.url).port
    assert port is not None
    with Sandbox(port) as second:
        assert second.url == first.url


def test_real_clock() -> None:
    """Without a clock of its own a sandbox goes by the real time."""
    with Sandbox() as sandbox, closing(Bot(sandbox)) as bot:
        began = time.time()
        bot.login()
        assert sandbox.requests()[0]["at"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began))

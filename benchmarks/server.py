"""A server that answers as Anymate does, as fast as Python can, in a process of its own.

One thread serves all connections, and every answer is made beforehand but for the run's number, so that what is
measured is the client. Its certificate is made on the spot.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import selectors
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType

import trustme

ROOT = Path(__file__).parents[1]
_BACKLOG = 256
_READ = 65_536
_FAR_AWAY = 4_102_444_800  # the token's end, in 2100
_FINISHED = b'{"succeeded":true,"message":"Run finished"}'
_OK_TO_RUN = b'{"gateOpen":true,"tasksAvailable":true,"notBlockedDate":true,"okToRun":true}'
_HEAD = (
    "HTTP/1.1 {}\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: benchmark\r\n"
    "Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n{}\r\n"
)


class Server:
    """The server in its own process, for the scope of a `with`; `environ` points clients at it.

    Attributes:
        url: Its address.
        environ: The variables that point a client here, and let it trust the certificate.
    """

    def __init__(self) -> None:
        self.url = ""
        self.environ: dict[str, str] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Server:
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            command = [sys.executable, "-m", "benchmarks.server", folder]
            process = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE))
            assert process.stdout is not None
            port = int(process.stdout.readline())
            self._stack = stack.pop_all()
        self.url = f"https://127.0.0.1:{port}"
        self.environ = _environ(self.url, str(Path(folder) / "ca.pem"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _ask(f"{self.url}/stop", self.environ["SSL_CERT_FILE"])
        self._stack.close()

    def counts(self) -> dict[str, int]:
        """How many `connections`, `token_requests`, `starts` and `finishes` there were."""
        counts: dict[str, int] = json.loads(_ask(f"{self.url}/counts", self.environ["SSL_CERT_FILE"]))
        return counts


def outage(url: str, authority: str, *, begins: bool) -> None:
    """Let FinishRun be unavailable, or work again."""
    _ask(f"{url}/outage/{int(begins)}", authority)


def _environ(url: str, authority: str) -> dict[str, str]:
    return {
        "ANYMATE_CLIENT_ID": "benchmark",
        "ANYMATE_CLIENT_SECRET": "benchmark-secret",
        "ANYMATE_USERNAME": "mate@benchmark",
        "ANYMATE_PASSWORD": "benchmark-password",
        "ANYMATE_API_URL": url,
        "ANYMATE_AUTH_URL": url,
        "REQUESTS_CA_BUNDLE": authority,
        "SSL_CERT_FILE": authority,
    }


def _ask(url: str, authority: str) -> bytes:
    context = ssl.create_default_context(cafile=authority)
    with urllib.request.urlopen(url, context=context, timeout=10) as answer:  # our own address
        body: bytes = answer.read()
    return body


class _Api:
    """What it answers."""

    def __init__(self) -> None:
        self.connections = 0
        self.token_requests = 0
        self.finishes = 0
        self.starts = 0
        self.stopped = False
        self._outage = False
        self._run_ids = itertools.count(1)
        self._token = _whole("200 OK", _token())
        self._finished = _whole("200 OK", _FINISHED)
        self._ok_to_run = _whole("200 OK", _OK_TO_RUN)
        self._unavailable = _whole("503 Service Unavailable", b"{}", "Retry-After: 3600\r\n")  # so that nobody waits

    def answer(self, path: bytes) -> bytes:
        """The answer to a request, by its path."""
        if path.startswith(b"/api/Start"):
            self.starts += 1
            return _whole("200 OK", b'{"processKey":"benchmark","runId":%d}' % next(self._run_ids))
        if path.startswith(b"/api/FinishRun"):
            if self._outage:
                return self._unavailable
            self.finishes += 1
            return self._finished
        if path.startswith(b"/api/OkToRun"):
            return self._ok_to_run
        if path == b"/connect/token":
            self.token_requests += 1
            return self._token
        return self._control(path)

    def _control(self, path: bytes) -> bytes:
        if path.startswith(b"/outage/"):
            self._outage = path.endswith(b"1")
        elif path == b"/stop":
            self.stopped = True
        elif path != b"/counts":
            return _whole("404 Not Found", b"{}")
        names = ("connections", "token_requests", "starts", "finishes")
        return _whole("200 OK", json.dumps({name: getattr(self, name) for name in names}).encode())


class _Connection:
    """One client's connection; it counts from its first call on, so that ours to the control side do not."""

    def __init__(self, sock: ssl.SSLSocket, api: _Api) -> None:
        self.sock = sock
        self._api = api
        self._received = b""
        self._open = False
        self._counted = False

    def serve(self) -> bool:
        """Answer what has arrived; False when the client is gone."""
        try:
            if not self._open:
                self.sock.do_handshake()
                self._open = True
                return True
            while data := self.sock.recv(_READ):
                self._received += data
                self._answer()
                if not self.sock.pending():
                    return True
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except OSError:
            pass
        return False

    def _answer(self) -> None:
        while (end := _end(self._received)) > 0:
            path = self._received.split(b" ", 2)[1]
            self._received = self._received[end:]
            if not self._counted and path.startswith((b"/api/", b"/connect/")):
                self._counted = True
                self._api.connections += 1
            self.sock.send(self._api.answer(path))


def _end(received: bytes) -> int:
    """Where the first request ends; 0 while it is not whole."""
    head = received.find(b"\r\n\r\n")
    if head < 0:
        return 0
    if received.startswith(b"GET"):
        return head + 4
    _, _, rest = received[:head].lower().partition(b"\r\ncontent-length:")
    end = head + 4 + int(rest.partition(b"\r\n")[0] or 0)
    return end if len(received) >= end else 0


def _whole(status: str, body: bytes, more: str = "") -> bytes:
    return _HEAD.format(status, len(body), more).encode() + body


def _token() -> bytes:
    """A token as the official SDK can read it: a JWT with an end."""
    parts = ({"alg": "HS256", "typ": "JWT"}, {"exp": _FAR_AWAY}, "signature")
    coded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts)
    answer = {"access_token": ".".join(coded), "expires_in": 86_400, "token_type": "Bearer", "scope": "api"}
    return json.dumps(answer).encode()


def _context(folder: Path) -> ssl.SSLContext:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


def _accept(listener: socket.socket, context: ssl.SSLContext, api: _Api) -> _Connection:
    plain, _ = listener.accept()
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setblocking(False)
    return _Connection(context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), api)


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    api = _Api()
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        parent = os.getppid()
        while not api.stopped and os.getppid() == parent:
            for key, _ in selector.select(timeout=5):
                if key.data is None:
                    connection = _accept(listener, context, api)
                    selector.register(connection.sock, selectors.EVENT_READ, connection)
                elif not key.data.serve():
                    selector.unregister(key.data.sock)
                    key.data.sock.close()


def main() -> None:
    """Serve until told to stop, or until the program that started it is gone."""
    context = _context(Path(sys.argv[1]))
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
        print(listener.getsockname()[1], flush=True)
        _serve(listener, context)


if __name__ == "__main__":
    main()

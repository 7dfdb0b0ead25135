"""A server in front of a sandbox that breaks calls on request, in ways that a web framework can't."""

from __future__ import annotations

import http.client
import json
import math
import select
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit

_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
_SHARED = socket.SO_REUSEADDR if sys.platform == "win32" else socket.SO_REUSEPORT
_CHUNK = 1 << 16


class Gone(Exception):
    """The connection is over."""


class Exchange:
    """One request that reached the proxy, to be answered or not.

    Attributes:
        operation: "token", "CONNECT", or what follows /api/ in the path; StartOrGetRun counts as StartRun.
        head: Request line and headers.
        body: Request body.
    """

    def __init__(self, proxy: FaultProxy, sock: socket.socket, head: bytes, body: bytes) -> None:
        self._proxy = proxy
        self._sock = sock
        self.head = head
        self.body = body
        self.method, self.path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        self.operation = _operation(self.method, self.path)

    def header(self, name: str) -> str:
        """A request header, empty when there is none."""
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            known, _, value = line.partition(":")
            if known.lower() == name.lower():
                return value.strip()
        return ""

    def forward(self) -> tuple[int, bytes]:
        """Let the sandbox do it, and give its answer: status and body."""
        self._proxy.check_if_up()
        upstream = http.client.HTTPConnection(self._proxy.upstream, timeout=30)
        upstream.set_debuglevel(0)  # whatever a test sets for all
        try:
            names = ("Authorization", "Content-Type", "User-Agent")
            upstream.request(
                self.method,
                self.path,
                self.body or None,
                {name: self.header(name) for name in names if self.header(name)},
            )
            answer = upstream.getresponse()
            body = answer.read()
        finally:
            upstream.close()
        if self.operation == "token" and answer.status == 200:
            self._proxy.tokens.append(json.loads(body)["access_token"])
        return answer.status, body

    def join(self, upstream: socket.socket) -> None:
        """Pass everything on to another server from now on."""
        join(self._sock, upstream)

    def send(self, data: bytes) -> None:
        """Send some bytes of an answer."""
        try:
            self._sock.sendall(data)
        except OSError:
            raise Gone from None

    def answer(self, status: int, body: bytes | str | object = b"", **headers: str) -> None:
        """Send a whole answer; text and bytes as they are, other bodies as JSON."""
        data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
        lines = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        lines.update((name.replace("_", "-"), value) for name, value in headers.items())
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(f"HTTP/1.1 {status} Because\r\n{head}\r\n".encode() + data)

    def drip(self, data: bytes) -> None:
        """Send byte after byte, each a little before the client loses its patience, until it is gone."""
        for number in data:
            self.send(bytes([number]))
            self.pause(self._proxy.drip)

    def pause(self, seconds: float = math.inf) -> None:
        """Wait; without an answer for ever, that is until the connection or the proxy is closed."""
        self._sock.settimeout(None if seconds == math.inf else seconds)
        try:
            if not self._sock.recv(1):
                raise Gone
        except TimeoutError:
            self._sock.settimeout(None)
        except OSError:
            raise Gone from None

    def end(self) -> None:
        """End the connection in an orderly way."""
        raise Gone

    def reset(self) -> None:
        """End the connection with a reset."""
        plain = self._sock
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        socket.close(plain.detach())
        raise Gone

    def echo(self) -> str:
        """What was sent, secrets and all, as a careless server would quote it."""
        return (self.head + self.body).decode("latin-1")


Fault = Callable[[Exchange], None]


class FaultProxy:
    """Passes calls on to a sandbox, but for those that it is asked to break.

    Args:
        upstream: The sandbox's address.
        tls: Serve TLS with this context.
        drip: Seconds between two bytes of a dripped answer.

    Attributes:
        connections: How many were accepted.
        tokens: Every token that went through.
        calls: Operations in the order they came.
    """

    def __init__(self, upstream: str, *, tls: ssl.SSLContext | None = None, drip: float = 0.1) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.drip = drip
        self.connections = 0
        self.tokens: list[str] = []
        self.calls: list[str] = []
        self._tls = tls
        self._lock = threading.Lock()
        self._faults: dict[str, tuple[Fault, float]] = {}
        self._down_after: str | None = None
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._holder = _bound(0)  # keeps the port while nobody listens on it
        self.port: int = self._holder.getsockname()[1]
        self.up()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()
        self._holder.close()

    @property
    def url(self) -> str:
        """The address to call."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def still_open(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def break_next(self, operation: str, fault: Fault, times: float = 1) -> None:
        """Break the next calls of an operation; `math.inf` breaks all until `heal`."""
        with self._lock:
            self._faults[operation] = (fault, times)

    def down_after(self, operation: str) -> None:
        """Refuse connections from the next answer to an operation on."""
        self._down_after = operation

    def check_if_up(self) -> None:
        """End a connection that was accepted while the listener was being closed."""
        if self._listener is None:
            raise Gone

    def up(self) -> None:
        """Accept connections."""
        self._down_after = None
        self._listener = _bound(self.port)
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse connections, and end those that are open."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.hang_up()

    def heal(self) -> None:
        """Break nothing from now on."""
        with self._lock:
            self._faults.clear()
        if self._listener is None:
            self.up()
        self.hang_up()

    def hang_up(self) -> None:
        """End the connections that are open."""
        with self._lock:
            still_open = list(self._open)
        for sock in still_open:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                sock, _ = listener.accept()
                self.connections += 1
                with self._lock:
                    self._open.add(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        raw = sock
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            while True:
                self._exchange(Exchange(self, sock, *read_request(sock)))
        except (Gone, OSError):
            pass
        finally:
            with self._lock:
                self._open.discard(raw)
            sock.close()

    def _exchange(self, exchange: Exchange) -> None:
        self.calls.append(exchange.operation)
        fault = self._take(exchange.operation)
        if fault is not None:
            fault(exchange)
            return
        status, body = exchange.forward()
        if self._down_after == exchange.operation and status < 300:
            exchange.answer(status, body, Connection="close")
            self.down()
        exchange.answer(status, body)

    def _take(self, operation: str) -> Fault | None:
        with self._lock:
            fault, times = self._faults.get(operation, (None, 0.0))
            if fault is not None and times > 1:
                self._faults[operation] = (fault, times - 1)
            else:
                self._faults.pop(operation, None)
            return fault


def _bound(port: int) -> socket.socket:
    """A socket on that port, which others of this process may share."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, _SHARED, True)
    sock.bind(("127.0.0.1", port))
    return sock


def read_request(sock: socket.socket) -> tuple[bytes, bytes]:
    """Read one request: its head, and its body as long as Content-Length says."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(sock)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += _some(sock)
    return head, body


def _some(sock: socket.socket) -> bytes:
    data = sock.recv(_CHUNK)
    if not data:
        raise Gone
    return data


def _operation(method: str, path: str) -> str:
    if method == "CONNECT":
        return method
    if path.endswith("/connect/token"):
        return "token"
    name = path.rpartition("/api/")[2].split("/")[0]
    return "StartRun" if name == "StartOrGetRun" else name


def join(one: socket.socket, other: socket.socket) -> None:
    """Pass everything on, both ways, until one side ends; in one thread, as TLS does not stand two."""
    sinks = {one: other, other: one}
    with suppress(OSError):
        while True:
            for source in _ready(sinks):
                data = source.recv(_CHUNK)
                if not data:
                    return
                sinks[source].sendall(data)


def _ready(socks: Iterable[socket.socket]) -> list[socket.socket]:
    """Those on which something has come; TLS may have received more than was read from it."""
    received: list[socket.socket] = [sock for sock in socks if isinstance(sock, ssl.SSLSocket) and sock.pending()]
    return received or select.select(list(socks), [], [])[0]

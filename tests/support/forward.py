"""What stands between a client and a server: a forward proxy as companies have them, a slow line; and certificates."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from types import TracebackType
from typing import TypeVar
from urllib.parse import urlsplit

import trustme
from typing_extensions import Self

from tests.support.proxy import join

T = TypeVar("T")


class _Server:
    """Serves each connection in a thread of its own.

    Attributes:
        address: Host and port.
        connections: How many were accepted.
    """

    def __init__(self) -> None:
        self.connections = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def serve(self, sock: socket.socket) -> None:
        """Serve a connection."""
        raise NotImplementedError

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                self.connections += 1
                threading.Thread(target=self._attend, args=(sock,), daemon=True).start()

    def _attend(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            self.serve(sock)


class ForwardProxy(_Server):
    """Passes requests with a whole address on, and opens tunnels.

    Args:
        tls: Serve TLS with this context.

    Attributes:
        requests: The first line and the Proxy-Authorization header of each connection.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.requests: list[tuple[str, str]] = []
        self._tls = tls

    def serve(self, sock: socket.socket) -> None:
        """Take a request, and pass on what follows."""
        if self._tls is not None:
            sock = self._tls.wrap_socket(sock, server_side=True)
        with sock:
            data = b""
            while b"\r\n\r\n" not in data:
                data += sock.recv(1 << 16)
            head, _, rest = data.partition(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            credentials = [line.partition(": ")[2] for line in lines if line.lower().startswith("proxy-authorization:")]
            self.requests.append((lines[0], "".join(credentials)))
            method, target, version = lines[0].split(" ")
            if method == "CONNECT":
                host, _, port = target.rpartition(":")
                with socket.create_connection((host.strip("[]"), int(port))) as upstream:
                    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    join(sock, upstream)
            else:
                parts = urlsplit(target)
                with socket.create_connection((parts.hostname or "", parts.port or 80)) as upstream:
                    lines[0] = f"{method} {parts.path} {version}"
                    upstream.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + rest)
                    join(sock, upstream)


class SlowLine(_Server):
    """Passes bytes on, both ways; at first as they come.

    Args:
        upstream: Host and port of the server behind it.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__()
        self._upstream = upstream
        self._drips = False
        self._forgotten = 0  # connections that were open then

    def drip(self) -> None:
        """Pass on what the server says byte by byte, one in each tenth of a second, from now on."""
        self._drips = True

    def forget(self) -> None:
        """Swallow all that comes over the connections that are open, and keep them open; new ones work."""
        self._forgotten = self.connections

    def serve(self, sock: socket.socket) -> None:
        """Pass on what comes over one connection."""
        number = self.connections
        host, _, port = self._upstream.rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            there = threading.Thread(target=self._pass_on, args=(sock, upstream, number, 0.0), daemon=True)
            there.start()
            self._pass_on(upstream, sock, number, 0.1)
            there.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket, number: int, pause: float) -> None:
        stop = threading.Event()
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if number <= self._forgotten:
                    continue
                for piece in [data] if not (pause and self._drips) else [bytes([byte]) for byte in data]:
                    sink.sendall(piece)
                    stop.wait(pause if self._drips else 0)
            sink.shutdown(socket.SHUT_WR)


def certified(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """A server's TLS context with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context

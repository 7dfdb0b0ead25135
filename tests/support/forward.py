"""A forward proxy as companies have them, and certificates."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit

import trustme

from tests.support.proxy import join


class ForwardProxy:
    """Passes requests with a whole address on, and opens tunnels.

    Attributes:
        requests: The first line and the Proxy-Authorization header of each connection.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> ForwardProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
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
                with socket.create_connection((host, int(port))) as upstream:
                    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    join(sock, upstream)
            else:
                parts = urlsplit(target)
                with socket.create_connection((parts.hostname or "", parts.port or 80)) as upstream:
                    lines[0] = f"{method} {parts.path} {version}"
                    upstream.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + rest)
                    join(sock, upstream)


def certified(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """A server's TLS context with a certificate for these names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context

"""A threaded HTTP/1.1 server on loopback that keeps connections open and can be stopped at once."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from werkzeug.datastructures import Headers
from werkzeug.exceptions import ClientDisconnected
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.test import run_wsgi_app
from werkzeug.wsgi import get_input_stream

from anymate_guard.sandbox._api.calls import CONNECTION
from anymate_guard.sandbox._state.faults import Dropped

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

AccessLog = Callable[[str, str, "int | None"], None]

HOST = "127.0.0.1"
BACKLOG = 512
POLL_SECONDS = 0.01
CLOSE_SECONDS = 5.0
CHUNK = 2**16
LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class Server(ThreadedWSGIServer):
    """Serves one application from daemon threads, one for each connection."""

    def __init__(self, app: WSGIApplication, port: int, access_log: AccessLog | None = None) -> None:
        # A socket of our own: werkzeug ends the program when a port is taken.
        with socket.create_server((HOST, port), backlog=BACKLOG) as listener:
            super().__init__(HOST, port, self._number, Handler, fd=listener.fileno())
        self.access_log = access_log
        self._app = app
        self._lock = threading.Lock()
        self._serials = itertools.count(1)
        self._open: dict[threading.Thread, _Connection] = {}
        self._thread = threading.Thread(
            target=self.serve_forever, args=(POLL_SECONDS,), name="anymate-sandbox", daemon=True
        )

    def start(self) -> None:
        """Serve from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Close the listener and all connections, and wait for their threads."""
        self.shutdown()
        self._thread.join()
        with self._lock:
            still_open = dict(self._open)
        for connection in still_open.values():
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        end = time.monotonic() + CLOSE_SECONDS
        for thread in still_open:
            thread.join(max(0.0, end - time.monotonic()))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread that `stop` knows of."""
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="anymate-sandbox-connection",
            daemon=True,
        )
        with self._lock:
            self._open[thread] = _Connection(request, next(self._serials))
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection until it ends."""
        super().process_request_thread(request, client_address)
        with self._lock:
            del self._open[threading.current_thread()]

    def _number(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[CONNECTION] = self._open[threading.current_thread()].serial
        return self._app(environ, start_response)


class _Connection(NamedTuple):
    socket: socket.socket
    serial: int


class Handler(WSGIRequestHandler):
    """Serves the requests of one connection.

    werkzeug's own handler closes the connection after each request, because the application may leave part of
    a body unread. Here the rest is read first.
    """

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        """Prepare the connection."""
        super().setup()
        with suppress(OSError):  # macOS refuses this once the client has left
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def make_environ(self) -> WSGIEnvironment:
        """Return the WSGI environment, with a body that cannot be read past its end."""
        environ = super().make_environ()
        environ["wsgi.input"] = get_input_stream(environ)
        environ["wsgi.input_terminated"] = True
        return environ

    def run_wsgi(self) -> None:
        """Answer one request."""
        self.environ = environ = self.make_environ()
        try:
            answer = self._answer(environ)
            while environ["wsgi.input"].read(CHUNK):
                pass
        except Dropped:
            self._reset()
            self._note(None)
        except (ClientDisconnected, OSError):
            self.close_connection = True  # the body broke off, so nobody waits for an answer
        else:
            self._send(*answer)
            self._note(int(answer[0][:3]))

    def _answer(self, environ: WSGIEnvironment) -> tuple[str, Headers, bytes]:
        try:
            chunks, status, headers = run_wsgi_app(self.server.app, environ, buffered=True)
        except (Dropped, OSError):
            raise
        except Exception:  # noqa: BLE001  # a bug in the sandbox is shown to whoever asked
            body = traceback.format_exc().encode()
            headers = Headers({"Content-Type": "text/plain", "Content-Length": str(len(body))})
            return "500 Internal Server Error", headers, body
        return status, headers, b"".join(chunks)

    def _send(self, status: str, headers: Headers, body: bytes) -> None:
        """Send an answer in one piece, so that no part of it waits for an acknowledgement."""
        self.close_connection |= headers.get("Connection") == "close"
        if self.close_connection:
            headers["Connection"] = "close"
        head = "".join(f"{name}: {value}\r\n" for name, value in headers)
        self.wfile.write(f"{self.protocol_version} {status}\r\n{head}\r\n".encode("latin-1") + body)

    def _reset(self) -> None:
        """End the connection by a TCP reset instead of an orderly close."""
        self.close_connection = True
        with suppress(OSError):  # as above
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
        # Detached, as a close would wait for the files made from the socket, and a shutdown would be orderly.
        socket.close(self.connection.detach())

    def _note(self, status: int | None) -> None:
        access_log = cast("Server", self.server).access_log
        if access_log is not None:
            access_log("{}:{}".format(*self.client_address), self.requestline, status)

    def log(
        self,
        type: str,  # noqa: A002  # named by werkzeug
        message: str,
        *args: Any,
    ) -> None:
        """Print nothing; who wants to see requests hands in an access log."""

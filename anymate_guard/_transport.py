"""One HTTP exchange within a deadline, over the pooled connections of requests.

Everything is bounded by what is left of the deadline: each connect (several dead addresses share it), the TLS
handshake, each read of a status line, header or body however slowly it drips; and an answer by its size. The one
thing outside is the operating system's own name look-up.
"""

from __future__ import annotations

import http.client
import io
import queue
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any

import attrs
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ProxyError
from urllib3.util.connection import create_connection

from anymate_guard._deadline import Deadline

MOST_BYTES = 1 << 20

_NOT_SENT = (ConnectTimeoutError, NewConnectionError, ProxyError)

_local = threading.local()  # .deadline and .timeout of the exchange that this thread is in


@attrs.frozen
class Request:
    """What to send; its text form shows no header and no body, as they hold secrets.

    Attributes:
        method: "GET" or "POST".
        base: The server's address.
        path: What follows it, percent-encoded, from the slash on.
        headers: Request headers.
        body: Request body.
    """

    method: str
    base: str
    path: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen
class Answer:
    """What came back.

    Attributes:
        status: HTTP status; 0 when there was no whole answer.
        body: The answer's body; not shown, as a server may echo what it was sent.
        retry_after: The Retry-After header.
        location: The Location header.
        error: Why there is no whole answer.
        maybe_sent: Whether the request may have reached the server.
    """

    status: int = 0
    body: bytes = attrs.field(default=b"", repr=False)
    retry_after: str | None = None
    location: str | None = None
    error: str = ""
    maybe_sent: bool = True


class Transport:
    """A pool of kept-alive connections; safe to share between threads, not across a fork."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._session = requests.Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, _Adapter(pool_maxsize=1))
        self._routes: dict[str, tuple[HTTPConnectionPool, str]] = {}

    def close(self) -> None:
        """Close every idle connection."""
        self._session.close()

    def exchange(self, request: Request, deadline: Deadline) -> Answer:
        """Send a request once and read its answer; failures come back as an `Answer` without status."""
        outer = sys.exc_info()[1]
        try:
            return self._exchange(request, deadline)
        except BaseException as error:  # noqa: BLE001  # requests, urllib3, http.client and ssl raise many kinds
            # The frames below hold headers and bodies as local variables, which some tracebacks show.
            _forget_frames(error, outer)
            if not isinstance(error, Exception):
                raise error.with_traceback(None) from error.__cause__
            return Answer(error=_explain(error), maybe_sent=not isinstance(error, _NOT_SENT))

    def _exchange(self, request: Request, deadline: Deadline) -> Answer:
        _local.deadline, _local.timeout = deadline, self._timeout
        patience = _patience()
        pool, prefix = self._route(request.base)
        response = pool.urlopen(
            request.method,
            prefix + request.path,
            body=request.body,
            headers=request.headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=patience, read=patience),
        )
        try:
            body = response.read(MOST_BYTES + 1)
            whole = len(body) <= MOST_BYTES
        except BaseException:
            response.close()
            raise
        if not whole:
            response.close()
            return Answer(error=f"HTTP {response.status} with an answer of more than {MOST_BYTES} bytes")
        response.release_conn()
        return Answer(
            response.status, body, response.headers.get("Retry-After"), response.headers.get("Location")
        )

    def _route(self, base: str) -> tuple[HTTPConnectionPool, str]:
        """The pool for an address, and what goes before the path; proxies and CA bundles as in requests."""
        route = self._routes.get(base)
        if route is None:
            adapter = self._session.get_adapter(base)
            settings = self._session.merge_environment_settings(base, {}, None, None, None)
            request = requests.Request("GET", base).prepare()
            pool = adapter.get_connection_with_tls_context(
                request, settings["verify"], settings["proxies"], settings["cert"]
            )
            prefix = adapter.request_url(request, settings["proxies"]).removesuffix("/")
            route = self._routes[base] = (pool, prefix)
        return route


def _patience() -> float:
    """Seconds that the next wait of this thread's exchange may take."""
    left: float = _local.deadline.left()
    if left <= 0:
        raise TimeoutError("the deadline is over")
    return min(_local.timeout, left)


def _explain(error: BaseException) -> str:
    """The innermost reason, which says more than the wrappings of the libraries."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        error = inner


def _forget_frames(error: BaseException | None, outer: BaseException | None) -> None:
    """Drop the tracebacks of an error and of what led to it, up to the one that was being handled before."""
    while error is not None and error is not outer:
        error.__traceback__ = None
        error = error.__context__


class _Reader(socket.SocketIO):
    """Reads from a socket, each time no longer than the deadline allows."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, "r")
        self._bounded = sock

    def readinto(self, buffer: Any) -> int | None:
        self._bounded.settimeout(_patience())
        return super().readinto(buffer)


class _File:
    """Hands http.client a file of a socket that reads through `_Reader`."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> Any:
        if not isinstance(self._sock, socket.socket):  # TLS through a TLS proxy is urllib3's own transport
            return self._sock.makefile(mode)
        self._sock._io_refs += 1  # as socket.makefile does: the socket lives until this file is closed, too
        return io.BufferedReader(_Reader(self._sock))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(_File(sock), *args, **kwargs)  # type: ignore[arg-type]  # it only calls makefile


class _Http(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _Https(HTTPSConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return _connect(self)


def _connect(connection: HTTPConnection) -> socket.socket:
    """Connect to one of a host's addresses; each gets its share of the time that is left."""
    host = connection._dns_host.strip("[]")
    try:
        addresses = socket.getaddrinfo(host, connection.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NameResolutionError(host, connection, error) from error  # type: ignore[arg-type]
    failure: OSError = OSError(f"{host} has no address")
    for tried, (*_, address) in enumerate(addresses):
        share = min(_patience(), _local.deadline.left() / (len(addresses) - tried))
        try:
            sock = create_connection(
                (str(address[0]), connection.port), share, connection.source_address, connection.socket_options
            )
            sock.settimeout(_patience())  # for the TLS handshake
        except OSError as error:
            failure = error
        else:
            return sock
    raise NewConnectionError(connection, str(failure)) from failure


class _Queue(queue.LifoQueue[Any]):
    """Keeps every connection, so that there are as many as threads at work and none is thrown away."""

    def __init__(self, maxsize: int) -> None:  # noqa: ARG002  # the pool fills it with that many empty places
        super().__init__()


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http
    QueueCls = _Queue


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https
    QueueCls = _Queue


class _Adapter(HTTPAdapter):
    """The adapter of requests, with our connections."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        if isinstance(manager, urllib3.ProxyManager):  # a SOCKS proxy has connections of its own kind
            manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
        return manager

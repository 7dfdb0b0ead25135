"""One HTTP exchange within a deadline, over the pooled connections of requests.

Everything is bounded by what is left of the deadline: each connect (several dead addresses share it), the TLS
handshake, each read of a status line, header or body however slowly it drips; and an answer by its size. The one
thing outside is the operating system's own name look-up.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import queue
import socket
import sys
import threading
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context

from anymate_guard._deadline import Deadline
from anymate_guard._http import Answer, Request
from anymate_guard._secrecy import unseen

_MOST_BYTES = 1 << 20
_ONCE = urllib3.Retry(False)


class _Local(threading.local):
    """The exchange that this thread is in."""

    deadline = Deadline(0)
    timeout = 0.0
    sent = False  # whether the request went to the operating system, whole or in part


_local = _Local()


class Transport:
    """A pool of kept-alive connections; safe to share between threads, not across a fork."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._session = requests.Session()  # for its reading of the environment
        self._adapter: Any = _Adapter(pool_maxsize=1)  # not all of it is typed
        self._routes: dict[str, _Route] = {}

    def close(self) -> None:
        """Close every idle connection."""
        self._adapter.close()

    def exchange(self, request: Request, deadline: Deadline) -> Answer:
        """Send a request once and read its answer; failures come back as an `Answer` without status."""
        _local.deadline, _local.timeout, _local.sent = deadline, self._timeout, False
        handled = sys.exc_info()[1]  # by the bot, while it calls us
        try:
            return self._exchange(request)
        except Exception as error:  # noqa: BLE001  # requests, urllib3, http.client and ssl raise many kinds
            return Answer(error=f"{request.base}: {_innermost(error, handled)}", maybe_sent=_local.sent)

    @unseen
    def _exchange(self, request: Request) -> Answer:
        route = self._routes.get(request.base) or self._route(request.base)
        connection = route.idle()
        if connection is not None:
            return route.exchange(connection, request)
        return self._exchange_on_new(route, request)

    def _exchange_on_new(self, route: _Route, request: Request) -> Answer:
        patience = _patience()
        response = route.pool.urlopen(
            request.method,
            route.prefix + request.path,
            body=request.body,
            headers=request.headers,
            retries=_ONCE,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=patience, read=patience),
        )
        whole = False
        try:
            body = b""
            # To the end: only a read that finds nothing more tells an answer that was cut.
            while len(body) <= _MOST_BYTES and (more := response.read(_MOST_BYTES + 1 - len(body))):
                body += more
            whole = len(body) <= _MOST_BYTES
        finally:
            if not whole:
                response.close()
        if not whole:
            return Answer(error=f"HTTP {response.status} with an answer of more than {_MOST_BYTES} bytes")
        response.release_conn()
        headers = response.headers
        return Answer(response.status, body, headers.get("Retry-After"), headers.get("Location"))

    def _route(self, base: str) -> _Route:
        """The way to an address; proxies and CA bundles as in requests."""
        request = requests.Request("GET", base).prepare()
        settings = self._session.merge_environment_settings(base, {}, None, None, None)
        pool = self._adapter.get_connection_with_tls_context(
            request, settings["verify"], settings["proxies"], settings["cert"]
        )
        if pool.scheme == "https":
            self._adapter.cert_verify(pool, base, settings["verify"], settings["cert"])
            # Not for a proxy, whose certificate is looked at with the pool's settings, nor where requests has done it.
            if pool.proxy is None and (pool.ca_certs or pool.ca_cert_dir):
                _share_context(pool)
        prefix = self._adapter.request_url(request, settings["proxies"]).rstrip("/")
        route = self._routes[base] = _Route(pool, prefix)
        return route


def _share_context(pool: Any) -> None:
    """Read the CA bundle once for all connections: certifi's takes 10 ms."""
    context = create_urllib3_context()
    context.load_verify_locations(pool.ca_certs, pool.ca_cert_dir)
    pool.conn_kw["ssl_context"] = context
    pool.ca_certs = pool.ca_cert_dir = None


class _Route:
    """The way to an address.

    Attributes:
        pool: Makes connections, through a proxy if need be.
        prefix: What goes before the path.
    """

    def __init__(self, pool: Any, prefix: str) -> None:
        self.pool = pool
        self.prefix = prefix
        # Not for a proxy that forwards, whose requests have headers of their own, nor for a SOCKS proxy.
        forwarded = pool.proxy is not None and pool.scheme == "http"
        self._idle: list[Any] = pool.pool.all if isinstance(pool.pool, _Queue) and not forwarded else []
        host = f"[{pool.host}]" if ":" in pool.host else pool.host
        self._host = host if pool.port == pool.ConnectionCls.default_port else f"{host}:{pool.port}"

    def idle(self) -> Any:
        """A kept-alive connection; None where a new one is needed."""
        with contextlib.suppress(IndexError):  # there is none left
            while True:
                connection = self._idle.pop()
                if connection.is_connected:
                    return connection
                connection.close()
        return None

    def exchange(self, connection: Any, request: Request) -> Answer:
        """Send a request over a kept-alive connection, in one piece, and read its answer."""
        try:
            connection.sock.settimeout(_patience())
            _local.sent = True
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it hung up
                connection.sock.sendall(self._bytes(request))
            answer = _read(connection, request.method)
        except BaseException:
            connection.close()
            raise
        if not connection.is_closed:
            self._idle.append(connection)
        return answer

    def _bytes(self, request: Request) -> bytes:
        """A request as http.client would write it."""
        lines = [f"{request.method} {self.prefix}{request.path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        body = request.body
        if body is None:
            return "\r\n".join([*lines, "", ""]).encode("ascii")
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("ascii") + body


def _read(connection: Any, method: str) -> Answer:
    """Read an answer; the connection is closed where it can't be used again."""
    response = _Response(connection.sock, method=method)
    response.begin()
    body = response.read(_MOST_BYTES + 1)
    if response.will_close or len(body) > _MOST_BYTES or response.length:
        connection.close()
    if len(body) > _MOST_BYTES:
        return Answer(error=f"HTTP {response.status} with an answer of more than {_MOST_BYTES} bytes")
    if response.length:
        raise http.client.IncompleteRead(body, response.length)
    return Answer(response.status, body, response.getheader("Retry-After"), response.getheader("Location"))


def _patience() -> float:
    """Seconds that the next wait of this thread's exchange may take."""
    left = _local.deadline.left()
    if left <= 0:
        raise TimeoutError("the deadline is over")
    return min(_local.timeout, left)


def _innermost(error: BaseException, handled: BaseException | None) -> str:
    """The innermost reason, which says more than the wrappings of the libraries."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if inner is handled or not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        error = inner


class _Reader(io.RawIOBase):
    """Reads from a socket, each time no longer than the deadline allows."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)  # the socket lives until this is closed, too

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        self._sock.settimeout(_patience())
        read: int | None = self._raw.readinto(buffer)
        return read

    def close(self) -> None:
        self._raw.close()
        super().close()


class _File:
    """Hands http.client a file of a socket that reads through `_Reader`."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002  # http.client only reads from it
        return io.BufferedReader(_Reader(self._sock))


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(_File(sock), *args, **kwargs)  # type: ignore[arg-type]  # it only calls makefile


class _Http(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        """Connect to one of the host's addresses; each gets its share of the time that is left."""
        host = self._dns_host.strip("[]")
        addresses = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        failure = OSError(f"{host} has no address")
        for tried, (*_, address) in enumerate(addresses):
            share = min(_patience(), _local.deadline.left() / (len(addresses) - tried))
            try:
                sock = create_connection((str(address[0]), self.port), share, self.source_address, self.socket_options)
            except OSError as error:
                failure = error
            else:
                sock.settimeout(max(0.01, min(_local.timeout, _local.deadline.left())))  # for a TLS handshake
                return sock
        raise failure

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
            self._hurry()  # for a TLS handshake
        finally:
            _local.sent = False  # what was sent went to the proxy

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self._hurry()
        _local.sent = True
        super().send(data)

    def _hurry(self) -> None:
        sock: Any = self.sock
        sock.settimeout(_patience())


class _Https(_Http, HTTPSConnection):
    pass


class _Queue:
    """Keeps every connection, so that there are as many as threads at work and none is thrown away."""

    def __init__(self, maxsize: int) -> None:  # noqa: ARG002  # the pool fills it with that many empty places
        self.all: list[Any] = []

    def get(self, *, block: bool = True, timeout: float | None = None) -> Any:  # noqa: ARG002  # it never waits
        """The connection used last."""
        try:
            return self.all.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, connection: Any, *, block: bool = True) -> None:  # noqa: ARG002  # there is always room
        """Keep a connection."""
        if connection is not None:
            self.all.append(connection)


class _HttpPool(HTTPConnectionPool):
    ConnectionCls: Any = _Http
    QueueCls: Any = _Queue


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls: Any = _Https
    QueueCls: Any = _Queue


_OURS: dict[Any, Any] = {HTTPConnectionPool: _HttpPool, HTTPSConnectionPool: _HttpsPool}


class _Adapter(HTTPAdapter):
    """The adapter of requests, with our connections; a SOCKS proxy keeps its own."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _take_ours(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        _take_ours(manager)
        return manager


def _take_ours(manager: urllib3.PoolManager) -> None:
    pools = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _OURS.get(pool, pool) for scheme, pool in pools.items()}

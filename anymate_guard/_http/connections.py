"""The ways to addresses: connections kept alive, one for each thread at work; proxies and CA bundles as in requests.

Each connect (several dead addresses share the time), the TLS handshake and each write keep the deadline of the exchange
that this thread is in. The one thing outside is the operating system's own name look-up.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context

from anymate_guard._http import wire
from anymate_guard._http.messages import Request
from anymate_guard._http.wire import exchange

_ONCE = urllib3.Retry(False)


class Connections:
    """The connections to all addresses; safe to share between threads, not across a fork."""

    def __init__(self) -> None:
        self._session = requests.Session()  # for its reading of the environment
        self._adapter: Any = _Adapter(pool_maxsize=1)  # not all of it is typed
        self._making = threading.RLock()  # reentrant, as the garbage collector may come again
        self._routes: dict[str, Route] = {}

    def close(self) -> None:
        """Close every idle connection."""
        self._adapter.close()

    def route(self, base: str) -> Route:
        """The way to an address."""
        route = self._routes.get(base)
        if route is None:
            with self._making:
                route = self._routes[base] = self._routes.get(base) or self._new_route(base)
        return route

    def _new_route(self, base: str) -> Route:
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
        return Route(pool, prefix)


class Route:
    """The way to an address.

    Args:
        pool: Makes connections, through a proxy if need be.
        prefix: What goes before the path.
    """

    def __init__(self, pool: Any, prefix: str) -> None:
        self._pool = pool
        self._prefix = prefix
        # Not for a proxy that forwards, whose requests have headers of their own, nor for a SOCKS proxy.
        forwarded = pool.proxy is not None and pool.scheme == "http"
        self._idle: list[Any] = pool.pool.all if isinstance(pool.pool, _Queue) and not forwarded else []
        host = f"[{pool.host}]" if ":" in pool.host else pool.host
        self._host = host if pool.port == pool.ConnectionCls.default_port else f"{host}:{pool.port}"

    def idle(self) -> Any:
        """A kept-alive connection, for `bytes_of` a request; None where a new one is needed."""
        with contextlib.suppress(IndexError):  # there is none left
            while True:
                connection = self._idle.pop()
                if connection.is_connected:
                    return connection
                connection.close()
        return None

    def keep(self, connection: Any) -> None:
        """Keep a connection alive for another request, unless it is closed."""
        if not connection.is_closed:
            self._idle.append(connection)

    def bytes_of(self, request: Request) -> bytes:
        """A request as http.client would write it."""
        lines = [f"{request.method} {self._prefix}{request.path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        body = request.body
        if body is None:
            return "\r\n".join([*lines, "", ""]).encode("ascii")
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("ascii") + body

    def send_on_new(self, request: Request) -> Any:
        """Send a request over a new connection; gives an answer of urllib3's, to be read, and released or closed."""
        patience = exchange.patience()
        return self._pool.urlopen(
            request.method,
            self._prefix + request.path,
            body=request.body,
            headers=request.headers,
            retries=_ONCE,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=patience, read=patience),
        )


def _share_context(pool: Any) -> None:
    """Read the CA bundle once for all connections: certifi's takes 10 ms."""
    context = create_urllib3_context()
    context.load_verify_locations(pool.ca_certs, pool.ca_cert_dir)
    pool.conn_kw["ssl_context"] = context
    pool.ca_certs = pool.ca_cert_dir = None


class _Http(HTTPConnection):
    response_class = wire.Response

    def _new_conn(self) -> socket.socket:
        """Connect to one of the host's addresses; each gets its share of the time that is left."""
        host = self._dns_host.strip("[]")
        addresses = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        failure = OSError(f"{host} has no address")
        for tried, (*_, address) in enumerate(addresses):
            share = min(exchange.patience(), exchange.deadline.left() / (len(addresses) - tried))
            try:
                sock = create_connection((str(address[0]), self.port), share, self.source_address, self.socket_options)
            except OSError as error:
                failure = error
            else:
                sock.settimeout(max(0.01, min(exchange.timeout, exchange.deadline.left())))  # for a TLS handshake
                return sock
        raise failure

    def _tunnel(self) -> None:
        try:
            super()._tunnel()
            self._hurry()  # for a TLS handshake
        finally:
            exchange.sent = False  # what was sent went to the proxy

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self._hurry()
        exchange.sent = True
        super().send(data)

    def _hurry(self) -> None:
        sock: Any = self.sock
        sock.settimeout(exchange.patience())


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

"""The ways to addresses: connections kept alive, one for each thread at work; proxies and CA bundles as in requests."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Url, parse_url, ssl_wrap_socket
from urllib3.util.connection import create_connection
from urllib3.util.ssl_ import create_urllib3_context

from anymate_guard._http.deadline_socket import DeadlineSocket, Patience
from anymate_guard._http.exchange import Connection
from anymate_guard._http.messages import Answer, Request
from anymate_guard._process.locks import Lock
from anymate_guard.errors import ConfigurationError

_utils: Any = requests.utils  # not all of requests is typed
_PORTS = {"http": 80, "https": 443}
_NO_DELAY: list[tuple[int, int, int | bytes]] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]


class Connections:
    """The connections to all addresses; safe to share between threads, not across a fork."""

    def __init__(self) -> None:
        self._session = requests.Session()  # for its reading of the environment
        self._adapter: Any = HTTPAdapter()
        self._context = functools.cache(_context)
        self._making = Lock()
        self._routes: dict[str, Route] = {}

    def close(self) -> None:
        """Close every idle connection."""
        for route in list(self._routes.values()):
            route.drop_idle()

    def route(self, base: str) -> Route:
        """The way to an address.

        Raises:
            ConfigurationError: It leads through a proxy that can't be used.
        """
        route = self._routes.get(base)
        if route is None:
            with self._making:
                route = self._routes[base] = self._routes.get(base) or self._new_route(base)
        return route

    def _new_route(self, base: str) -> Route:
        request = requests.Request("GET", base).prepare()
        target = parse_url(request.url or "")
        settings = self._session.merge_environment_settings(request.url or "", {}, None, None, None)
        name = _utils.select_proxy(request.url or "", settings["proxies"])
        proxy = _checked(target, parse_url(_utils.prepend_scheme_if_needed(name, "http"))) if name else None
        context = None
        if "https" in {target.scheme, proxy and proxy.scheme}:
            context = self._context(settings["verify"])
        prefix = self._adapter.request_url(request, settings["proxies"]).rstrip("/")
        proxy_headers = self._adapter.proxy_headers(name) if name else {}
        return Route(target, prefix, context, proxy, proxy_headers)


class Route:
    """The way to an address.

    Args:
        target: The address.
        prefix: What goes before the path of a request.
        context: For TLS; None where there is none on the way.
        proxy: Through which it leads.
        proxy_headers: What the proxy wants to be told.
    """

    def __init__(
        self, target: Url, prefix: str, context: Any, proxy: Url | None, proxy_headers: Mapping[str, str]
    ) -> None:
        self._target = target
        self._prefix = prefix
        self._context = context
        self._proxy = proxy
        self._proxy_headers = proxy_headers
        self._secure = target.scheme == "https"
        self._tunnelled = self._secure and proxy is not None
        self._headers = {"Host": target.netloc or "", **({} if self._tunnelled else proxy_headers)}
        self._idle: list[Connection] = []

    def connection(self, patience: Patience) -> Connection:
        """A kept connection that may be used again, the one used last, or else a new one."""
        with contextlib.suppress(IndexError):  # there is none left
            while True:
                connection = self._idle.pop()
                if connection.may_be_used_again():
                    connection.patience.deadline = patience.deadline
                    return connection
                connection.close()
        return self._connect(patience)

    def keep(self, connection: Connection) -> None:
        """Keep a connection; whether it is used again is decided when it is wanted."""
        self._idle.append(connection)

    def drop_idle(self) -> None:
        """Close all connections that are kept."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def exchange(self, connection: Connection, request: Request) -> Answer:
        """Send a request over a connection of this route, and read its answer."""
        headers = {**self._headers, **request.headers}
        return connection.exchange(request.method, self._prefix + request.path, headers, request.body)

    def _connect(self, patience: Patience) -> Connection:
        secure_proxy = self._proxy is not None and self._proxy.scheme == "https"
        end = self._proxy or self._target
        sock = _reached(end, patience)
        try:
            if secure_proxy:
                sock.secure(self._tls(end))
            if self._tunnelled:
                self._open_tunnel(Connection(sock, patience))
            if self._secure and secure_proxy:
                return Connection(self._tls(self._target)(sock, tls_in_tls=True), patience)
            if self._secure:
                sock.secure(self._tls(self._target))
        except BaseException:
            sock.close()
            raise
        return Connection(sock, patience)

    def _tls(self, end: Url) -> Callable[..., Any]:
        name = (end.host or "").strip("[]").rstrip(".")
        return functools.partial(ssl_wrap_socket, server_hostname=name, ssl_context=self._context)

    def _open_tunnel(self, connection: Connection) -> None:
        end = f"{self._target.host}:{_port(self._target)}"
        answer = connection.ask("CONNECT", end, {"Host": end, **self._proxy_headers})
        if answer.status >= 300:
            raise OSError(f"the proxy opens no tunnel: HTTP {answer.status} {answer.reason}")


def _checked(target: Url, proxy: Url) -> Url:
    if proxy.scheme in _PORTS and proxy.host:
        return proxy
    shown = Url(proxy.scheme, host=proxy.host, port=proxy.port).url
    problem = (
        f"{(target.scheme or '').upper()}_PROXY or ALL_PROXY: {shown!r} can't be used, only an http or https proxy can "
        f"(with SOCKS nothing would bound the waits); set another one, or name {target.host} in NO_PROXY"
    )
    raise ConfigurationError([problem])


def _reached(end: Url, patience: Patience) -> DeadlineSocket:
    """Connect to one of a host's addresses; each gets its share of the time that is left."""
    addresses = socket.getaddrinfo((end.host or "").strip("[]"), _port(end), 0, socket.SOCK_STREAM)
    failure = OSError(f"{end.host} has no address")
    for tried, (*_, address) in enumerate(addresses):
        share = patience.seconds(waits=len(addresses) - tried)
        try:
            sock = create_connection((str(address[0]), _port(end)), share, socket_options=_NO_DELAY)
        except OSError as error:
            failure = error
        else:
            return DeadlineSocket(sock, patience)
    raise failure


def _port(end: Url) -> int:
    return end.port or _PORTS[end.scheme or ""]


def _context(trusted: str | Literal[True]) -> Any:
    """Read a CA bundle, a file or a folder, once for all connections: that of requests takes 10 ms."""
    bundle = _utils.extract_zipped_paths(_utils.DEFAULT_CA_BUNDLE_PATH) if trusted is True else trusted
    context = create_urllib3_context()
    try:
        context.load_verify_locations(**{"capath" if Path(bundle).is_dir() else "cafile": bundle})
    except OSError as error:
        raise OSError(f"REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE: {bundle} holds no certificates: {error}") from None
    return context

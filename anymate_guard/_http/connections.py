"""The ways to addresses: connections kept alive, one for each thread at work; proxies and CA bundles as in requests."""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401  # which a name would have imported later: a fork might come then
import functools
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from anymate_guard._http.deadline_socket import DeadlineSocket, Patience
from anymate_guard._http.exchange import Connection
from anymate_guard._http.messages import Answer, Request
from anymate_guard._http.proxies import ca_bundle, may_have_proxies
from anymate_guard._process import signals
from anymate_guard._process.fork import importing
from anymate_guard._process.locks import Lock
from anymate_guard._secrecy import unseen
from anymate_guard.errors import ConfigurationError

_PORTS = {"http": 80, "https": 443}
_AS_IT_IS = "!#$%&'()*+,/:;=?@[]~"  # in a path, for requests


class ProxyRefusal(OSError):
    """The proxy refuses its user name and password, so it has passed on nothing."""

    def __str__(self) -> str:
        return "the proxy refuses the user name and password in HTTP_PROXY or HTTPS_PROXY (HTTP 407)"


class Connections:
    """The connections to all addresses; safe to share between threads, not across a fork."""

    def __init__(self) -> None:
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

    @unseen
    def _new_route(self, base: str) -> Route:
        target = urlsplit(base)
        proxy, proxy_headers = _proxy(target) if may_have_proxies() else (None, {})
        context = self._context(ca_bundle()) if "https" in {target.scheme, proxy and proxy.scheme} else None
        prefix = quote(target.path, safe=_AS_IT_IS)
        if proxy is not None and target.scheme == "http":
            prefix = f"http://{_netloc(target)}{prefix}"
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
        self,
        target: SplitResult,
        prefix: str,
        context: Any,
        proxy: SplitResult | None,
        proxy_headers: Mapping[str, str],
    ) -> None:
        self._target = target
        self._prefix = prefix
        self._context = context
        self._proxy = proxy
        self._proxy_headers = proxy_headers
        self._secure = target.scheme == "https"
        self._tunnelled = self._secure and proxy is not None
        self._headers = {"Host": _netloc(target), **({} if self._tunnelled else proxy_headers)}
        self._idle: list[Connection] = []

    def connection(self, patience: Patience) -> Connection:
        """A kept connection that may be used again, the one used last, or else a new one."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return self._connect(patience)
            if connection.may_be_used_again():
                connection.patience.deadline = patience.deadline
                return connection
            connection.close()

    def keep(self, connection: Connection) -> None:
        """Keep a connection; whether it is used again is decided when it is wanted, or after a minute."""
        self._idle.append(connection)
        with contextlib.suppress(IndexError):  # other threads may take all of them
            if self._idle[0].expired:  # else those of a rush would stay: the one used last is wanted first
                self._idle.pop(0).close()

    def drop_idle(self) -> None:
        """Close all connections that are kept."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def exchange(self, connection: Connection, request: Request) -> Answer:
        """Send a request over a connection of this route, and read its answer."""
        headers = {**self._headers, **request.headers}
        answer = connection.exchange(request.method, self._prefix + request.path, headers, request.body)
        if answer.status == 407 and self._proxy is not None and not self._tunnelled:
            raise ProxyRefusal
        return answer

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
                return Connection(self._tls_in_tls(sock), patience)
            if self._secure:
                sock.secure(self._tls(self._target))
        except BaseException:
            sock.close()
            raise
        return Connection(sock, patience)

    def _tls(self, end: SplitResult) -> Callable[..., Any]:
        return functools.partial(self._context.wrap_socket, server_hostname=_host(end).rstrip("."))

    def _tls_in_tls(self, sock: DeadlineSocket) -> Any:
        with importing():
            from urllib3.util.ssltransport import SSLTransport  # half of what a short bot needs to import

        return SSLTransport(sock, self._context, _host(self._target).rstrip("."))  # type: ignore[arg-type]  # as a socket

    def _open_tunnel(self, connection: Connection) -> None:
        end = f"{_bracketed(self._target)}:{_port(self._target)}"
        answer = connection.ask("CONNECT", end, {"Host": end, **self._proxy_headers})
        if answer.status == 407:
            raise ProxyRefusal
        if answer.status >= 300:
            raise OSError(f"the proxy opens no tunnel: HTTP {answer.status} {answer.reason}")


def _proxy(target: SplitResult) -> tuple[SplitResult | None, dict[str, str]]:
    """The proxy on the way to an address, and what it wants to be told: as requests reads the environment."""
    with importing():
        import requests  # where there is no proxy, not needed: it takes a short bot's time again
        from requests.adapters import HTTPAdapter

    utils: Any = requests.utils  # not all of requests is typed
    base, adapter = target.geturl(), HTTPAdapter()
    name = utils.select_proxy(base, utils.get_environ_proxies(base))
    if not name:
        return None, {}
    shown = "what it says"
    with contextlib.suppress(ValueError):  # of urllib3, and for a port that is none
        proxy = urlsplit(utils.prepend_scheme_if_needed(name, "http"))
        if proxy.scheme in _PORTS and proxy.hostname and _port(proxy):
            return proxy, adapter.proxy_headers(name)
        if name.count("@") == proxy.netloc.count("@"):  # else a part of the password is taken for a port, say
            shown = repr(f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}")
    problem = (
        f"{target.scheme.upper()}_PROXY or ALL_PROXY: {shown} can't be used, only an http or https proxy can (with "
        "SOCKS nothing would bound the waits; in a password # is %23, and so on); set another one, or name "
        f"{target.hostname} in NO_PROXY"
    )
    raise ConfigurationError([problem])


def _reached(end: SplitResult, patience: Patience) -> DeadlineSocket:
    """Connect to one of a host's addresses; each gets its share of the time that is left."""
    addresses = socket.getaddrinfo(_host(end), _port(end), 0, socket.SOCK_STREAM)
    failure = OSError(f"{end.hostname} has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        share = patience.seconds(waits=len(addresses) - tried)
        try:
            return DeadlineSocket(_connected(socket.socket(family, kind, protocol), address, share), patience)
        except OSError as error:
            signals.let_pass(error)
            failure = error
    raise failure


def _connected(sock: socket.socket, address: Any, seconds: float) -> socket.socket:
    try:
        sock.settimeout(seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _host(end: SplitResult) -> str:
    host = end.hostname or ""
    return host if host.isascii() else host.encode("idna").decode()


def _port(end: SplitResult) -> int:
    return end.port or _PORTS[end.scheme]


def _netloc(end: SplitResult) -> str:
    return _bracketed(end) if end.port is None else f"{_bracketed(end)}:{end.port}"


def _bracketed(end: SplitResult) -> str:
    return f"[{_host(end)}]" if ":" in _host(end) else _host(end)


def _context(bundle: str | None) -> ssl.SSLContext:
    """Read a CA bundle, a file or a folder, once for all connections; None takes the one that requests takes."""
    if bundle is None:
        with importing():
            import certifi

        bundle = certifi.where()
    place: dict[str, Any] = {"capath" if Path(bundle).is_dir() else "cafile": bundle}
    try:
        return ssl.create_default_context(**place)
    except OSError as error:
        raise OSError(f"REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE: {bundle} holds no certificates: {error}") from None

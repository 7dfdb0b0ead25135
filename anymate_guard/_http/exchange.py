"""One HTTP exchange within a deadline: each wait in it is bounded by what is left, and an answer by its size."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from anymate_guard._deadline import Deadline
from anymate_guard._http import wire
from anymate_guard._http.connections import Connections, Route
from anymate_guard._http.messages import Answer, Request
from anymate_guard._http.wire import MOST_BYTES, exchange
from anymate_guard._secrecy import unseen


class Transport:
    """Exchanges over pooled, kept-alive connections; safe to share between threads, not across a fork.

    Args:
        timeout: Seconds for one connect or one read.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._connections = Connections()

    def close(self) -> None:
        """Close every idle connection."""
        self._connections.close()

    def exchange(self, request: Request, deadline: Deadline) -> Answer:
        """Send a request once and read its answer; failures come back as an `Answer` without status."""
        exchange.deadline, exchange.timeout, exchange.sent = deadline, self._timeout, False
        handled = sys.exc_info()[1]  # by the bot, while it calls us
        try:
            return self._exchange(request)
        except Exception as error:  # noqa: BLE001  # requests, urllib3, http.client and ssl raise many kinds
            return Answer(error=f"{request.base}: {_innermost(error, handled)}", maybe_sent=exchange.sent)

    @unseen
    def _exchange(self, request: Request) -> Answer:
        route = self._connections.route(request.base)
        connection = route.idle()
        if connection is None:
            return _exchange_on_new(route, request)
        return _exchange_on_kept(route, connection, request)


def _exchange_on_kept(route: Route, connection: Any, request: Request) -> Answer:
    """Send a request in one piece, and read its answer."""
    try:
        connection.sock.settimeout(exchange.patience())
        exchange.sent = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it hung up
            connection.sock.sendall(route.bytes_of(request))
        answer = wire.read(connection, request.method)
    except BaseException:
        connection.close()
        raise
    route.keep(connection)
    return answer


def _exchange_on_new(route: Route, request: Request) -> Answer:
    """Let requests' own libraries connect, send and read."""
    response = route.send_on_new(request)
    whole = False
    try:
        body = b""
        # To the end: only a read that finds nothing more tells an answer that was cut.
        while len(body) <= MOST_BYTES and (more := response.read(MOST_BYTES + 1 - len(body))):
            body += more
        whole = len(body) <= MOST_BYTES
    finally:
        if not whole:
            response.close()
    if not whole:
        return wire.too_large(response.status)
    response.release_conn()
    headers = response.headers
    return Answer(response.status, body, headers.get("Retry-After"), headers.get("Location"))


def _innermost(error: BaseException, handled: BaseException | None) -> str:
    """The innermost reason, which says more than the wrappings of the libraries."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if inner is handled or not isinstance(inner, BaseException):
            return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        error = inner

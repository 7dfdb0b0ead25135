"""One exchange over HTTP within a deadline: each wait in it is bounded by what is left, and an answer by its size."""

from __future__ import annotations

import errno
import ssl

from anymate_guard._deadline import Deadline
from anymate_guard._http.connections import Connections, ProxyRefusal, Route
from anymate_guard._http.deadline_socket import Patience
from anymate_guard._http.messages import Answer, Request
from anymate_guard._http.untouched import client
from anymate_guard._process import signals
from anymate_guard._secrecy import unseen
from anymate_guard.errors import ConfigurationError


class Transport:
    """Exchanges over kept-alive connections; safe to share between threads, not across a fork.

    Args:
        timeout: Seconds for one connect or one read.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._connections = Connections()

    def close(self) -> None:
        """Close every idle connection."""
        self._connections.close()

    def route(self, base: str) -> Route | Exception:
        """The way to an address, or why there is none.

        Raises:
            ConfigurationError: The address is behind a proxy that can't be used.
        """
        try:
            return self._connections.route(base)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  # requests and urllib3 raise many kinds
            signals.let_pass(error)
            return error

    @unseen
    def exchange(self, request: Request, deadline: Deadline) -> Answer:
        """Send a request once and read its answer; failures come back as an `Answer` without status.

        Raises:
            ConfigurationError: The address is behind a proxy that can't be used.
        """
        route = self.route(request.base)
        if isinstance(route, Exception):
            return _failed(request, route, final=True)
        return _exchange(route, request, Patience(self._timeout, deadline))


def _exchange(route: Route, request: Request, patience: Patience) -> Answer:
    sent = False
    try:
        connection = route.connection(patience)
        patience.seconds()  # with none left, nothing is sent
        sent = True
        try:
            answer = route.exchange(connection, request)
        except BaseException:
            connection.close()
            raise
    except Exception as error:  # noqa: BLE001  # http.client and test tools raise many kinds
        signals.let_pass(error)
        route.drop_idle()  # they go the same way
        sent = sent and not isinstance(error, ProxyRefusal)
        return _failed(request, error, sent=sent, final=not _may_pass(error))
    route.keep(connection)
    return answer


def _may_pass(error: Exception) -> bool:
    """Whether another try may go better: not where a proxy refuses its password, or a certificate is not trusted.

    Nor where a test tool is at work. Those raise errors of their own, or give a socket that is connected to nobody.
    """
    if isinstance(error, OSError):
        return error.errno != errno.ENOTCONN and not isinstance(error, ProxyRefusal | ssl.SSLCertVerificationError)
    return isinstance(error, client.HTTPException)


def _failed(request: Request, error: Exception, *, sent: bool = False, final: bool) -> Answer:
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Answer(error=f"{request.base}: {reason}", maybe_sent=sent, final=final)

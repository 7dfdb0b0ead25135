"""One call: sent again until it is answered, or the deadline leaves no time for another try."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timezone
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from anymate_guard._api.answers import Reply, read
from anymate_guard._deadline import Deadline, chance
from anymate_guard._http.messages import Request
from anymate_guard._log import emit
from anymate_guard._process.fork import importing
from anymate_guard._process.locks import Lock
from anymate_guard._secrecy import Mask
from anymate_guard.errors import UnreachableError

if TYPE_CHECKING:
    from anymate_guard._http.transport import Transport

_FIRST_WAIT, _LONGEST_WAIT = 0.2, 8.0

_called: set[str] = set()  # addresses that were looked at for being secure


class Caller:
    """Makes calls over one pool of connections; safe to share between threads, not across a fork.

    Args:
        timeout: Seconds for one connect or one read.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._opening = Lock()
        self._transport: Transport | None = None

    def close(self) -> None:
        """Close the idle connections; a later call opens new ones."""
        with self._opening:
            transport = self._transport
        if transport is not None:
            transport.close()

    def check_proxies(self, *bases: str) -> None:
        """Refuse addresses behind proxies that can't be used, before a call meets them; proxies are read once.

        Raises:
            ConfigurationError: With the proxy's variable.
        """
        transport = self._opened()
        for base in bases:
            transport.route(base)

    def until_answered(
        self,
        operation: str,
        request: Request,
        mask: Mask,
        deadline: Deadline,
        about: Mapping[str, object],
        *,
        sent_before: bool = False,
    ) -> Reply:
        """Send a request until there is an answer.

        Args:
            operation: What the call is named in errors and log lines.
            request: What to send.
            mask: For quoting what comes back.
            deadline: When to give up, and whether to try more than once.
            about: Fields for the log lines.
            sent_before: Whether the same call was made before, with an unknown end.

        Raises:
            UnreachableError: There is no time for another try.
        """
        _warn_if_insecure(request.base)
        attempt, before = 0, ""
        while True:
            attempt += 1
            answer = self._opened().exchange(request, deadline)
            reply = read(operation, answer, mask, sent_before=sent_before)
            trouble = reply.trouble
            if not trouble:
                return reply
            sent_before = sent_before or (answer.maybe_sent and not reply.foreign)
            wait = _wait(attempt, answer.header("Retry-After"), answer.header("Date"))
            if answer.final or not deadline.retry or wait >= deadline.left():
                cut_short = deadline.left() <= 0  # says less than what came back before
                raise UnreachableError(operation, (cut_short and before) or trouble, sent_before)
            before = trouble
            emit(
                "info",
                "anymate.request_retried",
                **about,
                operation=operation,
                status=answer.status or None,
                attempt=attempt,
                wait_s=round(wait, 3),
                error=trouble,
            )
            time.sleep(wait)

    def _opened(self) -> Transport:
        with self._opening:
            if self._transport is None:
                with importing():
                    from anymate_guard._http.transport import Transport  # 20 ms, with http and ssl

                self._transport = Transport(self._timeout)
            return self._transport


def _wait(attempt: int, retry_after: str | None, date: str | None = None) -> float:
    """Seconds before the next try: exponential, with jitter, and no less than the server asks for."""
    wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempt - 1, 16)) * chance.uniform(0.5, 1)
    return max(wait, _seconds_asked(retry_after, date) * chance.uniform(1, 1.1))


def _seconds_asked(retry_after: str | None, date: str | None) -> float:
    """The Retry-After header, given as seconds or as a date, by the server's own clock if it tells."""
    if retry_after is None:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    until, now = _moment(retry_after), _moment(date)
    return 0.0 if until is None else until - (time.time() if now is None else now)


def _moment(date: str | None) -> float | None:
    with importing():
        from email.utils import parsedate_to_datetime  # brings half of email: 8 ms
    try:
        read = parsedate_to_datetime(date or "")
        return (read if read.tzinfo else read.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _warn_if_insecure(address: str) -> None:
    """Say once per process and address that the secrets travel in the clear."""
    if address in _called:
        return
    _called.add(address)
    parts = urlsplit(address)
    if parts.scheme == "http" and not _loopback(parts.hostname or ""):
        emit(
            "warning",
            "anymate.insecure_address",
            address=address,
            error="http sends the password and the token in the clear; use https",
        )


def _loopback(host: str) -> bool:
    with importing():
        import ipaddress
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

"""The calls of Anymate's API: one token for all threads, retries until a deadline, errors made in one place."""

from __future__ import annotations

import itertools
import json
import math
import random
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, urlencode

import attrs

from anymate_guard._deadline import Deadline
from anymate_guard._fork import in_child
from anymate_guard._log import emit
from anymate_guard._run import Kpis
from anymate_guard._settings import Settings, check_process_key
from anymate_guard.errors import ApiError, AuthenticationError, UnreachableError

if TYPE_CHECKING:
    from anymate_guard._transport import Answer, Transport

_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_NOT_OPEN = frozenset({200, 404, 409, 410})  # how a server may say that a run is not open (200: succeeded is false)
_SUCCEEDING = frozenset({"FinishRun", "Failure"})  # they answer {"succeeded": …, "message": …}
_QUOTED = 200
_LONGEST_MESSAGE = 4_000
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 8.0
_USUAL_LIFE = 300.0  # seconds, of a token that doesn't tell
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # a compressed answer could be any size once unpacked
    "Cache-Control": "no-cache",
    "User-Agent": "anymate-guard",
}


@attrs.frozen
class OkToRun:
    """Anymate's advice whether to start (its OkToRun page).

    Attributes:
        ok_to_run: The advice itself.
        gate_open: False when somebody pressed Stop Process.
        tasks_available: Whether the process has a task that is ready.
        not_blocked_date: False when today is blocked in the process's calendar.
    """

    ok_to_run: bool
    gate_open: bool
    tasks_available: bool
    not_blocked_date: bool


@attrs.frozen
class _Token:
    value: str = attrs.field(repr=False)
    renew_at: float


@attrs.frozen
class _Reply:
    """The answer to a call, read: `data` is its JSON object, None where the status means no."""

    status: int
    location: str | None
    data: Mapping[str, Any] | None = attrs.field(repr=False)
    text: str  # quoted, without secrets
    sent_before: bool  # an earlier try may have reached Anymate, too


_clients: weakref.WeakSet[AnymateClient] = weakref.WeakSet()


class AnymateClient:
    """Anymate's run calls, made once each and well: pooled connections, a shared token, retries until a deadline.

    Safe to share between threads, and after a fork.

    Args:
        settings: Where and who; see `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._token: _Token | None = None
        self._start_route = "StartRun"
        self._start_over()
        _clients.add(self)

    def __repr__(self) -> str:
        return f"AnymateClient({self.settings!r})"

    def __enter__(self) -> AnymateClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections; a later call opens new ones."""
        with self._opening:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def start_run(self, process_key: str, *, deadline: Deadline | None = None) -> int:
        """Start a run, or resume the one that is open (Anymate's Start Run page).

        Args:
            process_key: Which process.
            deadline: When to give up; None takes `settings.deadline` seconds.

        Returns:
            The run's id, 1 or more.

        Raises:
            ConfigurationError: The key can't be one.
            ApiError: Anymate said no, or answered without a usable `runId`.
            AuthenticationError: The credentials were refused.
            UnreachableError: No usable answer before the deadline.
        """
        segment = _segment(process_key)
        deadline = deadline or self._deadline()
        about = {"process_key": process_key}
        route = self._start_route
        reply = self._ask("StartRun", "GET", f"/api/{route}/{segment}", None, deadline, about)
        if reply.status in {404, 405}:  # the documented route, or the one that Anymate's own SDKs call
            route = "StartOrGetRun" if route == "StartRun" else "StartRun"
            reply = self._ask("StartRun", "GET", f"/api/{route}/{segment}", None, deadline, about)
        if reply.status == 404:
            raise ApiError(
                "StartRun",
                404,
                f"no process {process_key!r} for this mate; check the process key and ANYMATE_API_URL ({reply.text})",
            )
        data = self._accepted("StartRun", reply)
        run_id = data.get("runId")
        if type(run_id) is not int or run_id < 1:
            raise ApiError("StartRun", reply.status, f"the answer has no usable runId: {reply.text}")
        self._start_route = route
        return run_id

    def finish_run(
        self, run_id: int, kpis: Kpis = Kpis(), *, sent_before: bool = False, deadline: Deadline | None = None
    ) -> None:
        """Finish a run, with the KPIs that were recorded (Anymate's Finish Run page).

        Safe to repeat: when an earlier try may have reached Anymate and this one hears that the run is not open, it is
        finished.

        Args:
            run_id: The run's id.
            kpis: What to send; a value that is None is left out, and Anymate's default applies.
            sent_before: Whether FinishRun was sent for this run earlier, with an unknown end.
            deadline: When to give up; None takes `settings.deadline` seconds.

        Raises:
            ApiError: Anymate said no.
            AuthenticationError: The credentials were refused.
            UnreachableError: No usable answer before the deadline.
        """
        payload = {"runId": run_id}
        if kpis.entries is not None:
            payload["overwriteEntries"] = kpis.entries
        if kpis.seconds_saved is not None:
            payload["overwriteSecondsSaved"] = kpis.whole_seconds
        about = {"run_id": run_id}
        reply = self._ask("FinishRun", "POST", "/api/FinishRun/", payload, deadline or self._deadline(), about)
        try:
            self._accepted("FinishRun", reply)
        except ApiError as error:
            if error.status not in _NOT_OPEN or not (sent_before or reply.sent_before):
                raise

    def failure(self, process_key: str, message: str, *, deadline: Deadline | None = None) -> None:
        """Put the process in the state Failure, with a notification for people to read.

        Args:
            process_key: Which process.
            message: What went wrong; cut at 4 000 characters, secrets masked.
            deadline: When to give up; None takes `settings.deadline` seconds.

        Raises:
            ConfigurationError: The key can't be one.
            ApiError: Anymate said no.
            AuthenticationError: The credentials were refused.
            UnreachableError: No usable answer before the deadline.
        """
        payload = {"processKey": check_process_key(process_key), "message": self._masked(message)[:_LONGEST_MESSAGE]}
        about = {"process_key": process_key}
        reply = self._ask("Failure", "POST", "/api/Failure/", payload, deadline or self._deadline(), about)
        self._accepted("Failure", reply)

    def ok_to_run(self, process_key: str, *, deadline: Deadline | None = None) -> OkToRun:
        """Ask whether the process should run now: it is not stopped, and today is not blocked.

        Args:
            process_key: Which process.
            deadline: When to give up; None takes `settings.deadline` seconds.

        Raises:
            ConfigurationError: The key can't be one.
            ApiError: Anymate said no, or answered without `okToRun`.
            AuthenticationError: The credentials were refused.
            UnreachableError: No usable answer before the deadline.
        """
        path = f"/api/OkToRun/{_segment(process_key)}"
        about = {"process_key": process_key}
        reply = self._ask("OkToRun", "GET", path, None, deadline or self._deadline(), about)
        data = self._accepted("OkToRun", reply)
        advice = [data.get(name) for name in ("okToRun", "gateOpen", "tasksAvailable", "notBlockedDate")]
        if not all(type(value) is bool for value in advice):
            raise ApiError("OkToRun", reply.status, f"the answer is not four yes or no: {reply.text}")
        return OkToRun(*map(bool, advice))

    def _deadline(self) -> Deadline:
        return Deadline.after(self.settings.deadline)

    def _start_over(self) -> None:
        """Forget connections and locks: at first, and in a forked child, which must not use its parent's."""
        self._transport: Transport | None = None
        self._opening = threading.Lock()
        self._login = threading.Lock()

    def _ask(
        self,
        operation: str,
        method: str,
        path: str,
        payload: Mapping[str, object] | None,
        deadline: Deadline,
        about: Mapping[str, object],
    ) -> _Reply:
        """Make a call with the token, and once again with a fresh one after a 401."""
        body = None if payload is None else json.dumps(payload).encode()
        token = self._valid_token(deadline)
        reply = self._until_answered(operation, self._call(method, path, body, token), deadline, about)
        if reply.status == 401:
            sent_before = reply.sent_before
            self._drop(token)
            try:
                token = self._valid_token(deadline)
                reply = self._until_answered(operation, self._call(method, path, body, token), deadline, about)
            except UnreachableError as error:
                error.maybe_sent |= sent_before
                raise
            reply = attrs.evolve(reply, sent_before=reply.sent_before or sent_before)
        if reply.status == 401:
            self._drop(token)
            raise AuthenticationError(operation, 401, f"a fresh token was refused, too: {reply.text}")
        return reply

    def _call(self, method: str, path: str, body: bytes | None, token: _Token) -> Callable[[Deadline], Answer]:
        """A call to the API, ready to be sent as often as it takes."""
        headers = {**_HEADERS, "Authorization": f"Bearer {token.value}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return self._sender(method, self.settings.api_url, path, headers, body)

    def _sender(
        self, method: str, base: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Callable[[Deadline], Answer]:
        from anymate_guard._transport import Request, Transport  # requests takes 100 ms to import

        with self._opening:
            if self._transport is None:
                self._transport = Transport(self.settings.timeout)
            transport = self._transport
        request = Request(method, base, path, headers, body)
        return lambda deadline: transport.exchange(request, deadline)

    def _until_answered(
        self, operation: str, send: Callable[[Deadline], Answer], deadline: Deadline, about: Mapping[str, object]
    ) -> _Reply:
        """Send until there is an answer, or no time for another try."""
        sent = False
        for attempt in itertools.count(1):
            answer = send(deadline)
            reply, trouble = self._read(operation, answer, sent)
            if reply is not None:
                return reply
            sent = sent or answer.maybe_sent
            wait = _wait(attempt, answer.retry_after)
            if not deadline.retry or wait >= deadline.left():
                raise UnreachableError(operation, trouble, sent)
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
        raise AssertionError  # the loop has no other end

    def _read(self, operation: str, answer: Answer, sent_before: bool) -> tuple[_Reply | None, str]:
        """Tell an answer from trouble that may pass."""
        if answer.error:
            return None, answer.error
        status = answer.status
        # What the token server says when all is well must not be quoted, whole or cut.
        text = "" if operation == "token" and status < 300 else self._quoted(answer.body)
        if status in _RETRIED:
            return None, f"HTTP {status}: {text}"
        data = None
        if status < 300:
            data = _json_object(answer.body)
            if data is None or (operation in _SUCCEEDING and type(data.get("succeeded")) is not bool):
                return None, f"HTTP {status} with an unreadable answer of {len(answer.body)} bytes: {text}"
        elif data_of_error := _json_object(answer.body):
            text = self._quoted(str(data_of_error.get("message") or "").encode()) or text
        return _Reply(status, answer.location, data, text, sent_before), ""

    def _accepted(self, operation: str, reply: _Reply) -> Mapping[str, Any]:
        """The data of an answer that means yes; raises ApiError for one that means no."""
        if reply.data is None:
            raise ApiError(operation, reply.status, self._refusal(reply))
        if reply.data.get("succeeded") is False:
            message = self._quoted(str(reply.data.get("message") or "no message").encode())
            raise ApiError(operation, reply.status, f"succeeded is false: {message}")
        return reply.data

    def _refusal(self, reply: _Reply) -> str:
        if 300 <= reply.status < 400:
            target = self._quoted((reply.location or "nowhere").encode())
            return (
                f"redirected to {target}; redirects are not followed, as they turn a POST into a GET: "
                "set ANYMATE_API_URL and ANYMATE_AUTH_URL to the address that answers"
            )
        return reply.text or "no message"

    def _valid_token(self, deadline: Deadline) -> _Token:
        """The token of all threads; the first one to need a new one fetches it for the others."""
        token = self._token
        if token is not None and time.monotonic() < token.renew_at:
            return token
        if not self._login.acquire(timeout=max(0.0, deadline.left())):
            raise UnreachableError("token", "another thread did not get one in time either")
        try:
            token = self._token
            if token is None or time.monotonic() >= token.renew_at:
                token = self._token = self._log_in(deadline)
            return token
        finally:
            self._login.release()

    def _drop(self, token: _Token) -> None:
        with self._login:
            if self._token is token:
                self._token = None

    def _log_in(self, deadline: Deadline) -> _Token:
        asked_at = time.monotonic()
        headers = {**_HEADERS, "Content-Type": "application/x-www-form-urlencoded"}
        send = self._sender("POST", self.settings.auth_url, "/connect/token", headers, self._form())
        try:
            reply = self._until_answered("token", send, deadline, {})
        except UnreachableError as error:
            error.maybe_sent = False  # of the call that needs the token, nothing was
            raise
        if reply.status in {400, 401, 403}:
            raise AuthenticationError(
                "token",
                reply.status,
                f"check ANYMATE_CLIENT_ID, ANYMATE_CLIENT_SECRET, ANYMATE_USERNAME and ANYMATE_PASSWORD: {reply.text}",
            )
        token = _token(self._accepted("token", reply), asked_at)
        if token is None:
            raise ApiError("token", reply.status, "the answer has no usable access_token; check ANYMATE_AUTH_URL")
        return token

    def _form(self) -> bytes:
        settings = self.settings
        return urlencode(
            {
                "client_id": settings.client_id,
                "client_secret": settings.client_secret,
                "grant_type": "password",
                "username": settings.username,
                "password": settings.password,
            }
        ).encode()

    def _quoted(self, body: bytes) -> str:
        text = " ".join(self._masked(body.decode("utf-8", "replace")).split())
        return text if len(text) <= _QUOTED else f"{text[:_QUOTED]}…"

    def _masked(self, text: str) -> str:
        token = self._token
        secrets = (self.settings.client_secret, self.settings.password, token.value if token else "")
        for form in (str, quote, quote_plus, lambda secret: quote(secret, safe=""), lambda secret: json.dumps(secret)[1:-1]):
            for secret in filter(None, secrets):
                text = text.replace(form(secret), "***")
        return text


def _segment(process_key: str) -> str:
    return quote(check_process_key(process_key), safe="")


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _token(data: Mapping[str, Any], asked_at: float) -> _Token | None:
    """A token with the moment to renew it: the smaller of 5 minutes and half its life before its end."""
    value, life = data.get("access_token"), data.get("expires_in")
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value.strip():
        return None
    if type(life) not in {int, float} or not 0 < life < math.inf:
        life = _USUAL_LIFE
    return _Token(value, asked_at + life - min(300.0, life / 2))


def _wait(attempt: int, retry_after: str | None) -> float:
    """Seconds before the next try: exponential, with jitter, and no less than the server asks for."""
    wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(attempt - 1, 16)) * random.uniform(0.5, 1)
    return max(wait, _seconds_asked(retry_after) * random.uniform(1, 1.1))


def _seconds_asked(retry_after: str | None) -> float:
    """The Retry-After header, given as seconds or as a date."""
    if retry_after is None:
        return 0.0
    try:
        if retry_after.strip().isdecimal():
            return float(retry_after)
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _after_fork() -> None:
    for client in list(_clients):
        client._start_over()


in_child(_after_fork)

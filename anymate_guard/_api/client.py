"""The calls of Anymate's API, and what their answers give."""

from __future__ import annotations

import json
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from urllib.parse import quote

from anymate_guard._api.answers import Reply
from anymate_guard._api.calls import Caller
from anymate_guard._api.token import Token, Tokens
from anymate_guard._deadline import Deadline
from anymate_guard._http.messages import Request
from anymate_guard._process.fork import in_child
from anymate_guard._process_key import check_process_key
from anymate_guard._run.amounts import LARGEST_ID
from anymate_guard._run.kpis import Kpis
from anymate_guard._settings import Settings
from anymate_guard.errors import ApiError, AuthenticationError, NotOkToRun, UnreachableError

_NOT_OPEN = frozenset({200, 404, 409, 410})  # how Anymate may answer that a run is not open
_LONGEST_MESSAGE = 4_000


@dataclass(frozen=True)
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

    def refusal(self, process_key: str) -> NotOkToRun:
        """The error that tells why a process is not OK to run."""
        return NotOkToRun(process_key, self.gate_open, self.tasks_available, self.not_blocked_date)


_clients: weakref.WeakSet[AnymateClient] = weakref.WeakSet()


class AnymateClient:
    """Anymate's run calls, made once each and well: pooled connections, a shared token, retries until a deadline.

    Safe to share between threads, and after a fork.

    Args:
        settings: Where and who; see `Settings`.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._start_route = "StartRun"
        self._caller = Caller(settings.timeout)
        self._tokens = Tokens(settings, self._caller)
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
        self._caller.close()

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
        deadline = deadline or Deadline.after(self.settings.deadline)
        route = self._start_route
        reply = self._ask("StartRun", f"/api/{route}/{segment}", deadline, process_key=process_key)
        if reply.status in {404, 405}:  # the documented route, or the one that Anymate's own SDKs call
            route = "StartOrGetRun" if route == "StartRun" else "StartRun"
            reply = self._ask("StartRun", f"/api/{route}/{segment}", deadline, process_key=process_key)
        if reply.status == 404:
            raise reply.refusal(
                f"no process {process_key!r} for this mate; check the process key and ANYMATE_API_URL ({reply.text})"
            )
        run_id = reply.accepted().get("runId")
        if not isinstance(run_id, int) or isinstance(run_id, bool) or not 1 <= run_id <= LARGEST_ID:
            raise reply.refusal(f"the answer has no usable runId: {reply.text}")
        self._start_route = route
        return run_id

    def finish_run(self, run_id: int, kpis: Kpis = Kpis(), *, deadline: Deadline | None = None) -> None:
        """Finish a run, with the KPIs that were recorded (Anymate's Finish Run page).

        When an earlier try of this call may have reached Anymate and a later one hears that the run is not open, it is
        finished. What that means for a call of its own is for the caller to say: see `means_not_open`.

        Args:
            run_id: The run's id.
            kpis: What to send; a value that is None is left out, and Anymate's default applies.
            deadline: When to give up; None takes `settings.deadline` seconds.

        Raises:
            ApiError: Anymate said no.
            AuthenticationError: The credentials were refused.
            UnreachableError: No usable answer before the deadline.
        """
        fields = {"runId": run_id, "overwriteEntries": kpis.entries, "overwriteSecondsSaved": kpis.whole_seconds}
        payload = {name: value for name, value in fields.items() if value is not None}
        reply = self._ask("FinishRun", "/api/FinishRun/", deadline, payload, run_id=run_id)
        try:
            reply.accepted()
        except ApiError as error:
            if not (reply.sent_before and means_not_open(error)):
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
        payload = {"processKey": check_process_key(process_key), "message": masked(self, message)}
        self._ask("Failure", "/api/Failure/", deadline, payload, process_key=process_key).accepted()

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
        reply = self._ask("OkToRun", f"/api/OkToRun/{_segment(process_key)}", deadline, process_key=process_key)
        data = reply.accepted()
        advice = [data.get(name) for name in ("okToRun", "gateOpen", "tasksAvailable", "notBlockedDate")]
        if not all(isinstance(value, bool) for value in advice):
            raise reply.refusal(f"the answer is not four yes or no: {reply.text}")
        return OkToRun(*map(bool, advice))

    def _ask(
        self,
        operation: str,
        path: str,
        deadline: Deadline | None,
        payload: Mapping[str, object] | None = None,
        **about: object,
    ) -> Reply:
        """Make a call with the token, and once again with a fresh one after a 401."""
        deadline = deadline or Deadline.after(self.settings.deadline)
        if payload is None:
            request = Request("GET", self.settings.api_url, path)
        else:
            request = Request("POST", self.settings.api_url, path, json.dumps(payload).encode())
            request = request.having("Content-Type", "application/json")
        token, reply = self._signed(operation, request, deadline, about, sent_before=False)
        if reply.status == 401:
            self._tokens.drop(token)
            token, reply = self._signed(operation, request, deadline, about, sent_before=reply.sent_before)
        if reply.status == 401:
            self._tokens.drop(token)
            raise reply.refusal(f"a fresh token was refused, too: {reply.text}", AuthenticationError)
        return reply

    def _signed(
        self, operation: str, request: Request, deadline: Deadline, about: Mapping[str, object], *, sent_before: bool
    ) -> tuple[Token, Reply]:
        """Make a call with the token, until it is answered."""
        try:
            token = self._tokens.valid(deadline)
        except (UnreachableError, ApiError) as error:
            error.maybe_sent = sent_before
            raise
        signed = token.sign(request)
        reply = self._caller.until_answered(operation, signed, token.mask, deadline, about, sent_before=sent_before)
        return token, reply

    def _start_over(self) -> None:
        """In a forked child: its own connections and locks, with the token that is known already."""
        self._caller = Caller(self.settings.timeout)
        self._tokens = Tokens(self.settings, self._caller, self._tokens.token)


def check_proxies(client: AnymateClient) -> None:
    """Refuse a proxy on the way to Anymate that can't be used; nothing is sent.

    Raises:
        ConfigurationError: With the proxy's variable.
    """
    client._caller.check_proxies(client.settings.auth_url, client.settings.api_url)


def masked(client: AnymateClient, message: str) -> str:
    """A message for people as it may be stored and sent: without secrets, and not too long."""
    token = client._tokens.token
    return (token or client._tokens).mask.masked(message)[:_LONGEST_MESSAGE]


def means_not_open(error: ApiError) -> bool:
    """Whether a refusal says that the run is not open: it was finished by somebody, or never was."""
    return error.operation == "FinishRun" and error.status in _NOT_OPEN and error.said_no


def log_in(client: AnymateClient, deadline: Deadline) -> None:
    """Get a token, as the first call would, to see whether the credentials are accepted.

    Raises:
        ApiError: The answer holds no token.
        AuthenticationError: The credentials were refused.
        UnreachableError: No usable answer before the deadline.
    """
    client._tokens.valid(deadline)


def _segment(process_key: str) -> str:
    return quote(check_process_key(process_key), safe="")


def _after_fork() -> None:
    for client in list(_clients):
        client._start_over()


in_child(_after_fork)

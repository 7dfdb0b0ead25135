"""The sandbox as a Python object."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import date
from types import TracebackType
from typing import Any

from anymate_guard.sandbox._api.control import Control
from anymate_guard.sandbox._app import App
from anymate_guard.sandbox._journal import Journal
from anymate_guard.sandbox._server import HOST, AccessLog, Server
from anymate_guard.sandbox._state.tokens import CREDENTIALS
from anymate_guard.sandbox._state.world import World
from anymate_guard.sandbox._views import FailureView, ProcessView, RequestView, RunView

NO_ANSWER = object()


class Sandbox:
    """A local Anymate that serves on 127.0.0.1 from a daemon thread.

    Closing it and starting it again keeps its address and everything it knows, as an outage does.

    Args:
        port: Where to serve; 0 takes a free port.
        clock: The time in seconds since 1970, for tests in which tokens expire or dates are blocked.
        access_log: Called for each request when it has been answered: with the client's address and port, the request
            line, and the status; None for the status if there was no answer.
    """

    def __init__(
        self, port: int = 0, *, clock: Callable[[], float] = time.time, access_log: AccessLog | None = None
    ) -> None:
        self._port = port
        self._access_log = access_log
        self._world = World(clock)
        self._control = Control(self._world)
        self._app = App(self._world, self._control)
        self._server: Server | None = None

    def __enter__(self) -> Sandbox:
        """Start serving."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        self.close()

    def start(self) -> Sandbox:
        """Start serving, unless it does already.

        Raises:
            OSError: The port is taken.
        """
        if self._server is None:
            self._server = Server(self._app, self._port, self._access_log)
            self._port = self._server.port
            self._world.alarm.ring()
            self._server.start()
        return self

    def close(self) -> None:
        """Stop serving: nobody is let in any more, open connections end, also those that hang."""
        if self._server is not None:
            self._world.alarm.ring_on()
            self._server.stop()
            self._server = None

    @property
    def url(self) -> str:
        """The address, with its port, once it is started."""
        if self._port == 0:
            raise RuntimeError("The sandbox has no address before it is started.")
        return f"http://{HOST}:{self._port}"

    @property
    def environ(self) -> dict[str, str]:
        """The environment variables that point a bot here."""
        credentials = {f"ANYMATE_{name.upper()}": value for name, value in CREDENTIALS.items()}
        return {**credentials, "ANYMATE_API_URL": self.url, "ANYMATE_AUTH_URL": self.url}

    def show_journal(self, journal: Journal | None) -> None:
        """Show the journal of this machine on the page, with a button to deliver what it owes; None shows none."""
        self._world.journal = journal

    def reset(self) -> None:
        """Forget everything and wake hanging requests; tokens stay good and numbers go on growing."""
        self._world.reset()

    def runs(self) -> list[RunView]:
        """Return all runs in the order they were started."""
        return self._world.state.runs()

    def failures(self) -> list[FailureView]:
        """Return all reported failures in the order they came."""
        return self._world.state.failures()

    def processes(self) -> list[ProcessView]:
        """Return all processes in the order they were first mentioned."""
        return self._world.state.processes()

    def requests(self) -> list[RequestView]:
        """Return the latest requests in the order they came, those of the control side left out."""
        return self._world.traffic.list()

    def faults(self) -> list[dict[str, object]]:
        """Return the faults still to come."""
        return self._world.faults.list()

    def fail_next(
        self,
        operation: str,
        status: int | None = None,
        *,
        retry_after: int | str | None = None,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        reset: str | None = None,
        hang: bool | float | None = None,
        delay: float | None = None,
        html: bool | None = None,
        answer: object = NO_ANSWER,
        after: bool = False,
        times: int = 1,
        process_key: str | None = None,
    ) -> None:
        """Make the next calls of an operation go wrong: by 503, or by the one kind of fault that is given.

        Args:
            operation: `token`, `StartRun`, `FinishRun` …, or `*` for any.
            status: Answer with this status; `retry_after`, `headers` and `body` (text or JSON) go with it.
            retry_after: The Retry-After header.
            headers: More headers; with `Connection: close` a `Content-Length` too large cuts the body.
            body: The body in place of a general one.
            reset: Reset the connection, `"before"` or `"after"` the state changed.
            hang: Never answer, or hold the connection that many seconds and then reset it.
            delay: Answer rightly, but so many seconds late.
            html: Answer 200 with a login page.
            answer: Answer 200 with this JSON.
            after: Let the state change first, whatever comes then.
            times: For how many calls.
            process_key: Only for calls that are about this process.

        Raises:
            ValueError: This is no such fault; the message says what is.
        """
        kinds = {"status": status, "reset": reset, "hang": hang, "delay": delay, "html": html}
        extras = {"retryAfter": retry_after, "headers": headers, "body": body}
        aim = {"after": after or None, "processKey": process_key}
        fields: dict[str, Any] = {name: value for name, value in kinds.items() if value is not None}
        if answer is not NO_ANSWER:
            fields["answer"] = answer
        fields = fields or {"status": 503}
        fields.update((name, value) for name, value in {**extras, **aim}.items() if value is not None)
        self._control.add_fault({"operation": operation, "times": times, **fields})

    def set_process(
        self,
        process_key: str,
        *,
        stopped: bool | None = None,
        blocked_date: date | str | None = None,
        seconds_saved: int | None = None,
        entries: int | None = None,
        seconds_saved_per_entry: int | None = None,
        tasks_enabled: bool | None = None,
    ) -> ProcessView:
        """Set up a process; what is not given stays.

        Args:
            process_key: Which process.
            stopped: Whether Stop Process is on.
            blocked_date: The day that is blocked in the calendar, in UTC; `""` for none.
            seconds_saved: Simple KPI mode: seconds per run.
            entries: Advanced KPI mode: entries per run.
            seconds_saved_per_entry: Advanced KPI mode: seconds per entry.
            tasks_enabled: Whether KPIs are counted per task.

        Raises:
            ValueError: A value cannot be taken; the message names it.
        """
        fields = {
            "stopped": stopped,
            "blockedDate": blocked_date.isoformat() if isinstance(blocked_date, date) else blocked_date,
            "secondsSaved": seconds_saved,
            "entries": entries,
            "secondsSavedPerEntry": seconds_saved_per_entry,
            "tasksEnabled": tasks_enabled,
        }
        return self._control.set_process(
            process_key, {name: value for name, value in fields.items() if value is not None}
        )

    def set_tokens(self, *, lifetime: int | None = None, revoke: bool = False) -> None:
        """Set how many seconds new tokens live, or revoke those issued so far."""
        fields: dict[str, Any] = {} if lifetime is None else {"lifetime": lifetime}
        self._control.set_tokens({"revoke": revoke, **fields})

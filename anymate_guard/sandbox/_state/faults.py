"""Calls that go wrong on request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from werkzeug.wrappers import Response

from anymate_guard.sandbox import _values as values
from anymate_guard.sandbox._http import JSON_TYPE, uncached
from anymate_guard.sandbox._values import Refused

ANY_OPERATION = "*"
LONGEST_WAIT = 1_000_000
LOGIN_PAGE = (
    "<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Sign in</h1>"
    '<form method="post"><input name="username"><input name="password" type="password"></form></body></html>'
)


class Dropped(Exception):
    """The connection is to be reset, without an answer."""


class Alarm:
    """Wakes all requests that wait.

    A request holds on to its event before it takes a fault, so that no wake-up falls between the two.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def event(self) -> threading.Event:
        """Return what the next ring sets."""
        return self._event

    def ring(self) -> None:
        """Wake everyone who waits now; who comes later waits again."""
        event, self._event = self._event, threading.Event()
        event.set()

    def ring_on(self) -> None:
        """Wake everyone who waits now, or comes to wait before the next `ring`."""
        self._event.set()


@dataclass(frozen=True)
class Canned:
    """An answer made up beforehand."""

    status: int
    body: bytes
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """Return it as a response of its own."""
        response = uncached(Response(self.body, self.status, content_type=self.content_type))
        response.headers.update(self.headers)
        return response


@dataclass(frozen=True)
class Fault:
    """What becomes of the next calls of an operation.

    First the state changes, if the fault is to come `after` that; then the call waits; then the connection
    drops, or the canned answer is given, or the real one if there is none.
    """

    operation: str
    shape: Mapping[str, object]
    process_key: str | None = None
    times: int = 1
    after: bool = False
    wait: float | None = 0
    drop: bool = False
    canned: Canned | None = None

    def hits(self, operation: str, process_key: str | None) -> bool:
        """Tell whether a call is meant."""
        return self.operation in (ANY_OPERATION, operation) and self.process_key in (None, process_key)

    def play(self, act: Callable[[], Response], alarm: threading.Event) -> Response:
        """Return the answer to a call that is meant."""
        done = act() if self.after else None
        woken = self.wait != 0 and alarm.wait(self.wait)
        if woken or self.drop:
            raise Dropped
        if self.canned is not None:
            return self.canned.response()
        return act() if done is None else done

    def view(self) -> dict[str, object]:
        """Return the fault as it was asked for, with what is left of it."""
        return {**self.shape, "times": self.times}


class Faults:
    """The faults still to come, in the order they were asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Queue a fault behind the others."""
        with self._lock:
            self._faults.append(fault)

    def take(self, operation: str, process_key: str | None) -> Fault | None:
        """Return the fault for this call, and count it."""
        with self._lock:
            for index, fault in enumerate(self._faults):
                if fault.hits(operation, process_key):
                    left = [replace(fault, times=fault.times - 1)] if fault.times > 1 else []
                    self._faults[index : index + 1] = left
                    return fault
            return None

    def list(self) -> list[dict[str, object]]:
        """Return the faults still to come."""
        with self._lock:
            return [fault.view() for fault in self._faults]

    def reset(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._faults.clear()


def read_fault(fields: dict[str, object], operations: tuple[str, ...]) -> Fault:
    """Read a fault from its JSON shape."""
    operation = fields.get("operation")
    if operation not in (*operations, ANY_OPERATION):
        allowed = ", ".join((*operations, ANY_OPERATION))
        raise Refused(f"operation has to be one of {allowed}, not {values.shown(operation)}.")
    kinds = [kind for kind in _KINDS if kind in fields]
    if len(kinds) != 1:
        given = ", ".join(kinds) or "none"
        raise Refused(f"A fault needs exactly one of {', '.join(_KINDS)}; given: {given}.")
    read, options = _KINDS[kinds[0]]
    values.only(fields, ("operation", "processKey", "times", kinds[0], *options))
    key = fields.get("processKey")
    fault = Fault(
        operation=str(operation),
        shape=fields,
        process_key=None if key is None else values.text("processKey", key),
        times=values.identity("times", fields.get("times", 1)),
        after=values.flag("after", fields.get("after", False)),
    )
    return read(fault, fields)


def _status(fault: Fault, fields: dict[str, object]) -> Fault:
    status = values.integer("status", fields["status"])
    if not 200 <= status <= 599:
        raise Refused(f"status has to be from 200 to 599, not {status}.")
    headers = fields.get("headers", {})
    if not isinstance(headers, dict) or not all(_is_header(*item) for item in headers.items()):
        raise Refused("headers has to be an object of strings without line breaks.")
    headers = dict(headers)
    if "retryAfter" in fields:
        retry_after = fields["retryAfter"]
        is_text = isinstance(retry_after, str) and _is_header("Retry-After", retry_after)
        headers["Retry-After"] = str(retry_after if is_text else values.count("retryAfter", retry_after))
    body = fields.get("body", {"succeeded": False, "message": f"The sandbox was asked to answer {status}."})
    if isinstance(body, str):
        return replace(
            fault, canned=Canned(status, body.encode(errors="replace"), "text/plain; charset=utf-8", headers)
        )
    return replace(fault, canned=Canned(status, json.dumps(body).encode(), JSON_TYPE, headers))


def _is_header(name: object, value: object) -> bool:
    return all(isinstance(part, str) and part.isascii() and part.isprintable() for part in (name, value))


def _reset(fault: Fault, fields: dict[str, object]) -> Fault:
    if fields["reset"] not in ("before", "after"):
        raise Refused(f"reset has to be 'before' or 'after', not {values.shown(fields['reset'])}.")
    return replace(fault, after=fields["reset"] == "after", drop=True)


def _hang(fault: Fault, fields: dict[str, object]) -> Fault:
    wait = None if fields["hang"] is True else _wait("hang", fields["hang"])
    return replace(fault, wait=wait, drop=True)


def _delay(fault: Fault, fields: dict[str, object]) -> Fault:
    return replace(fault, wait=_wait("delay", fields["delay"]))


def _html(fault: Fault, fields: dict[str, object]) -> Fault:
    if not values.flag("html", fields["html"]):
        raise Refused("html has to be true.")
    return replace(fault, canned=Canned(200, LOGIN_PAGE.encode(), "text/html; charset=utf-8"))


def _answer(fault: Fault, fields: dict[str, object]) -> Fault:
    return replace(fault, canned=Canned(200, json.dumps(fields["answer"]).encode(), JSON_TYPE))


def _wait(name: str, value: object) -> float:
    return min(values.seconds(name, value), LONGEST_WAIT)


_KINDS: Mapping[str, tuple[Callable[[Fault, dict[str, object]], Fault], tuple[str, ...]]] = {
    "status": (_status, ("after", "retryAfter", "headers", "body")),
    "reset": (_reset, ()),
    "hang": (_hang, ("after",)),
    "delay": (_delay, ("after",)),
    "html": (_html, ("after",)),
    "answer": (_answer, ("after",)),
}

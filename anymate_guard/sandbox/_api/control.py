"""The control side: look at the sandbox, set it up, break it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.wrappers import Response

from anymate_guard.sandbox import _values as values
from anymate_guard.sandbox._api.calls import OPERATIONS, process_key
from anymate_guard.sandbox._http import answered, json_response
from anymate_guard.sandbox._journal import Journal
from anymate_guard.sandbox._state.faults import read_fault
from anymate_guard.sandbox._state.kpi import Defaults
from anymate_guard.sandbox._state.model import Settings
from anymate_guard.sandbox._state.world import World
from anymate_guard.sandbox._values import Refused
from anymate_guard.sandbox._views import ProcessView

Action = Callable[[bytes], object]
SIMPLE = "secondsSaved"
ADVANCED = ("entries", "secondsSavedPerEntry")
_MOST_ROWS = 1000


class Control:
    """Answers the routes under /sandbox; the changes can be made from Python too."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._routes: Mapping[str, Mapping[str, Action]] = {
            "runs": {"GET": lambda _: world.state.runs()},
            "failures": {"GET": lambda _: world.state.failures()},
            "processes": {"GET": lambda _: world.state.processes()},
            "requests": {"GET": lambda _: world.traffic.list()},
            "faults": {
                "GET": lambda _: world.faults.list(),
                "POST": _reading(self.add_fault),
                "DELETE": lambda _: world.end_faults(),
            },
            "tokens": {"PUT": _reading(self.set_tokens)},
            "reset": {"POST": lambda _: world.reset()},
            "journal": {
                "GET": lambda _: self._journal().rows(_MOST_ROWS)[0],
                "POST": lambda _: {"message": self._journal().deliver()},
            },
        }

    def respond(self, method: str, segments: list[str], data: bytes) -> Response:
        """Answer a request for the path below /sandbox."""
        return answered(lambda: json_response(self._action(method, segments)(data)))

    def set_process(self, key: str, fields: dict[str, Any]) -> ProcessView:
        """Change those settings of a process that are given."""
        values.only(fields, ("stopped", "blockedDate", "tasksEnabled", SIMPLE, *ADVANCED))
        return self._world.state.configure(key, lambda old: _changed(old, fields))

    def add_fault(self, fields: dict[str, Any]) -> dict[str, object]:
        """Make the next calls of an operation go wrong."""
        fault = read_fault(fields, OPERATIONS)
        self._world.faults.add(fault)
        return fault.view()

    def set_tokens(self, fields: dict[str, Any]) -> dict[str, object]:
        """Set how many seconds new tokens live, or revoke those issued so far."""
        values.only(fields, ("lifetime", "revoke"))
        tokens = self._world.tokens
        revoke = values.flag("revoke", fields.get("revoke", False))
        tokens.lifetime = values.count("lifetime", fields.get("lifetime", tokens.lifetime))
        if revoke:
            tokens.revoke()
        return {"lifetime": tokens.lifetime, "revoked": revoke}

    def _journal(self) -> Journal:
        if self._world.journal is None:
            raise NotFound("This sandbox was given no journal to show.")
        return self._world.journal

    def _action(self, method: str, segments: list[str]) -> Action:
        methods = self._methods(segments)
        if method not in methods:
            raise MethodNotAllowed(list(methods), f"This route wants {' or '.join(methods)}.")
        return methods[method]

    def _methods(self, segments: list[str]) -> Mapping[str, Action]:
        if len(segments) == 2 and segments[0] == "processes":
            key = process_key(segments[1])
            return {"PUT": _reading(lambda fields: self.set_process(key, fields))}
        if len(segments) == 1 and segments[0] in self._routes:
            return self._routes[segments[0]]
        raise NotFound(f"The control side has {', '.join(self._routes)}.")


def _reading(act: Callable[[dict[str, Any]], object]) -> Action:
    return lambda data: act(values.as_object(values.read_json(data)))


def _changed(old: Settings, fields: dict[str, Any]) -> Settings:
    return Settings(
        stopped=values.flag("stopped", fields.get("stopped", old.stopped)),
        tasks_enabled=values.flag("tasksEnabled", fields.get("tasksEnabled", old.tasks_enabled)),
        blocked_date=_blocked(fields["blockedDate"]) if "blockedDate" in fields else old.blocked_date,
        defaults=_defaults(old.defaults, fields),
    )


def _blocked(value: object) -> date | None:
    if value is None or value == "":
        return None
    try:
        return date.fromisoformat(values.text("blockedDate", value))
    except ValueError:
        raise Refused(f"blockedDate has to be a date like 2026-12-24, not {values.shown(value)}.") from None


def _defaults(old: Defaults, fields: dict[str, Any]) -> Defaults:
    """Read the KPI defaults: simple mode has one field, advanced mode two, of which one may stay."""
    given = {name: values.count(name, fields[name]) for name in ADVANCED if name in fields}
    if SIMPLE in fields:
        if given:
            raise Refused(f"{SIMPLE} is for simple mode, {' and '.join(given)} for advanced mode; not both.")
        return Defaults(values.count(SIMPLE, fields[SIMPLE]))
    if not given:
        return old
    if old.entries is None and len(given) < len(ADVANCED):
        raise Refused(f"Advanced mode needs {' and '.join(ADVANCED)}.")
    return replace(
        old,
        entries=given.get("entries", old.entries),
        seconds=given.get("secondsSavedPerEntry", old.seconds),
    )

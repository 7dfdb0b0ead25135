"""What a command tells the person at the terminal, beside its results."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

Event = Mapping[str, Any]


def say(command: str, text: str) -> None:
    """Write to stderr; one that is closed must not end a command that has work to finish."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError):
        print(f"anymate-guard {command}: {text}", file=sys.stderr, flush=True)


def collected() -> list[Event]:
    """Keep the package's warnings and errors in this list from now on, and log nothing."""
    import structlog

    events: list[Event] = []

    def keep(_: object, level: str, event: Event) -> NoReturn:
        if level in {"warning", "error"}:
            events.append(event)
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    return events


def told(event: Event) -> str:
    """An event on one line: what happened, why, and what to do."""
    what = str(event["event"]).removeprefix("anymate.").replace("_", " ")
    kpis = " ".join(f"{name}={event[name]}" for name in ("entries", "seconds_saved") if name in event)
    parts = (event.get("path"), event.get("error"), event.get("remedy"), kpis)
    return " ".join(f"{what}: {'; '.join(str(part) for part in parts if part)}".split())

"""The package's log lines while a command runs: kept for a summary, or shown as they come."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from anymate_guard._commands.terminal import Paint
from anymate_guard._log import NAME

if TYPE_CHECKING:
    from structlog.typing import Processor

Event = MutableMapping[str, Any]

_OF_RUN = ("process_key", "run_id", "entries", "seconds_saved")


class _Handler(logging.Handler):
    def __init__(self, events: list[Event]) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        event, fields = cast("tuple[str, Event]", record.args)
        self._events.append({"event": event, "level": record.levelname.lower(), **fields})


def collected(show: str | None = None, renderers: Sequence[Processor] = ()) -> list[Event]:
    """Keep the package's warnings and errors in the list that is returned, from now on.

    Args:
        show: Print lines of this level ("info", "warning") and above to stderr; None prints none.
        renderers: What makes text of a line, see `rendering`.
    """
    events: list[Event] = []
    if show is None:  # no need for structlog then, whose import takes as long as all others
        logger = logging.getLogger(NAME)
        logger.propagate = False
        logger.addHandler(_Handler(events))
        return events
    import structlog

    least = logging.getLevelName(show.upper())

    def keep(_: object, level: str, event: Event) -> Event:
        if level in {"warning", "error"} and str(event["event"]).startswith("anymate."):
            events.append({"level": level, **event})
        if logging.getLevelName(level.upper()) < least:
            raise structlog.DropEvent
        return event

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, keep, structlog.processors.add_log_level, *renderers],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    return events


def rendering(log_format: str) -> list[Processor]:
    """What makes text of a line: "console" for people, "json" for programs."""
    import structlog

    if log_format == "console":
        return [
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            structlog.dev.ConsoleRenderer(colors=Paint(sys.stderr).coloured, pad_event=0),
        ]
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(ensure_ascii=sys.stderr.encoding.lower() != "utf-8"),
    ]


def told(event: Event) -> str:
    """An event on one line: what happened, why, what to do, and to which run with which KPIs."""
    what = str(event["event"]).removeprefix("anymate.").replace("_", " ")
    run = " ".join(f"{name}={event[name]}" for name in _OF_RUN if name in event)
    parts = (event.get("path"), event.get("error"), event.get("remedy"), run)
    return " ".join(f"{what}: {'; '.join(str(part) for part in parts if part)}".split())

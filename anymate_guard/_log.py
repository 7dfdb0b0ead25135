"""Where our log lines go: the program's structlog if it configured one, else its standard library logger."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sys
from collections.abc import Mapping
from contextvars import Token
from typing import Any

from anymate_guard._process import signals

NAME = "anymate_guard"

_BARE = re.compile(r"[^\s\"=\x00-\x1f\x7f]+")

Bound = Mapping[str, "Token[Any]"]


def emit(level: str, event: str, **fields: object) -> None:
    """Log one event; never raises what the program's processors and log handlers do.

    Args:
        level: "debug", "info", "warning" or "error".
        event: The event's name, such as "anymate.run_started".
        **fields: What there is to say; a field that is None is left out.
    """
    known = {name: value for name, value in fields.items() if value is not None}
    try:
        if _structlog_is_configured():
            if "process_key" in fields or "run_id" in fields:  # not those of another run, bound in the context
                known = {"process_key": None, "run_id": None, **known}
            getattr(_program_s_logger(), level)(event, **known)
        else:
            logger = logging.getLogger(NAME)
            logger.disabled = False  # a dictConfig disables all loggers that it does not name
            getattr(logger, level)("%s %s", event, _KeyValue(known), extra=known)
    except Exception as error:  # noqa: BLE001  # a broken handler must not stop a FinishRun
        signals.let_pass(error)


class _KeyValue(dict[str, object]):
    """Fields that become text when a line is written."""

    def __str__(self) -> str:
        texts = {name: str(value) for name, value in self.items()}
        return " ".join(
            f"{name}={text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)}"
            for name, text in texts.items()
        )


def _structlog_is_configured() -> bool:
    if "structlog" not in sys.modules:  # then nobody has, and importing it takes 125 ms where rich is installed
        return False
    import structlog

    return structlog.is_configured()


def _program_s_logger() -> Any:
    """A logger of the program's own kind, by our name where it takes one."""
    import structlog

    try:
        return structlog.get_logger(NAME).bind()
    except TypeError:  # its factory takes no name
        return structlog.get_logger()


def bind(**fields: object) -> Bound:
    """Bind fields in structlog's context variables, if the program uses it, so that the bot's own lines carry them."""
    if "structlog" not in sys.modules:
        return {}
    from structlog.contextvars import bind_contextvars

    return bind_contextvars(**fields)


def unbind(bound: Bound) -> None:
    """Put back what the program had bound before."""
    if not bound:
        return
    from structlog.contextvars import reset_contextvars

    with contextlib.suppress(ValueError):  # left in another context than entered: nothing of ours is in it
        reset_contextvars(**bound)

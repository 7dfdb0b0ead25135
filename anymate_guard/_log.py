"""Where our log lines go: the program's structlog if it configured one, else its standard library logger."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from contextvars import Token
from typing import Any

NAME = "anymate_guard"

Bound = Mapping[str, "Token[Any]"]


def emit(level: str, event: str, **fields: object) -> None:
    """Log one event; never raises, whatever the program's processors and handlers do.

    Args:
        level: "debug", "info", "warning" or "error".
        event: The event's name, such as "anymate.run_started".
        **fields: What there is to say; a field that is None is left out.
    """
    import structlog  # 125 ms where rich is installed: paid at the first event, not at import

    fields = {name: value for name, value in fields.items() if value is not None}
    with contextlib.suppress(Exception):  # a broken handler must not stop a FinishRun
        if structlog.is_configured():
            getattr(structlog.get_logger(NAME), level)(event, **fields)
            return
        logger = logging.getLogger(NAME)
        number = getattr(logging, level.upper())
        if logger.isEnabledFor(number):
            logger.log(number, "%s %s", event, structlog.processors.LogfmtRenderer()(logger, level, fields))


def bind(**fields: object) -> Bound:
    """Bind fields in structlog's context variables, so that the bot's own lines carry them."""
    from structlog.contextvars import bind_contextvars

    return bind_contextvars(**fields)


def unbind(bound: Bound) -> None:
    """Put back what the program had bound before."""
    from structlog.contextvars import reset_contextvars

    with contextlib.suppress(ValueError):  # left in another context than entered: nothing of ours is in it
        reset_contextvars(**bound)

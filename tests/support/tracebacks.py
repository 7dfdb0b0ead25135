"""Tracebacks as programs render them, with local variables."""

from __future__ import annotations

import json

import rich.traceback
from structlog.tracebacks import ExceptionDictTransformer

_MANY = 1_000_000


def by_rich(error: BaseException) -> str:
    """Everything that rich would show of the error; drawing it takes a hundred times as long."""
    found = rich.traceback.Traceback.extract(
        type(error),
        error,
        error.__traceback__,
        show_locals=True,
        locals_max_length=_MANY,
        locals_max_string=_MANY,
        locals_hide_dunder=False,
    )
    return repr(found)


def by_structlog(error: BaseException) -> str:
    """The error as structlog's dictionaries show it."""
    to_dicts = ExceptionDictTransformer(
        show_locals=True, locals_max_length=_MANY, locals_max_string=_MANY, max_frames=_MANY
    )
    return json.dumps(to_dicts((type(error), error, error.__traceback__)), default=repr)


def rendered(error: BaseException) -> str:
    """Both of these, and the texts of the error itself."""
    parts = [by_rich(error), by_structlog(error), repr(error), str(error), repr(error.__dict__)]
    return "\n".join(parts)

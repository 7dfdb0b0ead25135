"""Reading what a request carries: JSON, names in any case, numbers that may be digit strings."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import NoReturn

MAX_INT32 = 2**31 - 1


class Refused(ValueError):
    """A value the sandbox does not take; the text names the field."""


def read_json(data: bytes) -> object:
    """Parse a body, refusing what strict JSON parsers refuse too (NaN, infinities)."""
    try:
        value: object = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refused(f"The body is not valid JSON: {error}") from None
    return value


def as_object(value: object) -> dict[str, object]:
    """Return what has to be a JSON object."""
    if not isinstance(value, dict):
        raise Refused(f"A JSON object is expected here, not {shown(value)}.")
    return value


def fold(fields: dict[str, object]) -> dict[str, object]:
    """Return the fields by lower-case name, without nulls: a null is the same as an absent field."""
    return {name.lower(): value for name, value in fields.items() if value is not None}


def integer(name: str, value: object) -> int:
    """Return an integer that may have been sent as a digit string."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise Refused(f"{name} has to be an integer, not {shown(value)}.")


def count(name: str, value: object) -> int:
    """Return an integer that fits a KPI field: 0 to 2 147 483 647."""
    number = integer(name, value)
    if not 0 <= number <= MAX_INT32:
        raise Refused(f"{name} has to be from 0 to {MAX_INT32}, not {shown(value)}.")
    return number


def identity(name: str, value: object) -> int:
    """Return the number of a run or a task, which is required and at least 1."""
    if value is None:
        raise Refused(f"{name} is required.")
    number = integer(name, value)
    if number < 1:
        raise Refused(f"{name} has to be at least 1, not {shown(value)}.")
    return number


def flag(name: str, value: object) -> bool:
    """Return a bool."""
    if not isinstance(value, bool):
        raise Refused(f"{name} has to be true or false, not {shown(value)}.")
    return value


def text(name: str, value: object) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise Refused(f"{name} has to be a string, not {shown(value)}.")
    return value


def seconds(name: str, value: object) -> float:
    """Return a duration in seconds, zero or more."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MAX_INT32:
        raise Refused(f"{name} has to be a number of seconds, not {shown(value)}.")
    return value


def only(fields: dict[str, object], allowed: tuple[str, ...]) -> None:
    """Refuse names that mean nothing, so that a slip of the pen does not pass for a setting."""
    for name in fields:
        if name not in allowed:
            raise Refused(f"{name} means nothing here; allowed are {', '.join(allowed)}.")


def iso(timestamp: float) -> str:
    """Return a point in time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(timestamp, timezone.utc).isoformat(timespec="microseconds")


def shown(value: object) -> str:
    """Return a value as it reads in a message, cut to a readable length."""
    written = repr(value)
    return written if len(written) <= 60 else f"{written[:57]}..."


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")

"""HTML from the fragments in a file, and numbers and times as they are read; what came from a bot is escaped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from importlib.resources import files
from typing import TypeVar

from markupsafe import Markup
from werkzeug.http import HTTP_STATUS_CODES

T = TypeVar("T")

STATIC = files("anymate_guard.sandbox._page") / "static"
NOT_YET = Markup("\N{EN DASH}")
LONG_TEXT = 90
TENTHS_BELOW = 10  # seconds


def _fragments() -> dict[str, Markup]:
    text = (STATIC / "fragments.html").read_text(encoding="utf-8")
    found = re.findall(r'^<template id="([^"]+)">$(.*?)^</template>$', text, re.DOTALL | re.MULTILINE)
    return {name: Markup(re.sub(r"\n\s*", "", body)) for name, body in found}  # noqa: S704  # our own file


FRAGMENTS = _fragments()


def fragment(name: str, /, **values: object) -> Markup:
    """Return a piece of HTML with values put in; they are escaped unless they are Markup."""
    return FRAGMENTS[name].format(**values)


def join(pieces: Iterable[Markup]) -> Markup:
    """Return pieces of HTML as one."""
    return Markup().join(pieces)


def nothing(text: str) -> Markup:
    """Return a quiet line, in place of a list or below one that was cut."""
    return fragment("nothing", text=text)


def more(hidden: int) -> Markup:
    """Return a line that says how many of something are not shown."""
    return nothing(f"And {number(hidden)} more.") if hidden else Markup()


def chip(kind: str, text: str) -> Markup:
    """Return a state."""
    return fragment("chip", kind=kind, text=text)


def link(href: str, text: str, *, current: bool = False) -> Markup:
    """Return a link that changes what is shown."""
    return fragment("current" if current else "link", href=href, text=text)


def folded(text: str, name: str) -> Markup:
    """Return a text, folded if it is long; the name is for telling one from the other."""
    if len(text) <= LONG_TEXT and "\n" not in text:
        return fragment("text", text=text) if text else Markup()
    return fragment("long", id=name, start=text[:LONG_TEXT].partition("\n")[0], text=text)


def number(value: float) -> str:
    """Return a whole number with its thousands set apart."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def entries(value: int | None) -> Markup:
    """Return a number of entries; its unit is shown where no column says it."""
    return _amount(value, number, "entry" if value == 1 else "entries")


def saved(seconds: float | None) -> Markup:
    """Return an amount of time saved, in the same way."""
    return _amount(seconds, duration, "saved")


def age(seconds: float) -> Markup:
    """Return how old something is, in the same way."""
    return _amount(seconds, duration, "old")


def _amount(value: T | None, written: Callable[[T], str], unit: str) -> Markup:
    return NOT_YET if value is None else fragment("amount", value=written(value), unit=unit)


def duration(seconds: float) -> str:
    """Return a number of seconds as it is said."""
    if seconds < TENTHS_BELOW:
        return f"{max(0.0, seconds):.1f} s".replace(".0 s", " s")
    minutes, seconds = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {seconds:02} s" if seconds else f"{minutes} min"
    return f"{number(hours)} h {minutes:02} min" if minutes else f"{number(hours)} h"


def time(moment: float, now: float) -> Markup:
    """Return a time for people and for programs."""
    iso = datetime.fromtimestamp(moment, timezone.utc).isoformat()
    return fragment("time", iso=iso, text=clock(moment, now))


def clock(moment: float, now: float) -> str:
    """Return a time as it reads on this machine's clock, with its date unless that is today."""
    local, today = (datetime.fromtimestamp(when).astimezone() for when in (moment, now))
    return f"{local:%H:%M:%S}" if local.date() == today.date() else f"{local:%Y-%m-%d %H:%M:%S}"


def status(code: int) -> str:
    """Return a status with its phrase."""
    return f"{code} {HTTP_STATUS_CODES.get(code, '')}".strip()

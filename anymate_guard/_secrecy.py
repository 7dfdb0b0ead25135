"""Keeps secrets out of what people see: texts that are quoted, and tracebacks rendered with local variables."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar
from urllib.parse import quote

from anymate_guard._process.fork import importing

P = ParamSpec("P")
T = TypeVar("T")

_QUOTED = 200  # characters
_PLAIN = re.compile(r"[A-Za-z0-9._~-]")  # spelled as they are wherever a server may echo them


def unseen(function: Callable[P, T]) -> Callable[P, T]:
    """Let no frame of a function into a traceback, since its local variables are secrets.

    A traceback can be rendered with the local variables of every frame it passes, by rich and structlog among others.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        outer = sys.exc_info()[1]
        try:
            return function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001  # it goes on, without its frames
            del args, kwargs
            _forget_frames(error, outer)
            raise error.with_traceback(None)  # noqa: B904  # a bare raise brings the old one back on 3.10

    return call


def _forget_frames(error: BaseException | None, outer: BaseException | None) -> None:
    """Drop the tracebacks of an error and of what led to it, up to the one that was being handled before."""
    while error is not None and error is not outer:
        error.__traceback__ = None
        if error.__cause__ is not error.__context__:
            _forget_frames(error.__cause__, outer)
        error = error.__context__


class Mask:
    """Takes secrets out of texts, however they are spelled there: a server may echo what it was sent.

    Args:
        secrets: What must not be seen; empty ones are left out.
    """

    @unseen
    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def and_also(self, secret: str) -> Mask:
        """A mask for one more secret."""
        return Mask([*self._secrets, secret])

    @unseen
    def masked(self, text: str) -> str:
        """The text with `***` for each secret, in its own spelling, percent-encoded, or escaped as in JSON or HTML."""
        for secret in self._secrets:
            text = re.sub("".join(map(_any_spelling, secret)), "***", text)
        return text

    def quoted(self, text: str) -> str:
        """The beginning of the masked text, on one line."""
        start = self.masked(text)[: 10 * _QUOTED]
        line = " ".join("".join(char if char.isprintable() else " " for char in start).split())
        return line if len(line) <= _QUOTED else f"{line[:_QUOTED]}…"


@functools.cache
def _any_spelling(char: str) -> str:
    """A pattern for one character as servers may echo it."""
    if _PLAIN.fullmatch(char):
        return char.replace(".", r"\.")
    with importing():
        import html  # for an answer that is quoted

    escaped = {
        quote(char, safe=""),
        json.dumps(char)[1:-1],
        repr(char)[1:-1],
        html.escape(char),
        f"&#{ord(char)};",
        f"&#x{ord(char):x};",
        f"\\{char}",
        "".join(f"\\x{byte:02x}" for byte in char.encode()),
    } - {char}
    if not char.isascii():  # heads are read as Latin-1; what is not UTF-8 is replaced
        escaped |= {char.encode().decode("latin-1"), "\ufffd"}
    either = "|".join(map(re.escape, sorted(escaped, key=len, reverse=True)))
    plus = r"|\+" if char == " " else ""
    return f"(?:(?i:{either})|{re.escape(char)}{plus})"

"""What to tell people of a failure."""

from __future__ import annotations


class Told(Exception):
    """A failure whose text is all there is to tell: its type means nothing to people."""


def message_of(error: BaseException) -> str:
    """What to report of a failure: its type and text, and those of its cause."""
    message = _described(error)
    return f"{message} (caused by {_described(error.__cause__)})" if error.__cause__ is not None else message


def _described(error: BaseException) -> str:
    if isinstance(error, Told):
        return str(error)
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except BaseException:  # noqa: BLE001  # whatever the program's __str__ raises, its own exception is on its way
        return name

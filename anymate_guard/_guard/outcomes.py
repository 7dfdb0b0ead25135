"""How a body ended, and what to tell people of a failure."""

from __future__ import annotations

from anymate_guard._process import signals
from anymate_guard._run.run import Outcome


class Told(Exception):
    """A failure whose text is all there is to tell: its type means nothing to people."""


def outcome_of(error: BaseException | None) -> Outcome:
    """How a body ended that raised this.

    A signal is an interruption, and so is what is no `Exception`: KeyboardInterrupt, a cancelled task of asyncio or
    trio, a greenlet that is killed. The exception is SystemExit, which says by its code whether all went well.
    """
    if error is None:
        return "succeeded"
    if isinstance(error, SystemExit) and not signals.raised(error):
        return "succeeded" if error.code is None or error.code == 0 else "failed"
    return "failed" if isinstance(error, Exception) else "interrupted"


def message_of(error: BaseException | None) -> str:
    """What to report of a failure: its type and text, and those of its cause."""
    if error is None:
        return ""
    message = _described(error)
    return f"{message} (caused by {_described(error.__cause__)})" if error.__cause__ is not None else message


def _described(error: BaseException) -> str:
    if isinstance(error, Told):
        return str(error)
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001  # whatever the program's __str__ raises
        return name

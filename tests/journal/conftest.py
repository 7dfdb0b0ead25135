"""A journal of its own for each test, and eyes on it."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from anymate_guard._journal.contents import rows_of
from anymate_guard._journal.journals import journal_at
from anymate_guard._journal.rows import Row
from anymate_guard.sandbox import Sandbox
from tests.support.proxy import FaultProxy


@pytest.fixture(name="folder")
def _folder(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the journal; patience is short."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "2")
    monkeypatch.setenv("ANYMATE_TIMEOUT", "2")
    return Path(os.environ["ANYMATE_STATE_DIR"])


@pytest.fixture(name="file")
def _file(folder: Path) -> Path:
    """The journal's file."""
    return folder / "journal.sqlite3"


@pytest.fixture(name="rows")
def _rows(folder: Path) -> Callable[[], list[Row]]:
    """What is in the journal."""
    return lambda: [row for row, _ in rows_of(journal_at(folder))]


@pytest.fixture(name="lines")
def _lines(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """The log lines about an event, and at what level."""
    caplog.set_level(logging.INFO, "anymate_guard")
    return lambda event: [f"{one.levelname} {one.getMessage()}" for one in caplog.records if event in one.getMessage()]


@pytest.fixture(name="calls")
def _calls(sandbox: Sandbox) -> Callable[[], list[str]]:
    """What the sandbox was asked, logins left out."""
    return lambda: [str(request["operation"]) for request in sandbox.requests() if request["operation"] != "token"]


@pytest.fixture(name="way")
def _way(sandbox: Sandbox, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """The proxy, by way of which guards call the sandbox."""
    for name in ("API", "AUTH"):
        monkeypatch.setenv(f"ANYMATE_{name}_URL", proxy.url)
    return proxy


class Watched(sqlite3.Connection):
    """A connection that calls something after it has executed a statement."""

    after: Callable[[str], object] = staticmethod(lambda _: None)  # also when a test is over, and a thread goes on

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Execute it, then call."""
        cursor = super().execute(statement, *values)
        Watched.after(statement)
        return cursor


@pytest.fixture(name="watched")
def _watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], object]], None]:
    """Lets something be called after each statement."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=Watched, **kwargs))
    return lambda after: monkeypatch.setattr(Watched, "after", staticmethod(after), raising=False)


@pytest.fixture(name="interrupt")
def _interrupt(watched: Callable[[Callable[[str], object]], None]) -> Callable[[Callable[[str], bool]], None]:
    """Lets Ctrl-C come after a statement that is chosen, as soon as sqlite has returned to the package."""

    def interrupt(chosen: Callable[[str], bool]) -> None:
        executed = list[str]()

        def profile(_: FrameType, event: str, what: Any) -> None:
            if executed and event == "c_return" and what.__name__ == "extend":  # Python looks for it between two calls
                sys.setprofile(None)
                watched(lambda _: None)
                raise KeyboardInterrupt

        def after(statement: str) -> None:
            if threading.current_thread() is threading.main_thread() and chosen(statement):
                executed.append(statement)

        watched(after)
        sys.setprofile(profile)

    return interrupt

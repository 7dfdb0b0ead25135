"""Fixtures for the tests of a bot: a local Anymate to run against, or guards that call nothing.

pytest loads this in every project that has the package installed, so it imports no more than pytest here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from anymate_guard._journal.journal import Journal
    from anymate_guard._journal.rows import Row
    from anymate_guard.sandbox import FailureView, RequestView, RunView, Sandbox

_FIXTURE = "anymate_sandbox"
_POINTING_ELSEWHERE = ("CLIENT_ID_FILE", "CLIENT_SECRET_FILE", "USERNAME_FILE", "PASSWORD_FILE", "DISABLED")
_PATIENCE = {"ANYMATE_TIMEOUT": "5", "ANYMATE_DEADLINE": "5"}  # so that an outage does not take half a minute
_LEAVING = 5.0  # seconds for guards that are being left in other threads when a test ends
_POLL = 0.01
_SHOWN = 30  # runs, failures and requests each, in the report of a test that failed


@dataclass(frozen=True)
class SandboxRun:
    """A run as the sandbox has it.

    Attributes:
        process_key: Which process.
        run_id: Its number.
        finished: Whether FinishRun came.
        entries: What the bot reported with the finish; None if it reported none.
        seconds_saved: The same for the seconds saved.
        credited_entries: What Anymate logs, as reported or by default; None until the run is finished.
        credited_seconds_saved: The same for the seconds saved.
        started_at: When StartRun came.
        finished_at: When FinishRun came.
    """

    process_key: str
    run_id: int
    finished: bool
    entries: int | None
    seconds_saved: int | None
    credited_entries: int | None
    credited_seconds_saved: int | None
    started_at: datetime = field(repr=False)
    finished_at: datetime | None = field(repr=False)

    @classmethod
    def _of(cls, view: RunView) -> SandboxRun:
        end = view["finishedAt"]
        return cls(
            process_key=view["processKey"],
            run_id=view["runId"],
            finished=view["finished"],
            entries=view["overwriteEntries"],
            seconds_saved=view["overwriteSecondsSaved"],
            credited_entries=view["creditedEntries"],
            credited_seconds_saved=view["creditedSecondsSaved"],
            started_at=datetime.fromisoformat(view["startedAt"]),
            finished_at=None if end is None else datetime.fromisoformat(end),
        )


@dataclass(frozen=True)
class SandboxFailure:
    """A failure that the bot reported."""

    process_key: str
    message: str

    @classmethod
    def _of(cls, view: FailureView) -> SandboxFailure:
        return cls(view["processKey"], view["message"])


@dataclass(frozen=True)
class SandboxRequest:
    """A request that the sandbox got; its status is None while, or because, there is no answer."""

    operation: str | None
    status: int | None
    method: str
    path: str
    body: str

    @classmethod
    def _of(cls, view: RequestView) -> SandboxRequest:
        return cls(view["operation"], view["status"], view["method"], view["path"], view["body"])


class AnymateSandbox:
    """What the fixture `anymate_sandbox` gives: what the bot did to Anymate, and ways to make that difficult.

    Attributes:
        server: The `anymate_guard.sandbox.Sandbox` behind it; `close()` it for an outage.
        fail_next: Make the next calls of an operation go wrong, as in `fail_next("FinishRun", status=503)`.
        set_process: Set up a process, as in `set_process("invoice-intake", stopped=True)`.
    """

    def __init__(self, server: Sandbox) -> None:
        self.server = server
        self.fail_next = server.fail_next
        self.set_process = server.set_process

    def __repr__(self) -> str:
        runs = self.runs
        unfinished = sum(not run.finished for run in runs)
        return (
            f"<{_FIXTURE}: {len(runs)} runs, {unfinished} of them open, {len(self.failures)} failures, "
            f"{len(self.requests)} requests>"
        )

    @property
    def environ(self) -> dict[str, str]:
        """The variables that point a bot here; those of this process are set already."""
        return self.server.environ

    @property
    def runs(self) -> list[SandboxRun]:
        """All runs of this test, in the order they were started."""
        return [SandboxRun._of(view) for view in self.server.runs()]

    @property
    def failures(self) -> list[SandboxFailure]:
        """All failures that were reported in this test."""
        return [SandboxFailure._of(view) for view in self.server.failures()]

    @property
    def requests(self) -> list[SandboxRequest]:
        """All requests of this test, in the order they came; secrets are masked."""
        return [SandboxRequest._of(view) for view in self.server.requests()]

    def _report(self) -> str:
        """What a reader wants to know when a test has failed."""
        parts = []
        for name, items in (("runs", self.runs), ("failures", self.failures), ("requests", self.requests)):
            lines = [f"  {item!r}" for item in items[-_SHOWN:]] or ["  none"]
            if len(items) > _SHOWN:
                lines.insert(0, f"  ({len(items) - _SHOWN} before these)")
            parts += [f"{name}:", *lines]
        return "\n".join(parts)


@pytest.fixture(scope="session")
def _anymate_server() -> Iterator[Sandbox]:
    try:
        from anymate_guard.sandbox import Sandbox
    except ModuleNotFoundError as error:
        if error.name != "werkzeug":
            raise
        missing = str(error)
    else:
        with Sandbox() as server:
            yield server
        return
    # Said here, because inside `except` pytest would show the import error, too.
    advice = f"the fixture {_FIXTURE} needs the sandbox ({missing}): pip install 'anymate-guard[sandbox]'"
    pytest.fail(advice, pytrace=False)


@pytest.fixture(scope="session")
def _anymate_journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    from anymate_guard._files import state_dir
    from anymate_guard._journal.journals import journal_at

    journal = journal_at(state_dir(tmp_path_factory.mktemp("anymate")))
    yield journal
    journal.close()


@pytest.fixture
def anymate_sandbox(
    _anymate_server: Sandbox, _anymate_journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> Iterator[AnymateSandbox]:
    """A local Anymate for one test; the environment points at it, and the journal is a temporary one."""
    from anymate_guard._http.proxies import without_proxy

    _anymate_server.start()  # in case the test before closed it
    _anymate_server.reset()
    for name in _POINTING_ELSEWHERE:
        monkeypatch.delenv(f"ANYMATE_{name}", raising=False)
    folder = {"ANYMATE_STATE_DIR": str(_anymate_journal.path.parent)}
    for name, value in {**_anymate_server.environ, **_PATIENCE, **folder, **without_proxy("127.0.0.1")}.items():
        monkeypatch.setenv(name, value)
    _forget_client()
    yield AnymateSandbox(_anymate_server)
    _forget_client()
    still_open = _clear(_anymate_journal)
    if still_open:
        pytest.fail(_complaint(still_open), pytrace=False)


@pytest.fixture
def anymate_disabled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Guards record and log, but call nothing; for one test, or for many with `pytest.mark.usefixtures`."""
    monkeypatch.setenv("ANYMATE_DISABLED", "1")
    _forget_client()
    yield
    _forget_client()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Show what the sandbox saw below a test that failed."""
    outcome = yield
    sandbox = getattr(item, "funcargs", {}).get(_FIXTURE)
    report = outcome.get_result()
    if call.when == "call" and report.failed and isinstance(sandbox, AnymateSandbox):
        report.sections.append(("Anymate sandbox", sandbox._report()))


def _forget_client() -> None:
    from anymate_guard._guard import defaults

    defaults.forget_client()


def _clear(journal: Journal) -> list[Row]:
    """Empty the journal for the next test; what guards still open come back."""
    from anymate_guard._guard import driver
    from anymate_guard._journal.contents import empty, rows_of
    from anymate_guard._run import current

    end = time.monotonic() + _LEAVING
    while True:
        in_use = [row for row, used in rows_of(journal) if used]
        if all(row.state == "open" for row in in_use) or time.monotonic() > end:
            break
        time.sleep(_POLL)
    if in_use:
        driver.finish_all()  # or the next test would join these runs
        while (scope := current._current.get()) is not None:
            scope.leave()
    empty(journal)
    return sorted(in_use, key=lambda row: row.process_key)


def _complaint(still_open: list[Row]) -> str:
    count = "1 guard is" if len(still_open) == 1 else f"{len(still_open)} guards are"
    return "\n".join(
        [
            f"{count} still open at the end of this test:",
            *(f"  - {row.process_key!r}, run {row.run_id}" for row in still_open),
            "Leave each guard inside the test: use `with`, and join the threads and processes in one.",
        ]
    )

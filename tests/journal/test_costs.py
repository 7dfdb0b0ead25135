"""What the journal reads, keeps and says stays little, and it makes do with little."""

from __future__ import annotations

import errno
import mmap
import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from anymate_guard import anymate_run
from anymate_guard._guard import defaults, driver
from anymate_guard._journal.journals import close_all, journal_at
from anymate_guard._journal.rows import Row
from anymate_guard.sandbox import Sandbox
from tests.support.clock import Clock
from tests.support.waiting import until

Rows = Callable[[], list[Row]]
Lines = Callable[[str], list[str]]


@pytest.fixture(name="steps")
def _steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many hundred steps sqlite has made since it was asked for that last."""
    made = 0

    def count() -> None:
        nonlocal made
        made += 1

    class Counted(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.set_progress_handler(count, 100)

    def since() -> int:
        nonlocal made
        before, made = made, 0
        return before

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Counted, **options))
    return since


def guard(key: str) -> None:
    """A whole guard."""
    with anymate_run(key) as run:
        run.add_entries(1)


def owe(file: Path, count: int, keys: Sequence[str]) -> None:
    """Let what is owed be owed so often, by turns with these process keys, and the number."""
    close_all()
    with closing(sqlite3.connect(file)) as other:
        names = [column[1] for column in other.execute("PRAGMA table_info(rows)")]
        one = dict(zip(names, other.execute("SELECT * FROM rows").fetchone(), strict=True))
        many = (
            {**one, "id": number, "process_key": keys[number % len(keys)].format(number)}
            for number in range(1, count + 1)
        )
        marks = ", ".join(f":{name}" for name in names)
        other.executemany(f"INSERT OR REPLACE INTO rows VALUES ({marks})", many)
        other.commit()


@pytest.mark.parametrize("keys", [["owed {}"], ["a"], ["owed {}", "a"]], ids=["to others", "to its process", "to all"])
def test_much_is_owed(
    sandbox: Sandbox, file: Path, steps: Callable[[], int], monkeypatch: pytest.MonkeyPatch, keys: list[str]
) -> None:
    """With 20 000 finishes owed a guard asks no more of the journal than with 50, in an outage and after it."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "4")
    sandbox.close()
    guard("a")  # from here on the outage is remembered
    costs = []
    for count in (50, 20_000):
        owe(file, count, keys)
        steps()
        guard("a")
        costs.append(steps())
    with closing(sqlite3.connect(file)) as other:
        assert other.execute("SELECT count(*) FROM rows").fetchone() == (20_000 + 3,)
    assert costs[1] < 2 * costs[0] + 10
    sandbox.start()
    steps()
    guard("b")  # delivers some of it, in batches
    assert steps() < 500 * costs[0]
    assert {run["processKey"] for run in sandbox.runs() if run["finished"]} > {"b"}


def test_more_is_owed_than_is_claimed_at_once(sandbox: Sandbox, file: Path, rows: Rows, clock: Clock) -> None:
    """What is owed to its process and to others is delivered by one entering guard in several batches."""
    sandbox.close()
    guard("a")
    owe(file, 100, ["a", "owed {}"])
    clock.sleep(120)
    sandbox.start()
    with anymate_run("a"):
        assert len(rows()) == 1


@pytest.fixture(name="statements")
def _statements(watched: Callable[[Callable[[str], object]], None]) -> list[str]:
    """What sqlite was asked for, the first word of each."""
    statements: list[str] = []
    watched(lambda executed: statements.append(executed.split(maxsplit=1)[0]))
    return statements


def test_recording_is_one_statement(sandbox: Sandbox, folder: Path, rows: Rows, statements: list[str]) -> None:
    """What is recorded is written by one statement: over several, a busy program would keep others from the journal."""
    with anymate_run("a") as run:
        journal_at(folder).look()
        statements.clear()
        run.add_entries(3)
        journal_at(folder).look()
        written = list(statements)
        assert [row.entries for row in rows()] == [3]
    assert written == ["UPDATE"]


def test_delivering_is_one_transaction_each(sandbox: Sandbox, rows: Rows, statements: list[str]) -> None:
    """Of many finishes that are delivered, each takes one transaction: that of the next one takes it out."""
    with ExitStack() as guards:
        for number in range(20):
            guards.enter_context(anymate_run(f"{number}"))
        sandbox.close()
    sandbox.start()
    statements.clear()
    assert driver.settle_all(defaults.shared_client())
    assert rows() == []
    assert 20 <= statements.count("COMMIT") < 30


def test_nothing_is_kept_of_finished_guards(
    sandbox: Sandbox, file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program whose journal is locked for weeks keeps nothing of the guards that it has finished without it."""
    guard("a")
    monkeypatch.setenv("ANYMATE_DEADLINE", "4")
    defaults.forget_client()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        guard("b")
        assert all(run["finished"] for run in sandbox.runs())
        until(lambda: journal_at(folder).idle)


def test_warning_of_each_hour(sandbox: Sandbox, folder: Path, lines: Lines) -> None:
    """A journal that can't be used is told once an hour, for as long as that lasts."""
    folder.write_text("in the way")
    guard("a")
    guard("a")
    assert len(lines("anymate.journal_unavailable")) == 1
    journal_at(folder)._database.folder._warned -= 3600
    guard("a")
    guard("a")
    assert len(lines("anymate.journal_unavailable")) == 2


def test_filesystem_without_shared_memory(
    sandbox: Sandbox, folder: Path, rows: Rows, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where programs can't share memory, so that sqlite can't write ahead, there is a journal all the same."""

    def no_such_device(*_: object) -> None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    monkeypatch.setattr(mmap, "mmap", no_such_device)
    with anymate_run("a") as run:
        run.add_entries(3)
        assert not (folder / "journal.sqlite3-shm").exists()
        sandbox.close()
    assert [(row.state, row.entries) for row in rows()] == [("done", 3)]
    assert lines("anymate.journal_unavailable") == []
    sandbox.start()
    assert driver.settle_all(defaults.shared_client())
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [3]
    assert rows() == []

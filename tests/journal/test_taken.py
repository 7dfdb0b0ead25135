"""A bot that another program took for dead, though it is alive."""

from __future__ import annotations

import gc
import sqlite3
import sys
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from anymate_guard import AnymateClient, Run, Settings, anymate_run
from anymate_guard._guard import defaults, driver
from anymate_guard._journal import recorder
from anymate_guard._journal.journals import journal_at
from anymate_guard._journal.rows import Row
from anymate_guard.sandbox import Sandbox
from tests.support.proxy import Exchange, FaultProxy
from tests.support.waiting import until

Rows = Callable[[], list[Row]]

SENDING = "UPDATE rows SET owner = 4711, state = 'finishing', finish = 77"
SENT = "DELETE FROM rows"
MESS = "UPDATE rows SET entries = -1"


def another_program(file: Path, statement: str) -> None:
    """Let another program do something to the rows."""
    with closing(sqlite3.connect(file, timeout=10)) as other, other:
        other.execute(statement)


def credited(sandbox: Sandbox) -> int:
    """The entries of all runs, which all have to be finished."""
    assert all(run["finished"] for run in sandbox.runs())
    return sum(run["overwriteEntries"] or 0 for run in sandbox.runs())


@pytest.mark.parametrize("more", [3, 0])
@pytest.mark.parametrize(("statement", "by_others"), [(SENDING, 0), (SENT, 2), (MESS, 0)])
def test_row_that_was_taken(
    sandbox: Sandbox, file: Path, rows: Rows, statement: str, by_others: int, more: int
) -> None:
    """What another program took from a live bot is credited once, and so is what the bot records from then on."""
    with anymate_run("a") as run:
        run.add_entries(2)
        until(lambda: [row.entries for row in rows()] == [2])
        another_program(file, statement)
        if more:
            run.add_entries(more)
            until(lambda: more in [row.entries for row in rows()] or statement == MESS)
    with anymate_run("b"):
        pass
    assert credited(sandbox) == 2 + more - by_others
    assert rows() == []


def test_failure_in_a_row_that_was_taken(sandbox: Sandbox, file: Path, rows: Rows) -> None:
    """A failure in a row that another program took from a live bot is reported by that program, not once more."""
    with anymate_run("a") as run:
        with suppress(ValueError), anymate_run("a", report_failure=True):
            raise ValueError("inner")
        run.add_entries(2)
        until(lambda: [(row.entries, row.failure) for row in rows()] == [(2, "ValueError: inner")])
        another_program(file, SENT)
        run.add_entries(3)
        until(lambda: [row.entries for row in rows()] == [3])
    assert credited(sandbox) == 3
    assert sandbox.failures() == []


def test_bot_that_was_taken_for_dead_twice(sandbox: Sandbox, file: Path, rows: Rows) -> None:
    """A bot that is taken for dead again and again is credited each part once."""
    with anymate_run("a") as run:
        for part in (2, 3, 4):
            run.add_entries(part)
            until(lambda part=part: [row.entries for row in rows()] == [part])  # type: ignore[misc]
            another_program(file, SENT)
        run.add_entries(5)
    assert credited(sandbox) == 5
    assert rows() == []


def test_interrupted_while_recording(
    sandbox: Sandbox, file: Path, folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch, interrupt: Any
) -> None:
    """What was written just when Ctrl-C came, and was taken by another program before the bot knew, counts once."""
    monkeypatch.setattr(recorder, "_EVERY", 60)  # so that only this thread looks
    with anymate_run("a") as run:
        run.add_entries(2)
        journal_at(folder).look()
        run.add_entries(3)
        interrupt(lambda executed: executed.startswith("UPDATE"))
        with pytest.raises(KeyboardInterrupt):
            journal_at(folder).look()
        another_program(file, SENT)
        run.add_entries(4)
    assert credited(sandbox) == 4
    assert rows() == []


def test_interrupted_when_the_file_is_locked(
    sandbox: Sandbox, file: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, watched: Any
) -> None:
    """Ctrl-C that comes just when a program has locked the journal does not leave it locked for others."""

    def interrupt(executed: str) -> None:
        if executed == "BEGIN IMMEDIATE":
            watched(lambda _: None)
            raise KeyboardInterrupt

    watched(lambda _: None)
    monkeypatch.setattr(recorder, "_EVERY", 60)  # so that only this thread comes there
    with anymate_run("a"):
        watched(interrupt)
        with pytest.raises(KeyboardInterrupt):
            journal_at(folder).apply("", lambda _: None, 0.0)
        with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
    assert all(run["finished"] for run in sandbox.runs())


@pytest.mark.parametrize("elsewhere", [False, True])
def test_collected_while_giving_back(
    sandbox: Sandbox, folder: Path, tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """A guard that the garbage collector leaves just when something is given back, in any journal, is finished once."""

    def work(itself: list[object], client: AnymateClient) -> Generator[Run, None, None]:
        with anymate_run("a", client=client) as run:
            yield run
        assert itself

    def collect(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "recorded":
            sys.setprofile(None)
            gc.collect()

    with anymate_run("b") as other:
        if elsewhere:
            monkeypatch.setenv("ANYMATE_STATE_DIR", str(tmp_path / "elsewhere"))
        client = AnymateClient(Settings.from_env())
        itself: list[object] = []
        generator = work(itself, client)
        itself.append(generator)
        next(generator).add_entries(2)
        del generator, itself
        asked = len(sandbox.requests())
        sys.setprofile(collect)
        journal_at(folder).wanted.give_back(set(), set())
        assert len(sandbox.requests()) == asked
        until(lambda: [run["overwriteEntries"] for run in sandbox.runs() if run["finished"]] == [2])
        other.add_entries(1)
    assert sorted(run["overwriteEntries"] or 0 for run in sandbox.runs()) == [1, 2]
    until(lambda: rows() == [])
    client.close()


def test_collected_while_recording(sandbox: Sandbox, folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that the garbage collector leaves just when its row is written is left, with what it recorded."""
    collecting = [False]

    class Collecting(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if collecting[0] and statement.startswith("UPDATE"):
                collecting[0] = False
                gc.collect()
            return super().execute(statement, *values)

    def work(itself: list[object]) -> Generator[Run, None, None]:
        with anymate_run("a") as run:
            yield run
        assert itself

    connect = sqlite3.connect
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Collecting, **options))
        itself: list[object] = []
        generator = work(itself)
        itself.append(generator)
        run = next(generator)
        run.add_entries(2)
        journal_at(folder).look()
        run.add_entries(3)
        sandbox.close()
        del generator, itself, run
        collecting[0] = True
        journal_at(folder).look()
    until(lambda: [(row.state, row.entries) for row in rows()] == [("done", 5)])
    sandbox.start()
    with anymate_run("a"):
        pass
    assert credited(sandbox) == 5
    assert rows() == []


def test_bot_that_was_taken_for_dead_while_it_left(sandbox: Sandbox, file: Path, rows: Rows) -> None:
    """A program that holds the journal while a bot leaves may take all that the bot recorded: it is credited once."""
    with anymate_run("a") as run:
        run.add_entries(2)
        until(lambda: [row.entries for row in rows()] == [2])
        other = sqlite3.connect(file, timeout=10, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
    with closing(other):
        other.execute(SENDING)
        other.execute("COMMIT")
    until(lambda: journal_at(file.parent).idle)
    until(lambda: driver.settle_all(defaults.shared_client()) and not rows())
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [2]


def test_bot_that_was_taken_for_dead_while_it_finished(
    sandbox: Sandbox, way: FaultProxy, file: Path, lines: Callable[[str], list[str]]
) -> None:
    """A bot whose finish another program took, and that finds its run closed, leaves it and its failure to that one."""

    def take(exchange: Exchange) -> None:
        another_program(file, SENDING)
        exchange.answer(404, {"succeeded": False, "message": "The run is not open."})

    way.break_next("FinishRun", take)
    with pytest.raises(ValueError, match="bad"), anymate_run("a", report_failure=True) as run:
        run.add_entries(2)
        raise ValueError("bad")
    (line,) = lines("anymate.finish_")
    assert line.startswith("WARNING anymate.finish_uncertain")
    assert "entries=2" in line
    assert lines("anymate.run_finished") + lines("anymate.run_left") == []
    assert sandbox.failures() == []

"""What is owed is settled once, also when something comes in between."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from anymate_guard import anymate_run
from anymate_guard._guard import defaults, driver
from anymate_guard._journal.journals import journal_at
from anymate_guard._journal.rows import Row
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.owners import another
from tests.support.proxy import Exchange, FaultProxy
from tests.support.waiting import until

Rows = Callable[[], list[Row]]
Lines = Callable[[str], list[str]]
Calls = Callable[[], list[str]]


def settle() -> bool:
    """Send what is owed, as the command line does."""
    return driver.settle_all(defaults.shared_client())


def owe(sandbox: Sandbox, *keys: str) -> None:
    """Let a finish be owed for each of these processes, with a run."""
    with ExitStack() as stack:
        for number, key in enumerate(keys, 1):
            stack.enter_context(anymate_run(key)).add_entries(number)
        sandbox.fail_next("FinishRun", status=403, times=len(keys))


def change(file: Path, statement: str) -> None:
    """Change the journal, as another program does."""
    with closing(sqlite3.connect(file, timeout=10)) as other, other:
        other.execute(statement)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another program holds the journal."""
    with closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def credited(sandbox: Sandbox) -> dict[str, int | None]:
    """The entries of the runs, which all have to be finished, by their process."""
    assert all(run["finished"] for run in sandbox.runs())
    return {run["processKey"]: run["overwriteEntries"] for run in sandbox.runs()}


def test_locked(sandbox: Sandbox, file: Path, rows: Rows) -> None:
    """While another program holds the journal nothing is sent of what is owed, and that is told."""
    owe(sandbox, "a")
    with locked(file):
        assert not settle()
    assert settle()
    assert credited(sandbox) == {"a": 1}
    assert rows() == []


@pytest.mark.parametrize("status", [200, 403, 400])
def test_locked_while_sending(sandbox: Sandbox, way: FaultProxy, file: Path, rows: Rows, status: int) -> None:
    """Where the journal is locked while an answer comes, it is acted upon later, and nothing else is sent till then."""
    owe(sandbox, "a", "b")
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:

        def lock(exchange: Exchange) -> None:
            other.execute("BEGIN IMMEDIATE")
            exchange.answer(*(exchange.forward() if status == 200 else (status, {"message": "No."})))

        way.break_next("FinishRun", lock)
        way.calls.clear()
        assert not settle()
        assert way.calls == ["FinishRun"]
        other.execute("ROLLBACK")
    until(lambda: settle() and not rows())
    assert credited(sandbox) == {"a": 1, "b": 2}


def test_taken_while_others_are_sent(sandbox: Sandbox, way: FaultProxy, file: Path, rows: Rows) -> None:
    """What another program took from a claim, as it believed this one dead, is not sent by that claim."""
    owe(sandbox, "a", "b")
    with another(file) as owner:

        def take(exchange: Exchange) -> None:
            change(file, f"UPDATE rows SET owner = {owner}, finish = 77 WHERE process_key = 'b'")
            exchange.answer(*exchange.forward())

        way.break_next("FinishRun", take)
        way.calls.clear()
        settle()
        assert way.calls == ["FinishRun"]
    until(lambda: settle() and not rows())
    assert credited(sandbox) == {"a": 1, "b": 2}
    assert rows() == []


def test_taken_while_the_journal_is_locked(
    sandbox: Sandbox, way: FaultProxy, file: Path, folder: Path, rows: Rows
) -> None:
    """What another program took while it held the journal, and a refused claim could not be given back, stays taken."""
    owe(sandbox, "a")
    with another(file) as owner, closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:

        def lock(exchange: Exchange) -> None:
            other.execute("BEGIN IMMEDIATE")
            exchange.answer(403, {"message": "No."})

        way.break_next("FinishRun", lock)
        assert not settle()
        other.execute(f"UPDATE rows SET owner = {owner}, finish = 77")
        other.execute("COMMIT")
        journal_at(folder).look()  # as at the end of the command: no guard is open, and the recorder may have ended
        assert [row.owner for row in rows()] == [owner]
    until(lambda: settle() and not rows())
    assert credited(sandbox) == {"a": 1}


@pytest.mark.parametrize("statement", ["UPDATE rows SET owner = 4711, finish = 77", "DELETE FROM rows"])
def test_taken_while_it_is_started(sandbox: Sandbox, way: FaultProxy, file: Path, rows: Rows, statement: str) -> None:
    """What another program took while its run was being started for it is left to that one."""
    sandbox.fail_next("StartRun", status=503, times=99)
    with anymate_run("a") as run:
        run.add_entries(1)
    sandbox._world.faults.reset()

    def take(exchange: Exchange) -> None:
        change(file, statement)
        exchange.answer(*exchange.forward())

    way.break_next("StartRun", take)
    until(lambda: settle() and not rows())
    assert sum(run["overwriteEntries"] or 0 for run in sandbox.runs()) == (0 if "DELETE" in statement else 1)
    assert rows() == []


def test_locked_while_a_run_turns_out_to_be_closed(
    sandbox: Sandbox, way: FaultProxy, file: Path, rows: Rows, lines: Lines
) -> None:
    """Where the journal is locked when a run that was never finished is found closed, what is owed gets one later."""
    owe(sandbox, "a")
    change(file, "UPDATE rows SET finish = 0")
    defaults.shared_client().finish_run(sandbox.runs()[0]["runId"])
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:

        def lock(exchange: Exchange) -> None:
            other.execute("BEGIN IMMEDIATE")
            exchange.answer(*exchange.forward())

        way.break_next("FinishRun", lock)
        assert not settle()
        assert lines("anymate.finish_delivered") == []
        other.execute("ROLLBACK")
    until(lambda: settle() and not rows())
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [None, 1]


def test_rival_at_the_process(sandbox: Sandbox, file: Path, rows: Rows) -> None:
    """What is owed for a process whose run another program is finishing is left alone until that is done."""
    owe(sandbox, "a", "b")
    with another(file) as owner:
        change(file, f"UPDATE rows SET owner = {owner}, state = 'finishing', process_key = 'a' WHERE process_key = 'b'")
        settle()
        assert [row.process_key for row in rows()] == ["a", "a"]
    until(lambda: settle() and not rows())
    assert credited(sandbox) == {"a": 1, "b": 2}


def test_before_the_machine_was_started(sandbox: Sandbox, file: Path, rows: Rows, lines: Lines) -> None:
    """What is owed since before a restart, of a run that is closed, may have been finished then, which is told."""
    owe(sandbox, "a")
    change(file, "UPDATE rows SET recorded = 1.0, finish = 0")
    defaults.shared_client().finish_run(sandbox.runs()[0]["runId"])
    settle()
    (line,) = lines("anymate.finish_uncertain")
    assert "entries=1" in line
    assert lines("anymate.finish_delivered") == []
    assert rows() == []
    assert credited(sandbox) == {"a": None}


def test_gateway_after_the_machine_was_started(sandbox: Sandbox, way: FaultProxy, file: Path, rows: Rows) -> None:
    """What is owed since before a restart is kept, although a gateway answers for Anymate."""
    owe(sandbox, "a")
    change(file, "UPDATE rows SET recorded = 1.0, finish = 0")
    way.break_next("FinishRun", faults.says(404, {"error": "no such route"}))
    assert not settle()
    assert [(row.state, row.entries) for row in rows()] == [("refused", 1)]


def test_outage_between_two_finishes_of_a_run(sandbox: Sandbox, file: Path, rows: Rows, calls: Calls) -> None:
    """Where a finish that may have been sent must go first, and can't, what follows in its run is owed, too."""
    with anymate_run("a") as run:
        run.add_entries(2)
        until(lambda: [row.entries for row in rows()] == [2])
        change(file, "UPDATE rows SET owner = 4711, state = 'finishing', finish = 77")
        run.add_entries(3)
        until(lambda: 3 in [row.entries for row in rows()])
        sandbox.fail_next("FinishRun", status=403)
    assert calls().count("FinishRun") == 1
    assert sorted(row.entries or 0 for row in rows()) == [2, 3]
    until(settle)
    assert sum(run["overwriteEntries"] or 0 for run in sandbox.runs()) == 5
    assert rows() == []


def test_locked_while_a_late_run_is_started(sandbox: Sandbox, way: FaultProxy, file: Path, rows: Rows) -> None:
    """Where the journal is locked when a run is started late, while its guard is left, its finish is stored."""
    way.break_next("StartRun", faults.status(503), times=99)
    with ExitStack() as stack:
        run = stack.enter_context(anymate_run("a"))
        run.add_entries(1)
        other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        way.heal()

        def lock(exchange: Exchange) -> None:
            other.execute("BEGIN IMMEDIATE")
            exchange.answer(*exchange.forward())

        way.break_next("StartRun", lock)
    other.close()
    until(lambda: settle() and not rows())
    assert credited(sandbox) == {"a": 1}


def test_late_start_without_a_journal(sandbox: Sandbox, folder: Path) -> None:
    """Without a journal, too, a run that could not be started is started and finished when its guard is left."""
    folder.write_text("in the way")
    sandbox.fail_next("StartRun", status=503, times=99)
    with anymate_run("a") as run:
        run.add_entries(1)
        sandbox._world.faults.reset()
    assert credited(sandbox) == {"a": 1}

"""A journal that can't be used never stops a bot."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from anymate_guard import anymate_run
from anymate_guard._deadline import Deadline
from anymate_guard._guard import defaults
from anymate_guard._journal.database import Database
from anymate_guard._journal.journal import Journal, close_all
from anymate_guard._journal.rules import Claims, Row, total
from anymate_guard._lifecycle import delivery
from anymate_guard._lifecycle.settling import Line, deliver_all
from anymate_guard.sandbox import Sandbox

from .conftest import until

Rows = Callable[[], list[Row]]
Lines = Callable[[str], list[str]]


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another program holds the journal."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def guard(key: str = "a", entries: int = 1) -> None:
    """A whole guard."""
    with anymate_run(key) as run:
        run.add_entries(entries)


def credited(sandbox: Sandbox) -> list[int | None]:
    """Entries of every run, which all have to be finished."""
    assert all(run["finished"] for run in sandbox.runs())
    return [run["overwriteEntries"] for run in sandbox.runs()]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_permissions(sandbox: Sandbox, folder: Path) -> None:
    """Only their owner can read the files of the journal, whatever the umask, and their folder."""
    before = os.umask(0)
    try:
        with anymate_run("a"):
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert modes == dict.fromkeys(
        ("journal.sqlite3", "journal.sqlite3-wal", "journal.sqlite3-shm", "owners.lock"), 0o600
    )


def test_no_secrets(sandbox: Sandbox, folder: Path) -> None:
    """Neither password, client secret nor token is in any byte of the journal."""
    with anymate_run("a"):
        sandbox.close()
    held = b"".join(path.read_bytes() for path in folder.iterdir())
    client = defaults.shared_client()
    token = client._tokens.token
    assert token is not None
    assert client.settings.username.encode() in held
    for secret in (client.settings.password, client.settings.client_secret, token._value):
        assert secret.encode() not in held


def test_corrupt(sandbox: Sandbox, file: Path, rows: Rows, lines: Lines) -> None:
    """A corrupt journal is moved aside, not deleted, with one warning that tells where; then there is a new one."""
    file.parent.mkdir()
    file.write_bytes(b"no database" * 1000)
    with anymate_run("a") as run:
        run.add_entries(3)
        sandbox.close()
    (line,) = lines("anymate.journal_unavailable")
    (aside,) = file.parent.glob("journal.sqlite3.corrupt-*")
    assert line.startswith("WARNING")
    assert str(file) in line
    assert str(aside) in line
    assert aside.read_bytes() == b"no database" * 1000
    assert [row.entries for row in rows()] == [3]


@pytest.mark.parametrize(
    "harm",
    [
        "UPDATE rows SET state = 'asleep'",
        "UPDATE rows SET entries = -1",
        "UPDATE rows SET owner = 'me'",
        "UPDATE rows SET process_key = x'ff'",
        "UPDATE rows SET username = CAST(x'ff' AS TEXT)",
        "ALTER TABLE rows RENAME COLUMN zeros TO ones",
        "DROP TABLE rows",
        "PRAGMA user_version = 0",
    ],
)
def test_damaged_rows(sandbox: Sandbox, file: Path, rows: Rows, lines: Lines, harm: str) -> None:
    """A journal whose content makes no sense is moved aside like one that is no database."""
    with anymate_run("a") as run:
        close_all()
        with closing(sqlite3.connect(file)) as other:
            other.execute(harm)
            other.commit()
        for _ in range(2):
            rows()
        run.add_entries(3)
    assert credited(sandbox) == [3]
    assert rows() == []
    assert len(list(file.parent.glob("*.corrupt-*[0-9]"))) == len(lines("anymate.journal_unavailable")) == 1


def test_newer_schema(sandbox: Sandbox, file: Path, lines: Lines) -> None:
    """A journal of a newer version is left alone, with one warning that says so."""
    guard()
    close_all()
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA user_version = 99")
        other.commit()
    held = file.read_bytes()
    guard()
    guard()
    (line,) = lines("anymate.journal_unavailable")
    assert "upgrade" in line
    assert file.read_bytes() == held
    assert credited(sandbox) == [1, 1, 1]


def test_locked(sandbox: Sandbox, file: Path, rows: Rows, lines: Lines) -> None:
    """A journal that another program has locked costs no deadline: one warning, and FinishRun is sent all the same."""
    guard()
    with locked(file):
        begun = time.monotonic()
        guard(entries=2)
        guard(entries=3)
        assert time.monotonic() - begun < 2 * (2 + 2 + 1)
        assert credited(sandbox) == [1, 2, 3]
    (line,) = lines("anymate.journal_unavailable")
    assert "close the program that holds it" in line
    guard(entries=4)
    assert credited(sandbox) == [1, 2, 3, 4]
    assert rows() == []


def test_locked_in_the_middle(sandbox: Sandbox, file: Path, rows: Rows) -> None:
    """A finish that was delivered while the journal was locked is not delivered again."""
    sandbox.fail_next("FinishRun", delay=0.3)
    work = threading.Thread(target=guard, args=("a", 3))
    work.start()
    until(lambda: [row.state for row in rows()] == ["finishing"])
    with locked(file):
        work.join()
        assert credited(sandbox) == [3]
    until(lambda: rows() == [])
    guard()
    assert credited(sandbox) == [3, 1]


def test_lost(sandbox: Sandbox, file: Path, lines: Lines) -> None:
    """A finish neither delivered nor stored is an error line with its KPIs; kept in memory, it is sent later."""
    guard()
    with locked(file), anymate_run("a") as run:
        run.add_entries(7)
        sandbox.close()
        run.add_seconds_saved(1)
    (line,) = lines("anymate.finish_lost")
    assert line.startswith("ERROR")
    assert "entries=7" in line
    assert "seconds_saved=1.0" in line
    sandbox.start()
    guard()
    assert sorted(entries or 0 for entries in credited(sandbox)) == [1, 1, 7]


def test_folder_that_can_not_be_made(sandbox: Sandbox, folder: Path, lines: Lines) -> None:
    """A state directory that can't be made: one warning with the path and what to do, and the run is finished."""
    folder.write_text("in the way")
    guard(entries=5)
    guard(entries=6)
    (line,) = lines("anymate.journal_unavailable")
    assert str(folder) in line
    assert "ANYMATE_STATE_DIR" in line
    assert credited(sandbox) == [5, 6]
    folder.unlink()
    guard(entries=7)
    assert (folder / "journal.sqlite3").exists()


def test_threads_without_a_journal(sandbox: Sandbox, folder: Path, calls: Callable[[], list[str]]) -> None:
    """Guards of one program share a run, and wait for one that is being finished, also where there is no journal."""
    folder.write_text("in the way")
    sandbox.fail_next("StartRun", delay=0.3)
    sandbox.fail_next("FinishRun", delay=0.3)
    inside = threading.Barrier(2)

    def work() -> None:
        with anymate_run("a") as run:
            inside.wait(10)
            run.add_entries(1)

    together = [threading.Thread(target=work) for _ in range(2)]
    for thread in together:
        thread.start()
    until(lambda: "FinishRun" in calls())
    guard(entries=5)
    for thread in together:
        thread.join()
    assert credited(sandbox) == [2, 5]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_full_disk(sandbox: Sandbox, folder: Path) -> None:
    """A full disk costs one warning; the bot's result is its own, and its run is finished."""
    text = """
import resource, signal, logging
logging.basicConfig()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from anymate_guard import anymate_run
with anymate_run("a"):
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
for number in range(40):
    with anymate_run("a") as run:
        run.add_entries(3)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr.count("anymate.journal_unavailable") == 1
    assert "make room" in done.stderr
    assert credited(sandbox) == [None] + [3] * 40


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be deleted there")
def test_deleted(sandbox: Sandbox, folder: Path, rows: Rows, lines: Lines) -> None:
    """A journal deleted under a running bot is made anew; the bot is alive in it, and its row is back in a second."""
    with anymate_run("a") as run:
        for path in folder.iterdir():
            path.unlink()
        run.add_entries(3)
        until(lambda: [row.entries for row in rows()] == [3])
        text = "from anymate_guard import anymate_run\nwith anymate_run('a') as run: run.add_entries(1)"
        subprocess.run([sys.executable, "-c", text], check=True, timeout=30)
        assert [run["finished"] for run in sandbox.runs()] == [False]
    assert credited(sandbox) == [4]
    assert lines("anymate.journal_unavailable") == []


def test_number_that_does_not_fit(sandbox: Sandbox, lines: Lines) -> None:
    """A run id too large for the journal is one warning, and the run is finished."""
    sandbox.fail_next("FinishRun", answer={"succeeded": True, "message": None})
    with anymate_run("a", run_id=2**70) as run:
        run.add_entries(1)
    assert len(lines("anymate.journal_unavailable")) == 1


def test_other_thread_is_not_held_up(sandbox: Sandbox, file: Path) -> None:
    """Threads that meet a locked journal at the same time wait for it together, not one after the other."""
    guard()
    with locked(file):
        begun = time.monotonic()
        threads = [threading.Thread(target=guard, args=(f"k{number}",)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - begun < 2 + 2 + 1.5
    assert len(credited(sandbox)) == 13


def test_several_programs_meet_a_corrupt_journal(
    sandbox: Sandbox, file: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that meet a corrupt journal at the same time move it aside once, and share the new one."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "30")
    monkeypatch.setenv("ANYMATE_TIMEOUT", "10")
    file.parent.mkdir()
    file.write_bytes(b"no database" * 1000)
    text = """
import sys
from anymate_guard import anymate_run
with anymate_run("a") as run:
    run.add_entries(1)
    print("inside", flush=True)
    sys.stdin.readline()
"""
    pipe = subprocess.PIPE
    bots = [subprocess.Popen([sys.executable, "-c", text], stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    for bot in bots:
        assert bot.stdout is not None
        assert bot.stdout.readline() == "inside\n"
    until(lambda: [row.entries for row in rows()] == [1] * 4)
    for bot in bots:
        bot.communicate()
    assert len(list(file.parent.glob("*.corrupt-*"))) == 1
    assert credited(sandbox) == [4]


def test_one_journal_for_a_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a folder is spelled, a process has one journal in it."""
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    journals = {Journal.at(Path(name)) for name in ("state", "link", "./state/../link", str(folder))}
    assert len(journals) == 1


def test_moved_aside_by_another(sandbox: Sandbox, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that finds a journal corrupt, which another has moved aside already, leaves the new one alone."""

    def meets_a_corrupt_one(database: Database, connection: sqlite3.Connection) -> None:
        monkeypatch.undo()
        file.rename(file.with_name("moved"))
        file.write_bytes(b"")
        raise sqlite3.DatabaseError("file is not a database")

    journal = Journal.at(file.parent)
    monkeypatch.setattr(Database, "_prepare", meets_a_corrupt_one)
    assert journal.rows(Deadline.after(10)) == []
    assert file.exists()
    assert list(file.parent.glob("*.corrupt-*")) == []


class Watched(sqlite3.Connection):
    """A connection that calls something after it has executed a statement."""

    after: Callable[[str], object]

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


@pytest.mark.parametrize(("statement", "behind"), [("BEGIN IMMEDIATE", True), ("COMMIT", False)])
def test_interrupted_while_catching_up(
    sandbox: Sandbox, file: Path, watched: Any, statement: str, behind: bool
) -> None:
    """What waits to be written is written once, also when Ctrl-C comes in the midst of that, or just after it."""
    watched(lambda _: None)
    guard()
    journal, row = Journal.at(file.parent), Row("http://address", "mate", "a", state="done")
    with locked(file):
        journal.give_back([total([row])], Claims(), Deadline.after(0))
    assert journal.behind

    def interrupt(executed: str) -> None:
        if executed == statement:
            watched(lambda _: None)
            raise KeyboardInterrupt

    watched(interrupt)
    with pytest.raises(KeyboardInterrupt):
        journal.reachable("http://address", Deadline.after(10))
    assert journal.behind is behind
    journal.reachable("http://address", Deadline.after(10))
    assert [row.id for row, _ in journal.rows(Deadline.after(10))] == [row.id]


def test_operation_in_the_midst_of_another(sandbox: Sandbox, folder: Path, watched: Any) -> None:
    """What the garbage collector brings in the midst of a change, a guard's end say, becomes part of it."""
    watched(lambda _: None)
    journal, soon = Journal.at(folder), Deadline.after(10)
    rows = [Row("http://address", "mate", key, state="done") for key in "abc"]
    journal.give_back([total([rows[0]])], Claims(), soon)

    def end(executed: str) -> None:
        if executed == "BEGIN IMMEDIATE":
            watched(lambda _: None)
            journal.give_back([total([rows[1]])], Claims(), soon)

    watched(end)
    claimed = journal.claim(rows[0].account, Claims(), soon)
    assert [owed.process_key for owed in claimed.owed] == ["a", "b"]
    assert len(journal.rows(soon)) == 2


def test_what_is_left_is_not_recorded(sandbox: Sandbox, folder: Path, rows: Rows) -> None:
    """Recording that comes just after its guard was left does not bring the row back."""
    row = Row("http://address", "mate", "a", state="done")
    assert Journal.at(folder).record([(row, 1, None)], Deadline.after(10))
    assert rows() == []


def test_time_is_over_before_settling(sandbox: Sandbox, folder: Path, rows: Rows) -> None:
    """What was claimed, with no time left to try it, is given back as it was."""
    with anymate_run("a"), anymate_run("b"):
        sandbox.fail_next("FinishRun", status=403, times=2)
    client, journal, claims = defaults.shared_client(), Journal.at(folder), Claims()
    claimed = journal.claim(rows()[0].account, claims, Deadline.after(10))
    assert [row.state for row in rows()] == ["finishing"] * 2
    line = Line(client, Deadline.after(10))
    assert deliver_all(line, journal, claimed.owed, claims, Deadline.after(-1)) == "stopped"
    assert [(row.state, row.sent) for row in rows()] == [("done", False)] * 2


def test_folder_of_the_user(sandbox: Sandbox, tmp_path: Path) -> None:
    """Without ANYMATE_STATE_DIR the journal lives in the user's state directory."""
    folders = dict.fromkeys(("HOME", "XDG_STATE_HOME", "LOCALAPPDATA"), str(tmp_path))
    environ = {name: value for name, value in os.environ.items() if name != "ANYMATE_STATE_DIR"}
    text = "from anymate_guard import anymate_run\nwith anymate_run('a'): pass"
    subprocess.run([sys.executable, "-c", text], check=True, timeout=30, env={**environ, **folders})
    assert len(list(tmp_path.rglob("journal.sqlite3"))) == 1


def test_settling_is_stopped(sandbox: Sandbox, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while what is owed is being settled gives everything back that was claimed."""
    with anymate_run("a"), anymate_run("b"), anymate_run("c"):
        sandbox.close()
    sandbox.start()
    client = defaults.shared_client()
    sent = client.finish_run

    def interrupted(run_id: int, *args: object, **options: object) -> None:
        sent(run_id, *args, **options)  # type: ignore[arg-type]
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "finish_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        delivery.settle(client)
    assert [(row.state, row.sent) for row in rows()] == [("done", True), ("done", False), ("done", False)]
    deadline = Deadline.after(10)
    assert delivery.settle(client)
    assert deadline.left() > 0
    assert credited(sandbox) == [None, None, None]

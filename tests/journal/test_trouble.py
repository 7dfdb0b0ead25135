"""A journal that can't be used never stops a bot."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from anymate_guard import Kpis, Settings, anymate_run
from anymate_guard._guard import defaults, driver
from anymate_guard._journal import owed, recorder
from anymate_guard._journal.contents import history_of, rows_of
from anymate_guard._journal.journals import close_all, journal_at
from anymate_guard._journal.rows import Row, Unavailable, new_id
from anymate_guard._journal.storage.database import Database
from anymate_guard._journal.storage.folder import Folder
from anymate_guard._journal.wanted import Wanted
from anymate_guard._lifecycle.settling import settle
from anymate_guard.sandbox import Sandbox
from tests.support.clock import Clock
from tests.support.faults import held, reset_before
from tests.support.owners import another
from tests.support.proxy import Exchange, FaultProxy
from tests.support.waiting import LONGEST, in_time, until

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


def test_secrets_in_a_failure(sandbox: Sandbox, folder: Path) -> None:
    """The text of a failure, which may quote a secret or be long, is stored as it is sent: masked, and cut."""
    password = sandbox.environ["ANYMATE_PASSWORD"]
    with pytest.raises(ValueError, match="can't log in"), anymate_run("a", report_failure=True):
        sandbox.close()
        raise ValueError(f"can't log in with {password}" + 10_000 * "!")
    kept = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"can't log in with ***!!!" in kept
    assert password.encode() not in kept
    assert 5000 * b"!" not in kept


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
    assert json.dumps(str(aside)).strip('"') in line
    assert aside.read_bytes() == b"no database" * 1000
    assert [row.entries for row in rows()] == [3]


def test_log_handler_that_waits_for_another_guard(sandbox: Sandbox, file: Path) -> None:
    """While people are told of trouble, other threads can use the journal: a log handler may wait for one of them."""
    over: list[bool] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002  # whatever it says
            thread = threading.Thread(target=guard, args=("b",), daemon=True)
            thread.start()
            thread.join(LONGEST)
            over.append(not thread.is_alive())

    handler, logger = Handler(logging.WARNING), logging.getLogger("anymate_guard")
    logger.addHandler(handler)
    try:
        file.parent.mkdir()
        file.write_bytes(b"nothing that sqlite would know" * 100)
        guard("a")
        until(lambda: over)  # it may be the recorder that meets it
    finally:
        logger.removeHandler(handler)
    assert over == [True]
    assert credited(sandbox) == [1, 1]


def test_corrupt_twice(sandbox: Sandbox, file: Path, lines: Lines) -> None:
    """Each corrupt journal that is moved aside has a name of its own, however soon it follows, and its warning."""
    file.parent.mkdir()
    for content in (b"no database" * 1000, b"nor this one" * 1000):
        file.write_bytes(content)
        guard()
        close_all()
    aside = {path.read_bytes() for path in file.parent.glob("journal.sqlite3.corrupt-*")}
    assert aside == {b"no database" * 1000, b"nor this one" * 1000}
    assert len(lines("anymate.journal_unavailable")) == 2


def harm(file: Path, statement: str) -> None:
    """Change the journal as no version of the package would; this program opens it anew after that."""
    with closing(sqlite3.connect(file, timeout=10)) as other:
        other.execute(statement)
        other.commit()
    close_all()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rows SET state = 'asleep'",
        "UPDATE rows SET outcome = NULL",
        "UPDATE rows SET entries = -1",
        "UPDATE rows SET entries = 'many'",
        "UPDATE rows SET owner = 'me'",
        "UPDATE rows SET process_key = x'ff'",
        "UPDATE rows SET process_key = '..', run_id = NULL",
        "UPDATE rows SET began = 'long ago'",
        "UPDATE rows SET reason = 5",
        "UPDATE outages SET at = 'now'",
    ],
)
def test_row_that_makes_no_sense(sandbox: Sandbox, file: Path, rows: Rows, lines: Lines, statement: str) -> None:
    """A row that makes no sense is set aside alone: it stops nobody, and what else is owed is delivered."""
    with anymate_run("flawed"):
        sandbox.close()
    harm(file, statement)
    with anymate_run("owed"):
        pass
    sandbox.start()
    guard(entries=3)
    assert {run["processKey"]: run["overwriteEntries"] for run in sandbox.runs() if run["finished"]}["a"] == 3
    assert "owed" in {run["processKey"] for run in sandbox.runs() if run["finished"]}
    assert rows() == []
    assert list(file.parent.glob("*.corrupt-*")) == []
    assert lines("anymate.journal_unavailable") == []


def test_text_that_no_file_can_hold(sandbox: Sandbox, rows: Rows, lines: Lines) -> None:
    """Half a surrogate in a failure's text holds up neither its finish, nor its report, nor other guards' rows."""
    with anymate_run("b"):
        with pytest.raises(ValueError, match="invoice"), anymate_run("a", report_failure=True) as run:
            run.add_entries(3)
            sandbox.close()
            raise ValueError("no invoice in \udcff.pdf")
        assert {(row.process_key, row.state, row.entries) for row in rows()} == {("a", "done", 3), ("b", "open", None)}
        sandbox.start()
    assert driver.settle_all(defaults.shared_client())
    assert [failure["message"] for failure in sandbox.failures()] == [r"ValueError: no invoice in \udcff.pdf"]
    assert [run["overwriteEntries"] for run in sandbox.runs() if run["processKey"] == "a"] == [3]
    assert rows() == []
    assert lines("anymate.journal_unavailable") == []


@pytest.mark.parametrize("noticed", [False, True])
@pytest.mark.parametrize("statement", ["UPDATE rows SET owner = 'me'", "UPDATE rows SET entries = -1"])
def test_own_row_that_makes_no_sense(
    sandbox: Sandbox, file: Path, rows: Rows, statement: str, *, noticed: bool
) -> None:
    """A bot whose own row is made a mess of in its body is credited what it recorded, once."""
    with anymate_run("a") as run:
        run.add_entries(2)
        until(lambda: [row.entries for row in rows()] == [2])
        harm(file, statement)
        run.add_entries(3)
        if noticed:  # by the recorder, before the bot leaves
            until(lambda: [row.entries for row in rows()] == [5])
    assert credited(sandbox) == [5]
    assert rows() == []


@pytest.mark.parametrize(
    "statement",
    [
        (
            "INSERT INTO rows (address, process_key, username, state) "
            "SELECT address, process_key, CAST(x'ff' AS TEXT), 'open' FROM rows"
        ),
        "ALTER TABLE rows RENAME COLUMN zeros TO ones",
        "DROP TABLE rows",
        "PRAGMA user_version = 0",
    ],
)
def test_damaged(sandbox: Sandbox, file: Path, rows: Rows, lines: Lines, statement: str) -> None:
    """A journal whose tables are not what they were is moved aside like one that is no database."""
    with anymate_run("a") as run:
        harm(file, statement)
        for _ in range(2):
            rows()
        run.add_entries(3)
    assert credited(sandbox) == [3]
    assert rows() == []
    assert len(list(file.parent.glob("*.corrupt-*[0-9]"))) == len(lines("anymate.journal_unavailable")) == 1


def lose_log(file: Path) -> None:
    """Delete the log, and what programs share of it."""
    for suffix in ("-wal", "-shm"):
        file.with_name(f"{file.name}{suffix}").unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be deleted there")
def test_log_that_is_lost_while_it_is_put_into_the_file(sandbox: Sandbox, file: Path, rows: Rows) -> None:
    """A journal whose log is deleted is opened anew when no thread of this program has the old one in use any more."""
    journal, taken, go_on = journal_at(file.parent), threading.Event(), threading.Event()

    def hold() -> None:
        with journal._database.checkpointing:
            taken.set()
            assert go_on.wait(LONGEST)

    with anymate_run("a") as run:
        run.add_entries(3)
        thread = threading.Thread(target=hold)
        thread.start()
        assert taken.wait(LONGEST)
        lose_log(file)
        with pytest.raises(Unavailable, match="locked"):
            journal.read("", lambda _: None)
        go_on.set()
        thread.join()
        until(lambda: [row.entries for row in rows()] == [3])


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be deleted there")
def test_log_of_another_program(sandbox: Sandbox, file: Path) -> None:
    """A long log that others have begun in the place of a deleted one is not put into the file by the old one."""
    source = f"""
import os, sqlite3
other = sqlite3.connect({os.fspath(file)!r}, isolation_level=None)
other.execute("INSERT INTO history (process_key) VALUES (zeroblob(6 << 20))")
os._exit(0)
"""
    guard()
    close_all()
    database = Database(Folder(file.parent))
    database.connect()
    database.write(lambda tables: tables.put(Row("address", "user", "a")), [])
    lose_log(file)
    subprocess.run([sys.executable, "-c", source], check=True, timeout=LONGEST)
    assert database.sync()
    database.disconnect()
    with closing(sqlite3.connect(file)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert other.execute("SELECT max(length(process_key)) FROM history").fetchall() == [(6 << 20,)]


@pytest.mark.parametrize("size", [6 << 20, 20 << 20])
def test_long_log(file: Path, size: int) -> None:
    """The log in which writers note their changes first is shortened where it has grown long, while all go on."""
    log = file.with_name(f"{file.name}-wal")
    with anymate_run("a") as run:
        until(log.exists)
        with closing(sqlite3.connect(file, timeout=10)) as other, other:
            other.execute("PRAGMA wal_autocheckpoint = 0")  # or it would do so itself
            other.execute("INSERT INTO history (process_key) VALUES (zeroblob(?))", [size])

        def is_short() -> bool:
            run.add_entries()
            return log.stat().st_size < 1 << 20

        until(is_short)


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
    """A journal that another program has locked costs one warning, and FinishRun is sent all the same."""
    guard()
    with locked(file):
        guard(entries=2)
        guard(entries=3)
        assert credited(sandbox) == [1, 2, 3]
    (line,) = lines("anymate.journal_unavailable")
    assert "close the program that holds it" in line
    guard(entries=4)
    assert credited(sandbox) == [1, 2, 3, 4]
    assert rows() == []


def test_numbers_that_the_bot_draws(sandbox: Sandbox, file: Path, clock: Clock) -> None:
    """A bot that has seeded its random numbers draws the same ones, however often its guard had to try again."""
    guard()
    sandbox.fail_next("StartRun", times=2)
    random.seed(42)
    drawn = random.getstate()
    with locked(file):
        guard()
    assert len(clock.sleeps) > 2
    assert random.getstate() == drawn


def test_locked_for_a_moment(sandbox: Sandbox, file: Path, rows: Rows, lines: Lines) -> None:
    """Others that are at the journal while the recorder looks are no trouble, and nothing is said of it."""

    def wait_for_a_look() -> None:
        due = recorder._due
        until(lambda: recorder._due not in {None, due})

    with anymate_run("a") as run:
        with locked(file):
            run.add_entries(3)
            wait_for_a_look()
            wait_for_a_look()  # the one before is over
        until(lambda: [row.entries for row in rows()] == [3])
    assert lines("anymate.journal_unavailable") == []


def test_look_waits_for_a_locked_journal(
    sandbox: Sandbox, file: Path, folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at a journal that others are just writing to waits for them, so that none is missed on a busy machine."""
    with (
        anymate_run("a") as run,
        closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other,
    ):
        other.execute("BEGIN EXCLUSIVE")
        run.add_entries(3)
        monkeypatch.setattr(time, "sleep", lambda _: other.in_transaction and other.execute("ROLLBACK"))
        journal_at(folder).look()
        assert [row.entries for row in rows()] == [3]


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


@pytest.mark.parametrize(("more", "event"), [(4, "finish_lost"), (0, "finish_stored")])
def test_locked_before_the_end(sandbox: Sandbox, file: Path, rows: Rows, lines: Lines, more: int, event: str) -> None:
    """Where the journal is locked when a guard leaves, its finish counts as stored if the disk has all of it."""
    late = anymate_run("a")
    run = late.__enter__()
    run.add_entries(3)
    until(lambda: [row.entries for row in rows()] == [3])
    with locked(file):
        run.add_entries(more)
        late.__exit__(None, None, None)
        (line,) = lines("anymate.finish_")
        assert f"anymate.{event}" in line
        assert f"entries={3 + more}" in line
    assert until(lambda: driver.settle_all(defaults.shared_client()) and not rows())
    assert credited(sandbox) == [3 + more]


def test_written_while_a_late_run_is_started(
    sandbox: Sandbox, way: FaultProxy, file: Path, rows: Rows, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finish that a look puts into the journal while its run is started is left there, as nothing claims it."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "5")
    guard("b")
    arrived, go_on, entered, leave = (threading.Event() for _ in range(4))

    def late() -> None:
        with anymate_run("a") as run:
            run.add_entries(3)
            entered.set()
            assert leave.wait(LONGEST)

    work = threading.Thread(target=late)
    with locked(file):
        way.break_next("StartRun", reset_before, times=1000)
        work.start()
        assert entered.wait(LONGEST)
        way.heal()
        way.break_next("StartRun", held(arrived, go_on))
        leave.set()
        assert arrived.wait(LONGEST)
    until(lambda: [row.entries for row in rows()] == [3])
    go_on.set()
    work.join()
    (line,) = lines("anymate.finish_stored")
    assert "entries=3" in line
    assert driver.settle_all(defaults.shared_client())
    assert credited(sandbox) == [1, 3]


def test_answer_that_is_lost_while_the_journal_is_locked(sandbox: Sandbox, file: Path, rows: Rows) -> None:
    """A finish that was sent without a journal, and got no answer, is not credited again once there is one."""
    guard("b")
    with locked(file), anymate_run("a") as run:
        run.add_entries(7)
        sandbox.fail_next("FinishRun", hang=True, after=True, times=9)
    sandbox._world.alarm.ring()
    sandbox._world.faults.reset()
    assert driver.settle_all(defaults.shared_client())
    assert credited(sandbox) == [1, 7]
    assert rows() == []


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


def test_two_bots_without_a_journal(sandbox: Sandbox, folder: Path, lines: Lines) -> None:
    """Without a journal, too, what a bot has recorded in a run that another one ended gets a run of its own."""
    folder.write_text("in the way")
    with anymate_run("a") as run:
        run.add_entries(5)
        defaults.shared_client().finish_run(sandbox.runs()[0]["runId"], Kpis(10))
    assert credited(sandbox) == [10, 5]
    assert run.run_id == sandbox.runs()[1]["runId"]
    assert lines("anymate.finish_lost") == []


def test_run_of_its_own_once_without_a_journal(
    sandbox: Sandbox, folder: Path, calls: Callable[[], list[str]], lines: Lines
) -> None:
    """Without a journal, what finds its run closed gets another one only once, and an adopted run none."""
    folder.write_text("in the way")
    sandbox.fail_next("FinishRun", status=404, times=3)
    guard("a", 5)
    with anymate_run("b", run_id=defaults.shared_client().start_run("b")) as run:
        run.add_entries(6)
    assert calls() == ["StartRun", "FinishRun"] * 3
    first, second = lines("anymate.finish_lost")
    assert "entries=5" in first
    assert "entries=6" in second


def test_no_wait_for_a_folder_that_can_not_be_made(sandbox: Sandbox, folder: Path, clock: Clock) -> None:
    """A bot does not wait for a journal that was never there and that no other program holds."""
    folder.write_text("in the way")
    guard(entries=5)
    assert credited(sandbox) == [5]
    assert clock.ahead < 0.1


def test_threads_without_a_journal(sandbox: Sandbox, folder: Path, calls: Callable[[], list[str]]) -> None:
    """Guards of one program share a run, and wait for one that is being finished, also where there is no journal."""
    folder.write_text("in the way")
    sandbox.fail_next("StartRun", delay=0.3)
    sandbox.fail_next("FinishRun", delay=0.3)
    inside = threading.Barrier(2)

    def work() -> None:
        with anymate_run("a") as run:
            inside.wait(LONGEST)
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
@pytest.mark.parametrize("size", [8192, 24_576, 28_672])
def test_full_disk(sandbox: Sandbox, folder: Path, rows: Rows, size: int) -> None:
    """A full disk costs one warning and some time; the bot's result is its own, and every run is credited once."""
    text = """
import resource, signal, logging
logging.basicConfig()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from anymate_guard import anymate_run
with anymate_run("a"):
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, MOST))
for number in range(4):
    with anymate_run("a") as run:
        run.add_entries(3)
"""
    text = text.replace("MOST", str(size))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=LONGEST, check=True)
    assert done.stderr.count("anymate.journal_unavailable") == 1
    assert "make room" in done.stderr
    guard("b")
    assert sum(entries or 0 for entries in credited(sandbox)) == 4 * 3 + 1
    assert {row.state for row in rows()} <= {"starting"}  # what is owed to nobody; the next guard on "a" drops it


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("full_from", ["entering", "recording", "leaving"])
def test_full_disk_for_a_while(sandbox: Sandbox, file: Path, full_from: str) -> None:
    """What is recorded while the journal can't grow is credited, whenever there is room again."""
    text = """
import resource, sys
from pathlib import Path
from anymate_guard import anymate_run
from anymate_guard._journal.journals import all_journals

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def fill(when):
    if when == sys.argv[1]:
        limit(Path(sys.argv[2] + "-wal").stat().st_size)

fill("entering")
with anymate_run("a") as run:
    fill("recording")
    run.add_entries(7)
    for journal in all_journals():
        journal.look()
    fill("leaving")
    if sys.argv[1] != "leaving":
        limit(resource.RLIM_INFINITY)
    run.add_entries(2)
limit(resource.RLIM_INFINITY)
"""
    guard("b")
    with closing(sqlite3.connect(file)) as other:
        other.execute("SELECT * FROM rows").fetchall()  # so that the log goes on growing, and is longer than its index
        while file.with_name(f"{file.name}-wal").stat().st_size < 1 << 16:
            guard("b", 0)
        command = [sys.executable, "-c", text, full_from, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=True)
    assert "anymate.journal_unavailable" in done.stderr
    guard("a", 0)
    assert sum(run["overwriteEntries"] or 0 for run in sandbox.runs() if run["processKey"] == "a") == 9


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be deleted there")
def test_deleted(sandbox: Sandbox, folder: Path, rows: Rows, lines: Lines) -> None:
    """A journal deleted under a running bot is made anew, with one warning; the bot is alive in it, its row is back."""
    with anymate_run("a") as run:
        for path in folder.iterdir():
            path.unlink()
        run.add_entries(3)
        until(lambda: [row.entries for row in rows()] == [3])
        text = "from anymate_guard import anymate_run\nwith anymate_run('a') as run: run.add_entries(1)"
        subprocess.run([sys.executable, "-c", text], check=True, timeout=LONGEST)
        assert [run["finished"] for run in sandbox.runs()] == [False]
    assert credited(sandbox) == [4]
    (line,) = lines("anymate.journal_unavailable")
    assert "what others had left there may be lost" in line


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be replaced there")
@pytest.mark.parametrize("runs_since", [0, 10_000])
def test_older_copy(sandbox: Sandbox, way: FaultProxy, file: Path, rows: Rows, runs_since: int) -> None:
    """A copy of the journal made while a run was being started, and put back long after it, does not start it again."""
    copy = file.with_name("copy")

    def make_copy(exchange: Exchange) -> None:
        with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        exchange.answer(*exchange.forward())

    way.break_next("StartRun", make_copy)
    guard("a", 3)
    for path in file.parent.glob("journal.sqlite3-*"):
        path.unlink()
    copy.rename(file)
    journal_at(file.parent).wanted._settled.extend(range(runs_since))
    assert [row.state for row in rows()] == ["starting"]
    guard("b")
    assert credited(sandbox) == [3, 1]
    assert rows() == []


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be copied there")
def test_older_copy_while_it_was_closed(sandbox: Sandbox, folder: Path, rows: Rows) -> None:
    """A copy of the folder that is put back while a program forks, say, costs nothing of what was recorded since."""
    copy = folder.with_name("copy")
    guard("b")
    with anymate_run("a") as run:
        journal = journal_at(folder)
        run.add_entries(2)
        journal.look()
        assert journal.pause()
        shutil.copytree(folder, copy)
        journal.resume()
        run.add_entries(3)
        journal.look()
        with closing(sqlite3.connect(copy / "journal.sqlite3")) as other, other:
            other.execute("DELETE FROM rows")
        assert journal.pause()
        shutil.rmtree(folder)
        copy.rename(folder)
        journal.resume()
    assert credited(sandbox) == [1, 5]
    assert rows() == []


def test_claimed_by_a_step_that_was_not_written(
    sandbox: Sandbox, folder: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a guard claims, but can't write at once, may be claimed by another one, which then keeps it."""
    refused, claimed, connect = threading.Event(), threading.Event(), sqlite3.connect

    class Refusing(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            main = threading.current_thread() is threading.main_thread()
            if statement == "COMMIT" and main and not refused.is_set():
                if super().execute("SELECT count(*) FROM rows WHERE process_key = 'x' AND owner <> 0").fetchone()[0]:
                    refused.set()
                    raise sqlite3.OperationalError("database is locked")
            elif statement == "BEGIN IMMEDIATE" and main and refused.is_set() and not claimed.is_set():
                raise sqlite3.OperationalError("database is locked")
            return super().execute(statement, *values)

    with anymate_run("x") as run:
        run.add_entries(4)
        sandbox.fail_next("FinishRun", status=403)
    close_all()
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=Refusing, **options))
    one, another_one = (driver.Driver(defaults.shared_client()) for _ in range(2))
    ways = one.way(), another_one.way()
    row = Row(ways[0].mate.address, ways[0].mate.username, "y")

    def claim_it() -> None:
        assert refused.wait(LONGEST)
        another_one.run(ways[1].apply(lambda view: owed.claim(view, row, ways[1].claims)))
        claimed.set()

    thread = threading.Thread(target=claim_it)
    thread.start()
    one.run(ways[0].apply(lambda view: owed.claim(view, row, ways[0].claims), LONGEST))
    thread.join()
    assert (ways[0].claims.rows, ways[0].claims.unsent) == (set(), set())
    one.journal.wanted.give_back(ways[1].claims.rows, ways[1].claims.unsent)
    assert driver.settle_all(defaults.shared_client())
    assert credited(sandbox) == [4]
    assert rows() == []


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be moved there")
def test_folder_that_becomes_a_file(folder: Path) -> None:
    """The recorder, which asks whether somebody has written, goes on where the folder is a file by now."""
    database = Database(Folder(folder))
    database.connect()
    folder.rename(folder.with_name("aside"))
    folder.write_text("in the way")
    assert not database.has_more()
    database.disconnect()


@contextmanager
def at_rest(folder: Path) -> Iterator[None]:
    """Keep the threads of this program from the journal in the block, in which its folder is not there for a moment."""
    journal = journal_at(folder)
    assert journal.pause()
    yield
    journal.resume()


@pytest.mark.skipif(sys.platform == "win32", reason="an open file can't be moved there")
def test_gone_while_a_guard_waits(
    sandbox: Sandbox,
    file: Path,
    folder: Path,
    rows: Rows,
    lines: Lines,
    calls: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A guard that waits for another program's finish goes on when the journal can't be read any more."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "30")
    guard("b")
    with another(file) as owner:
        sandbox.fail_next("FinishRun", status=403)
        guard("a")
        with closing(sqlite3.connect(file)) as other, other:
            other.execute("UPDATE rows SET owner = ?, state = 'finishing'", [owner])
        work = threading.Thread(target=guard, args=("a", 3))
        work.start()
        until(lambda: [row.state for row in rows()] == ["finishing", "starting"])
        with at_rest(folder):
            aside = folder.rename(folder.with_name("aside"))
            folder.write_text("in the way")
        until(lambda: calls().count("StartRun") == 3)
        with at_rest(folder):
            folder.unlink()
            aside.rename(folder)
        work.join()
    assert lines("anymate.start_deferred") == []
    until(lambda: driver.settle_all(defaults.shared_client()) and not rows())
    assert credited(sandbox) == [1, 4]


def test_other_thread_is_not_held_up(sandbox: Sandbox, file: Path) -> None:
    """Threads that meet a locked journal at the same time wait for it together, not one after the other."""
    guard()
    with locked(file), in_time():
        threads = [threading.Thread(target=guard, args=(f"k{number}",)) for number in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(credited(sandbox)) == 25


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
    if not (tmp_path / "link").is_symlink():
        pytest.skip("Wine 8 makes links that it does not follow; nothing of ours has been called yet")
    monkeypatch.chdir(tmp_path)
    names = ("state", "link", "./state/../link", str(folder))
    journals = {journal_at(Settings(state_dir=Path(name), disabled=True).state_dir) for name in names}
    assert len(journals) == 1


def test_moved_aside_by_another(sandbox: Sandbox, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that finds a journal corrupt, which another has moved aside already, leaves the new one alone."""

    def meets_a_corrupt_one(database: Database, connection: sqlite3.Connection) -> None:
        monkeypatch.undo()
        file.rename(file.with_name("moved"))
        file.write_bytes(b"")
        raise sqlite3.DatabaseError("file is not a database")

    journal = journal_at(file.parent)
    monkeypatch.setattr(Database, "_prepare", meets_a_corrupt_one)
    assert rows_of(journal) == []
    assert file.exists()
    assert list(file.parent.glob("*.corrupt-*")) == []


def test_damage_that_only_an_open_connection_sees(sandbox: Sandbox, file: Path, rows: Rows, watched: Any) -> None:
    """A journal is moved aside only when it is found damaged as it is now, not as it was when it was opened."""
    watched(lambda _: None)
    guard()

    def be_damaged(executed: str) -> None:
        if executed == "BEGIN IMMEDIATE":
            watched(lambda _: None)
            raise sqlite3.DatabaseError("database disk image is malformed")

    watched(be_damaged)
    guard(entries=2)
    assert list(file.parent.glob("*.corrupt-*")) == []
    assert credited(sandbox) == [1, 2]
    assert rows() == []


INTERRUPTED = """
import os, sqlite3, sys
from pathlib import Path
from anymate_guard import anymate_run
from anymate_guard._journal import recorder
from anymate_guard._journal.journals import journal_at

recorder._EVERY = 60  # nothing is written but here
connect = sqlite3.connect
statement = None

class Watched(sqlite3.Connection):
    def execute(self, text, *values):
        global statement
        cursor = super().execute(text, *values)
        if text == statement:
            statement = None
            raise KeyboardInterrupt
        return cursor

sqlite3.connect = lambda *args, **options: connect(*args, factory=Watched, **options)
with anymate_run("a"):
    pass
journal = journal_at(Path(os.environ["ANYMATE_STATE_DIR"]))
other = connect(journal.path, isolation_level=None)
other.execute("BEGIN EXCLUSIVE")
with anymate_run("a") as run:
    run.add_entries(3)
    print("inside", flush=True)
    sys.stdin.readline()
other.execute("ROLLBACK")
statement = sys.argv[1]
try:
    journal.look()
except KeyboardInterrupt:
    journal.look()
    print("interrupted")
"""


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
def test_interrupted_while_writing(sandbox: Sandbox, rows: Rows, folder: Path, statement: str) -> None:
    """What waits to be written is written once, also when Ctrl-C comes in the midst of that, or just after it."""
    command = [sys.executable, "-c", INTERRUPTED, statement]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as bot:
        assert bot.stdout is not None
        assert bot.stdout.readline() == "inside\n"
        sandbox.close()
        assert bot.communicate("\n")[0] == "interrupted\n"
    assert [(row.state, row.entries) for row in rows()] == [("done", 3)]
    sandbox.start()
    guard(entries=4)
    guard("b")
    assert sorted(entries or 0 for entries in credited(sandbox)) == [0, 1, 3, 4]


def test_closed_in_the_midst_of_our_own_work(sandbox: Sandbox, rows: Rows, watched: Any) -> None:
    """A generator with a guard, closed by the garbage collector while another guard is at the journal, is finished."""

    def pages() -> Generator[None, None, None]:
        with anymate_run("b") as run:
            run.add_entries(2)
            yield

    watched(lambda _: None)
    generator = pages()
    next(generator)

    def close(executed: str) -> None:
        if executed == "BEGIN IMMEDIATE" and threading.current_thread() is threading.main_thread():
            watched(lambda _: None)
            generator.close()

    watched(close)
    guard(entries=1)
    until(lambda: len([run for run in sandbox.runs() if run["finished"]]) == 2)
    assert credited(sandbox) == [2, 1]
    until(lambda: rows() == [])


def test_closed_just_when_another_has_left(sandbox: Sandbox, file: Path, rows: Rows, watched: Any) -> None:
    """A generator with a guard, closed when another has just left its run to others, does not bring it back."""

    def pages() -> Generator[None, None, None]:
        with anymate_run("b") as run:
            run.add_entries(2)
            yield

    def close(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "note":
            sys.setprofile(None)
            generator.close()

    def after(executed: str) -> None:
        if executed == "COMMIT" and threading.current_thread() is threading.main_thread():
            sys.setprofile(close)

    watched(lambda _: None)
    guard("c")
    with another(file) as owner:
        generator = pages()
        next(generator)
        with anymate_run("a") as run:
            run.add_entries(3)
            journal_at(file.parent).look()
            mine = next(row for row in rows() if row.process_key == "a")
            with closing(sqlite3.connect(file)) as other, other:
                row = mine.but(owner=owner, id=new_id(), entries=1)
                other.execute(f"INSERT INTO rows VALUES ({', '.join('?' * len(row))})", row.columns)
            watched(after)
        sys.setprofile(None)
        watched(lambda _: None)
    guard("a", 4)
    until(lambda: len([run for run in sandbox.runs() if run["finished"]]) == 4)
    assert sorted(entries or 0 for entries in credited(sandbox)) == [1, 2, 4, 4]
    until(lambda: rows() == [])


def test_time_is_over_before_settling(sandbox: Sandbox, rows: Rows) -> None:
    """What was claimed, with no time left to try it, is given back as it was."""
    with anymate_run("a"), anymate_run("b"):
        sandbox.fail_next("FinishRun", status=403, times=2)
    kept = rows()
    one = driver.Driver(defaults.shared_client())
    assert not one.run(settle(one.way(), kept[0].but(process_key="other"), seconds=0))
    assert [(row.id, row.state, row.owner, row.finish) for row in rows()] == [(row.id, "done", 0, 0) for row in kept]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows tells a user's folder itself, not by variables")
def test_folder_of_the_user(sandbox: Sandbox, tmp_path: Path) -> None:
    """Without ANYMATE_STATE_DIR the journal lives in the user's state directory."""
    folders = dict.fromkeys(("HOME", "XDG_STATE_HOME", "LOCALAPPDATA"), str(tmp_path))
    environ = {name: value for name, value in os.environ.items() if name != "ANYMATE_STATE_DIR"}
    text = "from anymate_guard import anymate_run\nwith anymate_run('a'): pass"
    subprocess.run([sys.executable, "-c", text], check=True, timeout=LONGEST, env={**environ, **folders})
    assert len(list(tmp_path.rglob("journal.sqlite3"))) == 1


def test_settling_is_stopped(sandbox: Sandbox, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a guard settles what is owed gives everything back that was claimed."""
    with anymate_run("a"), anymate_run("b"), anymate_run("c"):
        sandbox.fail_next("FinishRun", status=403, times=3)
    client = defaults.shared_client()
    sent = client.finish_run

    def interrupted(run_id: int, *args: object, **options: object) -> None:
        sent(run_id, *args, **options)  # type: ignore[arg-type]
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "finish_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        guard("d")
    assert [(row.state, row.owner, row.finish != 0) for row in rows()] == [
        ("done", 0, True),
        ("done", 0, False),
        ("done", 0, False),
    ]
    assert driver.settle_all(client)
    assert credited(sandbox) == [None, None, None]


def test_sent_without_a_journal_and_interrupted_twice(
    sandbox: Sandbox, file: Path, rows: Rows, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finish that was sent while the journal was locked, and interrupted twice, is sent once more and counts once."""
    guard("b")
    client = defaults.shared_client()
    sent, give_back = client.finish_run, Wanted.give_back

    def interrupted(*arguments: Any, **options: Any) -> None:
        monkeypatch.setattr(client, "finish_run", sent)
        sent(*arguments, **options)
        raise KeyboardInterrupt

    def interrupted_again(*_: object) -> None:
        monkeypatch.setattr(Wanted, "give_back", give_back)
        raise KeyboardInterrupt

    with locked(file):
        monkeypatch.setattr(client, "finish_run", interrupted)
        with pytest.raises(KeyboardInterrupt), anymate_run("a") as run:
            run.add_entries(3)
            monkeypatch.setattr(Wanted, "give_back", interrupted_again)
        until(lambda: calls().count("FinishRun") == 3)
    until(lambda: [row.state for row in rows()] == ["done"])
    guard("c")
    assert credited(sandbox) == [1, 3, 1]
    assert rows() == []


def test_interrupted_once_it_has_claimed(sandbox: Sandbox, rows: Rows, interrupt: Any) -> None:
    """What a guard has claimed when Ctrl-C comes before it knows of that is owed to everybody again."""
    with anymate_run("a"):
        sandbox.fail_next("FinishRun", status=401, times=2)
    interrupt(lambda executed: executed == "COMMIT")
    with pytest.raises(KeyboardInterrupt):
        guard("b")
    until(lambda: [(row.process_key, row.state, row.owner) for row in rows()] == [("a", "done", 0)])
    guard("c")
    assert credited(sandbox) == [None, 1]
    assert rows() == []


def test_interrupted_once_it_is_settled(
    sandbox: Sandbox, folder: Path, rows: Rows, calls: Callable[[], list[str]], interrupt: Any
) -> None:
    """A finished run has one line in the history, also when Ctrl-C comes just when that was written."""
    interrupt(lambda executed: executed == "COMMIT" and "FinishRun" in calls())
    with pytest.raises(KeyboardInterrupt):
        guard("a")
    guard("b")
    assert sorted(line.process_key for line in history_of(journal_at(folder))[0]) == ["a", "b"]
    assert credited(sandbox) == [1, 1]
    assert rows() == []


def test_interrupted_after_a_refusal(sandbox: Sandbox, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that may not start, and is interrupted while it settles what others are owed, keeps hold of nothing."""
    with anymate_run("a"), anymate_run("b"):
        sandbox.fail_next("FinishRun", times=99)
    sandbox._world.faults.reset()
    sandbox.set_process("c", stopped=True)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(defaults.shared_client(), "finish_run", interrupted)
        with pytest.raises(KeyboardInterrupt), anymate_run("c", check_ok_to_run=True):
            pytest.fail("the body ran")
    until(lambda: [(row.state, row.owner) for row in rows()] == [("done", 0)] * 2)
    assert driver.settle_all(defaults.shared_client())
    assert credited(sandbox) == [None, None]

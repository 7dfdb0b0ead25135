"""Where the journal lives: what is not believed, and disks that are not like others."""

from __future__ import annotations

import functools
import itertools
import os
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anymate_guard import anymate_run
from anymate_guard._journal.journals import close_all, journal_at
from anymate_guard._journal.rows import Row
from anymate_guard.sandbox import Sandbox
from tests.processes.bots import running
from tests.support.waiting import LONGEST, until

Rows = Callable[[], list[Row]]
Lines = Callable[[str], list[str]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its folders are private to the user by default")


@pytest.fixture(name="temporary")
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go, and in it the folder of this user."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary" / f"anymate_guard-{os.geteuid()}"


def a_link(file: Path, _: pytest.MonkeyPatch) -> None:
    """Let the journal be a link."""
    file.symlink_to(file.with_name("elsewhere"))


def somebody_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the journal belong to another user."""
    file.touch()
    if os.geteuid() == 0:
        os.chown(file, 4711, -1)
    else:
        monkeypatch.setattr(os, "geteuid", functools.partial(int, os.geteuid() + 1))


def everybody(file: Path, _: pytest.MonkeyPatch) -> None:
    """Let everybody write to the journal."""
    file.touch()
    file.chmod(0o666)


def everybody_in_its_folder(file: Path, _: pytest.MonkeyPatch) -> None:
    """Let everybody write to the folder of the journal."""
    file.parent.chmod(0o777)


def stored(sandbox: Sandbox) -> None:
    """A guard whose finish can't be delivered, for want of an Anymate."""
    with anymate_run("a") as run:
        run.add_entries(3)
        sandbox.close()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (a_link, "is a link"),
        (somebody_else, "belongs to another user"),
        (everybody, "everybody can write to"),
        (everybody_in_its_folder, "everybody can write to"),
    ],
)
def test_what_is_not_believed(
    sandbox: Sandbox,
    file: Path,
    temporary: Path,
    lines: Lines,
    rows: Rows,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path, pytest.MonkeyPatch], None],
    reason: str,
) -> None:
    """What somebody else could have written is not believed: one warning, and a folder of this user's own instead."""
    file.parent.mkdir()
    spoil(file, monkeypatch)
    stored(sandbox)
    (line,) = lines("anymate.journal_unavailable")
    assert reason in line
    (used,) = temporary.parent.iterdir()
    assert str(used / "journal.sqlite3") in line
    assert [row.entries for row in rows()] == [3]


def test_folder_that_was_believed_before(
    sandbox: Sandbox, file: Path, temporary: Path, lines: Lines, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program keeps the journal in which others see its runs, with one warning, when everybody may write to it."""
    with anymate_run("a") as run:
        run.add_entries(3)
        until(lambda: [row.entries for row in rows()] == [3])
        everybody_in_its_folder(file, monkeypatch)
        close_all()  # it opens the file anew after that, as after a fork
        run.add_entries(1)
        until(lambda: [row.entries for row in rows()] == [4])
        assert not temporary.exists()
    (line,) = lines("anymate.journal_unavailable")
    assert "everybody can write to" in line
    assert rows() == []
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [4]


def test_neither_of_two_folders_is_believed(sandbox: Sandbox, file: Path, temporary: Path, lines: Lines) -> None:
    """Where this user's temporary folder is not believed either, there is one warning, and the run is finished."""
    for place in (file, temporary / file.name):
        place.parent.mkdir()
        place.symlink_to(place.with_name("elsewhere"))
    with anymate_run("a") as run:
        run.add_entries(3)
    (line,) = lines("anymate.journal_unavailable")
    assert "is a link" in line
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [3]


def test_without_a_write_ahead_log(
    sandbox: Sandbox, file: Path, rows: Rows, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where programs can't share memory, as on some disks of networks, the journal does without a write-ahead log."""
    connect: Any = sqlite3.connect
    monkeypatch.setattr(
        sqlite3, "connect", lambda path, **options: connect(f"file:{path}?vfs=unix-dotfile", uri=True, **options)
    )
    stored(sandbox)
    assert [row.entries for row in rows()] == [3]
    assert not file.with_name(f"{file.name}-wal").exists()
    assert lines("anymate.journal_unavailable") == []


def test_disk_that_is_broken(
    sandbox: Sandbox, file: Path, rows: Rows, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that says it has not kept what was written costs one warning; it is asked again later."""
    broken = threading.Event()
    sync = os.fsync

    def fsync(file: int) -> None:
        if not broken.is_set():
            raise OSError(5, "Input/output error")
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    stored(sandbox)
    said = lines("anymate.journal_unavailable")  # of a journal of the test before, too, if it is not on the disk yet
    (line,) = [one for one in said if file.parents[1].name in one]
    assert "Input/output error" in line
    assert "see whether the disk is full or broken" in line
    broken.set()
    assert [row.entries for row in rows()] == [3]


def test_disk_that_takes_long(sandbox: Sandbox, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that is left while the recorder waits for the disk waits for it, too, and both go on."""
    together, number, sync = threading.Barrier(2), itertools.count(), os.fsync

    def fsync(file: int) -> None:
        if next(number) < 2:
            together.wait(LONGEST)
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    stored(sandbox)
    assert next(number) >= 2
    assert [row.entries for row in rows()] == [3]


def test_damaged_where_nothing_can_be_moved(
    sandbox: Sandbox, file: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged journal that can't be moved away, as somebody has it open, is a warning that says so."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    file.parent.mkdir()
    file.write_bytes(b"no database" * 1000)
    with anymate_run("a") as run:
        run.add_entries(3)
    (line,) = lines("anymate.journal_unavailable")
    assert "could not be moved away (Permission denied): close the programs that use it" in line
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [3]


def test_fork_gives_up_waiting(sandbox: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork does not wait without end for who is at the file, and then leaves everything as it was."""
    monkeypatch.setattr("anymate_guard._journal.journal._FORKING", 0.01)
    journal = journal_at(folder)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with journal.wanted.lock:
            held.set()
            go_on.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert not journal.pause()
    go_on.set()
    thread.join()
    assert journal.pause()
    journal.resume()


def test_no_thread_for_the_recorder(sandbox: Sandbox, rows: Rows) -> None:
    """Where no more threads can be started, guards go on without the recorder, until they can."""
    text = """
        start = threading.Thread.start

        def refuse(thread):
            raise RuntimeError("can't start new thread")

        threading.Thread.start = refuse
        with anymate_run("a") as run:
            run.add_entries(3)
            say("without")
            sys.stdin.readline()
            threading.Thread.start = start
            with anymate_run("b"):
                say("inside")
                sys.stdin.readline()
        """
    with running(text) as bot:
        bot.until("without")
        assert [row.entries for row in rows()] == [None]
        bot.go_on()
        bot.until("inside")
        until(lambda: 3 in [row.entries for row in rows()])
        assert bot.end() == (0, "", "")
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [3, None]


def test_disk_without_locks(sandbox: Sandbox, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that knows no locks, as some of networks, there is one warning, and the run is finished."""

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.fcntl", refuse)
    with anymate_run("a") as run:
        run.add_entries(3)
    (line,) = lines("anymate.journal_unavailable")
    assert "No locks available" in line
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [3]

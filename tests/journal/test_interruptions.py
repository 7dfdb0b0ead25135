"""Ctrl-C at any place of what is done with a journal."""

from __future__ import annotations

import gc
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from anymate_guard._journal.journal import Journal
from anymate_guard._journal.rows import Entry, Row, Unavailable, new_id
from anymate_guard._journal.rules import leave
from anymate_guard._journal.storage.database import Database
from anymate_guard._journal.storage.folder import Folder
from anymate_guard._journal.view import Claims
from anymate_guard._process.owners import Owner
from tests.support.waiting import LONGEST

if sys.platform == "win32":
    pytest.skip("Windows keeps files that a program is at", allow_module_level=True)

import resource

STEP = 1 if os.environ.get("ANYMATE_GUARD_MATRIX") == "full" else 5  # between two places: all would take minutes


class Bot:
    """A program that has recorded 2 entries, and then 3.

    Args:
        folder: Where its journal is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "journal.sqlite3"
        self.journal = Journal(Database(Folder(folder)), Owner())
        self.recorded = 2
        row = Row("address", "user", "a", run_id=7, state="open", id=new_id())
        self.entry = Entry(row, lambda: (self.recorded, None))
        self.claims = Claims()

    def begin(self, situation: str) -> None:
        """Bring something about."""
        self.journal.apply("", lambda _: None, 0.0)
        copy = self.folder.with_name("copy")
        if situation == "an older copy":
            self.journal.close()
            shutil.copytree(self.folder, copy)
        self.journal.wanted.add(self.entry)
        if situation not in {"not written yet", "full disk"}:
            self.journal.look()
        self.recorded = 5
        if situation == "deleted":
            shutil.rmtree(self.folder)
        elif situation == "an older copy":
            shutil.rmtree(self.folder)
            copy.rename(self.folder)
        elif situation == "taken":
            self.change("owner = 99, finish = 5, state = 'finishing'")
        elif situation == "taken and given back":
            self.change("owner = 99, state = 'finishing'")

    def change(self, what: str) -> None:
        """Change rows, as another program that believes this one dead."""
        with closing(sqlite3.connect(self.file)) as other, other:
            other.execute(f"UPDATE rows SET {what}")

    def record(self) -> None:
        """Write what was recorded."""
        self.journal.clear(0.0)

    def leave(self) -> None:
        """Leave the run."""
        self.journal.apply("address", lambda view: leave(view, self.entry.recorded(), self.claims), 0.0)

    def end(self) -> list[Row]:
        """Let go of everything; what is in the journal then."""
        self.journal.wanted.give_back({self.entry.row.id, *self.claims.rows}, self.claims.unsent)
        self.journal.close()
        rows = self.journal.read("", lambda view: list(view.table.all()))
        self.journal.close()
        self.journal.owner.close()
        return rows


@contextmanager
def interruption(place: int) -> Iterator[list[str]]:
    """Ctrl-C at the place with a number, where Python looks for it; which one that is, if there are so many."""
    left, where = place, list[str]()

    def profile(frame: FrameType, event: str, what: Any) -> None:
        nonlocal left
        if event == "c_return" and what.__name__ == "__enter__":
            return  # no signal comes between taking a lock and the block, but on 3.14, where ours is made for that
        if event in {"call", "c_return"} and "anymate_guard" in frame.f_code.co_filename:
            left -= 1
            if left == 0:
                sys.setprofile(None)
                where.append(f"{frame.f_code.co_filename}:{frame.f_lineno} {event} {what}")
                raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        yield where
    finally:
        sys.setprofile(None)


@contextmanager
def full_disk(file: Path) -> Iterator[None]:
    """The log can't grow, which is longer than its index."""

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("SELECT * FROM rows").fetchall()
        other.execute("INSERT INTO history SELECT zeroblob(40000), 0, 0, 0, 0, 0, 0, 0, 0, 0")
        limit(file.with_name(f"{file.name}-wal").stat().st_size)
        try:
            yield
        finally:
            limit(resource.RLIM_INFINITY)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a connection nobody has closed
@pytest.mark.parametrize("what", [Bot.leave, Bot.record], ids=["leaves", "records"])
@pytest.mark.parametrize(
    "situation",
    ["as usual", "not written yet", "full disk", "deleted", "an older copy", "taken", "taken and given back"],
)
def test_interrupted_anywhere(tmp_path: Path, what: Callable[[Bot], None], situation: str) -> None:
    """Wherever Ctrl-C comes while a journal is written, everything recorded is in it once in the end, and nobody's.

    It is another thread that goes on: no lock may be held.
    """
    elsewhere, where, place = ThreadPoolExecutor(1), ["the first"], 0
    while where:
        place += STEP
        bot = Bot(tmp_path / str(place) / "folder")
        bot.begin(situation)
        disk = full_disk(bot.file) if situation == "full disk" else nullcontext()
        with disk, interruption(place) as where, suppress(KeyboardInterrupt, Unavailable):
            what(bot)
        if situation == "taken and given back":
            bot.change("owner = 0, state = 'done' WHERE owner = 99")
        rows = elsewhere.submit(bot.end).result(LONGEST)
        assert bot.journal.wanted.empty, (where, bot.journal.wanted._rows, rows)
        assert sum(row.entries or 0 for row in rows) == 5, (where, rows)
        assert {row.owner for row in rows} <= {0, 99}, (where, rows)
        shutil.rmtree(tmp_path / str(place))
    elsewhere.shutdown()
    gc.collect()
    assert place > 20

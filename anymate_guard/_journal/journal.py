"""The journal of this program in one folder: rules, applied to a file that is made to match what the program wants."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import TypeVar

from anymate_guard._deadline import chance
from anymate_guard._journal.rows import Row, RowTaken, Unavailable
from anymate_guard._journal.storage.database import TROUBLE, Database, is_locked
from anymate_guard._journal.storage.tables import Tables
from anymate_guard._journal.view import View
from anymate_guard._journal.wanted import Opened, Step, Wanted
from anymate_guard._process import signals
from anymate_guard._process.owners import Owner

T = TypeVar("T")

_LOOK = 1.0  # seconds between two looks for programs that died
_LOOKING = 0.2  # seconds for which a look waits for a locked file
_HOUR = 3600.0
_FORKING = 10.0  # seconds that a fork waits for who is at the file: to make it may take some
_CLOSING = 1.0  # seconds to wait for a locked file at the end
_POLL = 0.01  # seconds between the first two tries
_LONGEST_POLL = 0.2  # between later ones: many that ask too often hold up the one that they wait for


class Journal:
    """The journal in one folder; `journals.journal_at` gives the one of this program.

    Args:
        database: The file.
        owner: This program, as an owner of rows.

    Attributes:
        owner: The same.
        wanted: What this program wants the file to hold; what changes there is written at the next step.
    """

    def __init__(self, database: Database, owner: Owner) -> None:
        self.owner = owner
        self.wanted = Wanted(owner.id)
        self._database = database
        self._unsynced = False
        self._looked = self._swept = -_HOUR

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.folder.file

    @property
    def idle(self) -> bool:
        """Whether no guard is open, and everything is written and on the disk."""
        return self.wanted.empty and not self._unsynced

    def clear(self, patience: float, *, durable: bool = False) -> None:
        """Let the file follow, if that can be done soon, and see that it is on the disk; else a look does so later."""
        with contextlib.suppress(Unavailable):
            self._patiently(self._match, patience)
            if durable:
                self._sync()

    def apply(self, address: str, rule: Callable[[View], T], patience: float, *, durable: bool = False) -> T:
        """Apply a rule, and write what it changes as one transaction.

        Args:
            address: Whose outages matter.
            rule: What to do; it may be called more than once.
            patience: Seconds to wait for a file that can't be written.
            durable: Whether to see that it is on the disk.

        Raises:
            Unavailable: The file could not be written.
        """

        def work() -> T:
            while True:
                try:
                    return self._apply(address, rule)
                except RowTaken as taken:
                    self.wanted.begin_anew(taken.number)

        result = self._patiently(work, patience)
        if durable:
            self._sync()
        return result

    def read(self, address: str, rule: Callable[[View], T], patience: float = 0.0) -> T:
        """Apply a rule that changes nothing, whoever is writing.

        Raises:
            Unavailable: The file could not be read.
        """

        def work() -> T:
            self._open()
            return self._database.read(lambda tables: rule(self._view(tables, address)))

        return self._patiently(work, patience)

    def look(self) -> None:
        """Make the file match what is wanted and recorded by now, on the disk, and be seen as alive."""
        self.clear(_LOOKING)
        # Others that leave the run of a guard that is open here may be gone before they have seen to it themselves.
        if self._unsynced or (not self.wanted.empty and self._database.has_more()):
            self._sync()

    def close(self) -> None:
        """Make the file match, and close it; the next operation opens it again."""
        self.clear(_CLOSING if self.wanted.differs else 0.0)
        with self.wanted.lock:
            self._database.disconnect()

    def pause(self) -> bool:
        """See that nobody is at the file while the process forks; True if `resume` has to be called.

        sqlite keeps note of its locks in memory: a child that inherited an open file would believe that it holds the
        locks of its parent.
        """
        with contextlib.ExitStack() as taken:
            for lock in (self._database.checkpointing, self.wanted.lock):
                if not lock.acquire(timeout=_FORKING):
                    return False
                taken.callback(lock.release)
            self._database.disconnect()
            taken.pop_all()  # `resume` gives them back
        return True

    def resume(self) -> None:
        """Go on after a fork."""
        self.wanted.lock.release()
        self._database.checkpointing.release()

    def _match(self) -> None:
        self.wanted.record()
        if self.wanted.empty and self.wanted.last.noted:
            return
        updates = self.wanted.updates(self._open())
        if updates is None or not all(starmap(self._update, updates)):
            self._apply("", lambda _: None)

    def _update(self, row: Row, finish: int) -> bool:
        """Write what is new in a row; False if another program has taken it.

        That is one statement: between two of them other threads may have the interpreter for long, and the file would
        be locked meanwhile.
        """
        changed: list[int] = []
        step = self.wanted.expect(self.wanted.last.opened, {row.id: row}, changed)
        self._database.statement(lambda tables: tables.put_mine(row, self.owner.id, finish, changed))
        if changed:
            self._note(step, {})
        return bool(changed)

    def _patiently(self, work: Callable[[], T], patience: float) -> T:
        """Do something with the file, again and again while it can't be used.

        What was never usable, as it is read-only, say, is tried once more, unless it is only locked.
        """
        if self.wanted.lost:  # as the step before found, in which others waited for the file
            self.wanted.lost = False
            self._database.folder.warn(
                "it was deleted or replaced while it was in use",
                "what others had left there may be lost; see that nobody cleans up in the folder",
            )
        try:
            return self._tried(work, patience)
        finally:
            self._database.folder.tell()

    def _tried(self, work: Callable[[], T], patience: float) -> T:
        end, again, poll = time.monotonic() + patience, False, _POLL
        while True:
            with self.wanted.lock:
                try:
                    return work()
                except TROUBLE as error:
                    signals.let_pass(error)
                    failure, remedy = error, self._database.recover(error)
            if not remedy:
                continue
            hopeless = again and not (self.wanted.in_file or is_locked(failure))
            again = True
            if hopeless or time.monotonic() >= end:
                if patience > _LOOKING or not is_locked(failure):  # others may be at it for a moment
                    self._database.folder.warn(failure, remedy)
                raise Unavailable(f"{failure}; {remedy}")
            time.sleep(chance.uniform(0, poll))  # so that many that wait don't ask in step
            poll = min(2 * poll, _LONGEST_POLL)

    def _open(self) -> Opened:
        """See that both files are the ones that have their names now; which one that is."""
        database = self._database
        database.connect()
        self.owner.hold(database.folder.locks)
        return Opened((database.number, database.losses), (database.openings, self.owner.openings))

    def _apply(self, address: str, rule: Callable[[View], T]) -> T:
        opened, ended = self._open(), list[object]()
        result, step, decided = self._database.write(
            lambda tables: self._step(tables, address, rule, opened, ended), ended
        )
        self._note(step, decided)
        return result

    def _step(
        self, tables: Tables, address: str, rule: Callable[[View], T], opened: Opened, ended: Sequence[object]
    ) -> tuple[T, Step, Mapping[int, Row]]:
        """Write what differs, then what a rule changes; what it returns, and the rows that it put."""
        wrote = self.wanted.write(tables, opened)
        view = self._view(tables, address)
        if view.look:
            self._looked = time.monotonic()
        result = rule(view)
        tables.change(view)
        if view.look and time.monotonic() - self._swept > _HOUR:
            tables.forget_history(view.now)
            self._swept = time.monotonic()
        wrote |= {**view.puts, **dict.fromkeys(view.drops | view.taken)}
        return result, self.wanted.expect(opened, wrote, ended), view.puts

    def _note(self, step: Step, decided: Mapping[int, Row]) -> None:
        self._unsynced |= bool(step.wrote)
        self.wanted.note(step, decided)

    def _view(self, tables: Tables, address: str) -> View:
        now, since = float(time.time()), time.monotonic()  # mocks may give whole numbers
        return View(
            tables,
            address,
            self.owner.id,
            self.owner.alive,
            self.wanted.holds,
            self.wanted.was_written,
            now=now,
            boot=now - since,
            look=since - self._looked >= _LOOK,  # only a change takes note of it: who only reads finds nobody dead
        )

    def _sync(self) -> None:
        self._unsynced, synced = False, False  # first, as others may write meanwhile
        try:
            synced = self._database.sync()
        finally:
            self._unsynced |= not synced
            self._database.folder.tell()

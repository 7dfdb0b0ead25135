"""What a program wants the journal's file to hold, and the file made to match it.

What a program wants is a small map: its rows by their ids, or None for a row that is to go. One step writes what
differs; it comes before every rule, at each look of the recorder, and at the end.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from itertools import starmap
from pathlib import Path
from typing import TypeVar

from anymate_guard._deadline import chance
from anymate_guard._journal.database import TROUBLE, Database, is_locked
from anymate_guard._journal.rows import Entry, Finish, Row, RowTaken, Unavailable, released
from anymate_guard._journal.tables import Tables
from anymate_guard._journal.view import View
from anymate_guard._process import signals
from anymate_guard._process.locks import Lock
from anymate_guard._process.owners import Owner

T = TypeVar("T")

_LOOK = 1.0  # seconds between two looks for programs that died
_LOOKING = 0.2  # seconds for which a look waits for a locked file
_HOUR = 3600.0
_FORKING = 10.0  # seconds that a fork waits for who is at the file: to make it may take some
_CLOSING = 1.0  # seconds to wait for a locked file at the end
_POLL = 0.01  # seconds between the first two tries
_LONGEST_POLL = 0.2  # between later ones: many that ask too often hold up the one that they wait for
_SETTLED = 10_000  # rows that are remembered as settled


class Journal:
    """The journal in one folder; `journals.journal_at` gives the one of this program.

    Args:
        database: The file.
        owner: This program, as an owner of rows.
    """

    def __init__(self, database: Database, owner: Owner) -> None:
        self.owner = owner
        self._database = database
        # Never held while waiting for a locked file or for the disk, so that guards and forks need not wait either.
        self._lock = Lock()
        self._wanted: dict[int, Row | None] = {}
        self._entries: dict[int, Entry] = {}
        self._written: dict[int, Row] = {}  # what the file holds of it
        self._finished: list[tuple[Finish, str, float]] = []  # what it still holds of finishes that Anymate has
        self._noted = 0  # how many of those the last transaction took out
        self._file = 0, 0  # which file that is: its number, and the losses before it
        self._unsure = False  # whether it is another file, or the end of a transaction was not seen
        self._unseen: dict[int, Row | None] = {}  # what that transaction has written
        self._lost = False  # whether rows that were in the file are not in the one that has its name now
        self._settled = deque[int](maxlen=_SETTLED)  # a copy of the file that is put back may hold these again
        self._unsynced = False
        self._in_transaction = 0  # the thread that is in one, or about to be
        self._looked = self._swept = -_HOUR

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def idle(self) -> bool:
        """Whether no guard is open, and everything is written and on the disk."""
        return not (self._wanted or self._finished or self._unsynced)

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is in the middle of writing, as the garbage collector may come there, too."""
        return self._in_transaction == threading.get_ident()

    def add(self, entry: Entry) -> None:
        """Want a guard's row to be in the file, with what it has recorded at each look."""
        with self._lock:
            entry.change(owner=self.owner.id)
            self._entries[entry.row.id] = entry
            self._wanted[entry.row.id] = entry.row

    def give_back(self, numbers: set[int], unsent: set[int]) -> None:
        """Let go of rows that were claimed, or are open, in memory; the file follows.

        Args:
            numbers: The ids of the rows.
            unsent: Those whose finish was not sent, for sure.
        """
        with self._lock:
            for number in numbers:
                row, entry = self._wanted.get(number), self._entries.get(number)
                if row is not None:
                    self._wanted[number] = left = released(entry.recorded() if entry else row, unsent)
                    if entry is not None and left is not None:
                        entry.row = left

    def settle(self, finish: Finish, how: str) -> None:
        """Delete the rows of a finish that Anymate has, in memory; the file follows, with a line in the history."""
        with self._lock:
            self._settled.extend(finish.numbers)
            self._finished.append((finish, how, float(time.time())))
            for number in finish.numbers:
                self._entries.pop(number, None)
                self._wanted.pop(number, None)

    def drop(self, numbers: set[int]) -> None:
        """Delete rows that leave nothing, in memory; the file follows."""
        with self._lock:
            self._settled.extend(numbers)
            for number in numbers:
                self._entries.pop(number, None)
                if number in self._written or number in self._unseen:
                    self._wanted[number] = None
                else:
                    self._wanted.pop(number, None)

    def clear(self, patience: float, *, durable: bool = False) -> None:
        """Let the file follow, if that can be done soon, and see that it is on the disk; else a look does so later."""
        with contextlib.suppress(Unavailable):
            self._patiently(self._match, patience)
            if durable:
                self._sync()

    def written(self, row: Row) -> Row | None:
        """A row as the file holds it, if somebody may send it: one that is `starting` there is dropped by everybody."""
        held = self._written.get(row.id)
        return None if held is None or held.state == "starting" else held

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
                    self._begin_anew(taken.number)

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
            return self._database.transaction(lambda rows: rule(self._view(rows, address)), write=False)

        return self._patiently(work, patience)

    def look(self) -> None:
        """Make the file match what is wanted and recorded by now, on the disk, and be seen as alive."""
        self.clear(_LOOKING)
        # Others that leave the run of a guard that is open here may be gone before they have seen to it themselves.
        if self._unsynced or (self._wanted and self._database.has_more()):
            self._sync()

    def close(self) -> None:
        """Make the file match, and close it; the next operation opens it again."""
        self.clear(_CLOSING if self._finished or self._differences() else 0.0)
        with self._lock:
            self._database.disconnect()

    def pause(self) -> bool:
        """See that nobody is at the file while the process forks; True if `resume` has to be called.

        sqlite keeps note of its locks in memory: a child that inherited an open file would believe that it holds the
        locks of its parent.
        """
        with contextlib.ExitStack() as taken:
            for lock in (self._database.checkpointing, self._lock):
                if not lock.acquire(timeout=_FORKING):
                    return False
                taken.callback(lock.release)
            self._database.disconnect()
            taken.pop_all()  # `resume` gives them back
        return True

    def resume(self) -> None:
        """Go on after a fork."""
        self._lock.release()
        self._database.checkpointing.release()

    def _match(self) -> None:
        self._in_transaction = threading.get_ident()
        try:
            for entry in list(self._entries.values()):
                row = entry.recorded()
                self._wanted[row.id] = row
            if not (self._wanted or self._finished or self._unsure):
                return
            self._open()
            recorded = not (self._finished or self._unsure) and all(starmap(self._record, self._differences()))
        finally:
            self._in_transaction = 0
        if not recorded:
            self._apply("", lambda _: None)

    def _record(self, number: int, row: Row | None) -> bool:
        """Write what is new in a row; False where that takes more than one statement.

        Between two of them other threads may have the interpreter for long, and the file would be locked meanwhile.
        """
        written = self._written.get(number)
        if row is None or row.owner != self.owner.id or written is None:
            return False

        def work(rows: Tables) -> bool:
            self._unsure = True
            self._unseen = {number: row}
            return rows.put_mine(row, self.owner.id, written.finish)

        try:
            self._database.statement(work)
        finally:
            if not self._database.committed:
                self._unsure, self._unseen = False, {}
        if not self._database.committed:
            return False
        self._note(self._unseen, {})
        self._unsure, self._unseen = False, {}
        return True

    def _patiently(self, work: Callable[[], T], patience: float) -> T:
        """Do something with the file, again and again while it can't be used.

        What was never usable, as it is read-only, say, is tried once more, unless it is only locked.
        """
        if self._lost:  # as the step before found, in which others waited for the file
            self._lost = False
            self._database.warn(
                "it was deleted or replaced while it was in use",
                "what others had left there may be lost; see that nobody cleans up in the folder",
            )
        end, again, poll = time.monotonic() + patience, False, _POLL
        while True:
            with self._lock:
                try:
                    return work()
                except TROUBLE as error:
                    signals.let_pass(error)
                    failure, remedy = error, self._database.recover(error)
            if not remedy:
                continue
            hopeless = again and not (self._written or is_locked(failure))
            again = True
            if hopeless or time.monotonic() >= end:
                if patience > _LOOKING or not is_locked(failure):  # others may be at it for a moment
                    self._database.warn(failure, remedy)
                raise Unavailable(f"{failure}; {remedy}")
            time.sleep(chance.uniform(0, poll))  # so that many that wait don't ask in step
            poll = min(2 * poll, _LONGEST_POLL)

    def _open(self) -> None:
        """See that both files are the ones that have their names now."""
        self._unsure |= self._database.connect()
        self._unsure |= self.owner.hold(self._database.locks)

    def _apply(self, address: str, rule: Callable[[View], T]) -> T:
        self._open()
        self._in_transaction, file, self._noted = threading.get_ident(), self._file, 0
        try:
            result, decided = self._database.transaction(lambda rows: self._change(rows, address, rule), write=True)
        finally:
            self._in_transaction = 0
            if self._database.committed:
                del self._finished[: self._noted]
            else:
                self._unseen, self._file = {}, file
        self._note(self._unseen, decided)
        self._unsure, self._unseen = False, {}
        return result

    def _change(self, rows: Tables, address: str, rule: Callable[[View], T]) -> tuple[T, Mapping[int, Row]]:
        """Write what differs, then what a rule changes; what it returns, and the rows that it put."""
        finished = list(self._finished)
        for finish in finished:
            rows.settle(*finish)
        if self._unsure:
            self._compare(rows)
        wrote = self._write_differences(rows)
        view = self._view(rows, address)
        if view.look:
            self._looked = time.monotonic()
        result = rule(view)
        rows.change(view)
        if view.look and time.monotonic() - self._swept > _HOUR:
            rows.forget_history(view.now)
            self._swept = time.monotonic()
        gone = view.drops.union(view.taken, *(finish.numbers for finish, *_ in finished))
        self._noted = len(finished)
        self._unseen = {**wrote, **view.puts, **dict.fromkeys(gone)}
        self._unsure = True
        return result, view.puts

    def _view(self, rows: Tables, address: str) -> View:
        now, since = float(time.time()), time.monotonic()  # mocks may give whole numbers
        return View(
            rows,
            address,
            self.owner.id,
            self.owner.alive,
            self._holds,
            self._written.__contains__,
            now=now,
            boot=now - since,
            look=since - self._looked >= _LOOK,  # only a change takes note of it: who only reads finds nobody dead
        )

    def _holds(self, number: int) -> bool:
        row = self._wanted.get(number)
        return row is not None and row.owner == self.owner.id

    def _compare(self, rows: Tables) -> None:
        """Find out what the file holds of this program: it is another file, or a transaction's end was not seen."""
        file, before = (self._database.number, self._database.losses), set[int]()
        if self._file != file:
            before = set(self._written)
            self._written.clear()
            self._unseen.clear()
            self._file = file
            for number in tuple(self._settled):
                rows.drop(number)
        # What is not there any more was taken by another program.
        self._written.update({number: row for number, row in self._unseen.items() if row is not None})
        held = {row.id: row for row in rows.of_owner(self.owner.id)}
        self._lost |= bool(before - held.keys())
        for number, row in held.items():
            self._written[number] = row
            if number not in self._wanted:  # claimed by a step whose end was not seen
                self._wanted[number] = released(row)
        for number in self._written.keys() - held.keys() - self._wanted.keys():
            del self._written[number]

    def _differences(self) -> list[tuple[int, Row | None]]:
        wanted = list(self._wanted.items())
        return [(number, row) for number, row in wanted if row is None or self._written.get(number) is not row]

    def _write_differences(self, rows: Tables) -> dict[int, Row | None]:
        """Write what differs, and give back what was written."""
        wrote: dict[int, Row | None] = {}
        for number, wanted in self._differences():
            row = wanted
            if row is None:
                rows.drop(number, self.owner.id)
            elif number not in self._written:
                row = row if row.began else self._entries[number].begin()
                rows.put(row)
            elif not rows.makes_sense(number):
                rows.put(row)  # somebody made a mess of it
            elif not rows.put_mine(row, self.owner.id, self._written[number].finish):
                row = self._begin_anew(number)
                wrote[number] = None
                if row is None:
                    continue
                rows.put(row)
            wrote[row.id if row else number] = row
        return wrote

    def _begin_anew(self, number: int) -> Row | None:
        """Leave a row to the program that took it; what its guard records from then on goes into a new one."""
        entry, taken = self._entries.pop(number, None), self._written.pop(number)
        self._wanted.pop(number, None)
        if entry is None or entry.row.finish:  # it was claimed as it is now
            return None
        row = entry.begin_anew(taken)
        if row.state == "done" and row.entries is None and row.nanoseconds is None:
            return None
        self._entries[row.id], self._wanted[row.id] = entry, row
        return row

    def _note(self, holds: Mapping[int, Row | None], decided: Mapping[int, Row]) -> None:
        """Remember what the file holds, once a transaction has ended."""
        for number, row in holds.items():
            if row is not None and row.owner == self.owner.id:
                self._wanted[number] = self._written[number] = row
                if number in self._entries and number in decided:  # else the guard knows more by now
                    self._entries[number].row = row
            else:
                self._entries.pop(number, None)
                self._wanted.pop(number, None)
                self._written.pop(number, None)
        self._unsynced |= bool(holds)

    def _sync(self) -> None:
        self._unsynced, synced = False, False  # first, as others may write meanwhile
        try:
            synced = self._database.sync()
        finally:
            self._unsynced |= not synced

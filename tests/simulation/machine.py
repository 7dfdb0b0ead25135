"""A model of the machine: the journal's file, programs that come and go, and a clock."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from anymate_guard._journal.journal import Journal
from anymate_guard._journal.rows import NO_ID, Finish, Row
from anymate_guard._journal.view import BEGINNING, Place, View
from anymate_guard._journal.wanted import Step, Wanted
from anymate_guard._lifecycle.sharing import Program, Shared

T = TypeVar("T")

_STATES = ("open", "finishing", "done")


def _waits(row: Row) -> bool:
    return row.owner == 0 and row.state == "done"


@dataclass
class Content:
    """What the file holds."""

    rows: dict[int, Row] = field(default_factory=dict)
    outages: set[str] = field(default_factory=set)


@dataclass
class File:
    """The journal's file.

    Attributes:
        number: Which file has the name now.
        content: What it holds.
        locked: Whether somebody else holds the write lock.
        full: Whether there is no room on the disk, which shows only when a transaction is to end.
        read: How many rows were read in the last transaction.
    """

    number: int = 1
    content: Content = field(default_factory=Content)
    locked: bool = False
    full: bool = False
    read: int = 0

    def delete(self) -> None:
        """Put a new, empty file in its place."""
        self.number += 1
        self.content = Content()


class Rows:
    """The table that rules read and write, of one transaction."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self.read = 0

    def of_process(self, address: str, process_key: str, run_id: int | None, but_for: int = NO_ID) -> list[Row]:
        rows = [row for row in self._of(address, process_key) if not _waits(row) or row.run_id == run_id is not None]
        rows = [row for row in rows if row.id != but_for]
        self.read += len(rows)
        return rows

    def waiting(self, row: Row, most: int, but_for: Container[int]) -> list[Row]:
        rows = [other for other in self._of(*row.process) if _waits(other) and other.id not in but_for]
        rows = sorted(rows, key=lambda other: -(other.run_id or 0))
        rows = [other for other in rows if other.username == row.username][:most]
        self.read += len(rows)
        return rows

    def is_mine(self, number: int, me: int, finish: int) -> bool:
        row = self._content.rows.get(number)
        return row is not None and (
            row.owner == me or (not row.owner and row.finish == finish and row.state != "refused")
        )

    def _of(self, address: str, process_key: str) -> list[Row]:
        return [row for row in self.all() if row.process == (address, process_key) and row.state != "refused"]

    def abandoned(self, address: str, username: str, most: int, after: Place = BEGINNING) -> list[Row]:
        rows = [row for row in self.all() if (row.address, row.username, row.owner) == (address, username, 0)]
        rows = [row for row in rows if row.state in _STATES and (row.began, row.id) > after][:most]
        self.read += len(rows)
        return rows

    def owners(self) -> list[int]:
        return sorted({row.owner for row in self.all()} - {0})

    def of_owner(self, owner: int) -> list[Row]:
        rows = [row for row in self.all() if row.owner == owner != 0]
        self.read += len(rows)
        return rows

    def all(self) -> list[Row]:
        return sorted(self._content.rows.values(), key=lambda row: (row.began, row.id))

    def glance(self, address: str, now: float) -> tuple[bool, bool]:  # noqa: ARG002  # an outage of it ends with an answer
        owed = any(row.address == address and not row.owner and row.state in _STATES for row in self.all())
        return address in self._content.outages, owed

    def makes_sense(self, number: int) -> bool:  # noqa: ARG002  # all rows of the model do
        return True

    def put(self, row: Row) -> None:
        self._content.rows[row.id] = row

    def put_mine(self, row: Row, me: int, finish: int, changed: list[int]) -> bool:
        if not self.is_mine(row.id, me, finish):
            return False
        self.put(row)
        changed.append(1)
        return True

    def drop(self, number: int, me: int | None = None) -> None:
        held = self._content.rows.get(number)
        if held is not None and me in {None, held.owner}:
            del self._content.rows[number]

    def change(self, view: View) -> None:
        for row in view.puts.values():
            self.put(row)
        for number in view.drops:
            self.drop(number)
        if view.reachable is False:
            self._content.outages.add(view.address)
        elif view.reachable:
            self._content.outages.discard(view.address)

    def settle(self, finish: Finish, how: str, now: float) -> None:  # noqa: ARG002  # it has no history
        for number in finish.numbers:
            self.drop(number)
        self._content.outages.discard(finish.rows[0].address)

    def forget_history(self, now: float) -> None:
        """The model has none."""


class Folder:
    """Where the file is."""

    file = locks = Path("model")

    def warn(self, error: object, remedy: str) -> None:
        """Nobody reads it."""

    def tell(self) -> None:
        """Nobody listens."""


class Database:
    """A program's way to the file."""

    def __init__(self, file: File) -> None:
        self.folder = Folder()
        self._file = file
        self.number = self.losses = self.openings = 0

    def connect(self) -> None:
        self.number = self._file.number

    def disconnect(self) -> None:
        """Nothing is open."""

    def sync(self) -> bool:
        """This model loses no power."""
        return True

    def has_more(self) -> bool:
        return False

    def recover(self, error: Exception) -> str:
        return str(error)

    def read(self, work: Callable[[Rows], T]) -> T:
        return self._transaction(work)[0]

    def write(self, work: Callable[[Rows], T], ended: list[object]) -> T:
        if self._file.locked:
            raise sqlite3.OperationalError("database is locked")
        result, content = self._transaction(work)
        if self._file.full:
            raise sqlite3.OperationalError("database or disk is full")
        self._file.content = content
        ended.append(True)
        return result

    def _transaction(self, work: Callable[[Rows], T]) -> tuple[T, Content]:
        content = Content(dict(self._file.content.rows), set(self._file.content.outages))
        rows = Rows(content)
        result = work(rows)
        self._file.read = rows.read
        return result, content

    def statement(self, work: Callable[[Rows], T]) -> T:
        return self.write(work, [])


@dataclass(eq=False)
class Owner:
    """A program as an owner."""

    machine: Machine
    id: int
    openings: int = 0

    def hold(self, path: Path) -> None:
        """The model has one."""

    def alive(self, owner: int, since: float) -> bool:  # noqa: ARG002  # the model's lock file is never new
        if owner == self.id:
            return True
        process = self.machine.processes.get(owner)
        return process is not None and process.alive and not process.mistaken


class Interrupted(Wanted):
    """What a program wants.

    Attributes:
        interrupted: Whether Ctrl-C comes just after the next transaction.
    """

    interrupted = False

    def note(self, step: Step, decided: Mapping[int, Row]) -> None:
        if self.interrupted:
            self.interrupted = False
            raise KeyboardInterrupt
        super().note(step, decided)


class Looking(Journal):
    """A journal that looks for dead programs at each step."""

    def __init__(self, database: Any, owner: Any) -> None:
        super().__init__(database, owner)
        self.wanted: Interrupted = Interrupted(owner.id)

    def _view(self, tables: Any, address: str) -> View:
        self._looked = float("-inf")
        return super()._view(tables, address)


@dataclass(eq=False)
class Process:
    """A program that runs, or has run.

    Attributes:
        name: What a story calls it.
        journal: The real one, over the model of the file.
        program: The real register of runs.
        alive: Whether it runs.
        mistaken: Whether others take it for dead.
        unseen: Whether it has a row that the file may not hold yet, so that others can't know of it.
    """

    name: str
    journal: Looking
    program: Program
    alive: bool = True
    mistaken: bool = False
    unseen: bool = False

    def abandoned(self) -> list[Shared]:
        """Runs that nobody starts, holds or finishes."""
        return [shared for shared in self.program.runs() if shared.is_abandoned()]


@dataclass(eq=False)
class Machine:
    """Programs around one journal."""

    now: float = 1000.0
    file: File = field(default_factory=File)
    processes: dict[int, Process] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def start(self, name: str) -> Process:
        """Start a program."""
        number = next(self._numbers)
        journal = Looking(Database(self.file), Owner(self, number))
        process = Process(name, journal, Program(lambda: self.now))
        self.processes[number] = process
        return process

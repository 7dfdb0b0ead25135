"""What this program wants the journal's file to hold, what it knows of what the file holds, and the step between them.

What a program wants is a small map: its rows by their ids, or None for a row that is to go. One step writes what
differs; it comes before every rule, at each look of the recorder, and at the end.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from anymate_guard._journal.rows import Entry, Finish, Row, released
from anymate_guard._journal.storage.tables import Tables
from anymate_guard._journal.view import View
from anymate_guard._process.locks import Lock

_SETTLED = 10_000  # rows that are remembered as settled


class Known(NamedTuple):
    """What is known of the last step.

    Attributes:
        file: Which file it was about: its number, and the losses before it.
        unsure: Whether it is another file by now, or the end of the step was not seen.
        unseen: What the step has written, if its end was not seen.
        settled: How many finishes that Anymate has it took out.
    """

    file: tuple[int, int] = (0, 0)
    unsure: bool = False
    unseen: Mapping[int, Row | None] = {}
    settled: int = 0


class Wanted:
    """The rows of this program, and what the file holds of them.

    A step is a transaction: `write`, a rule, `expect`, and when that is on record `note`. Where nothing was written,
    what was known before is known again. Where the end was not seen, as Ctrl-C came just then, the next step compares.

    Args:
        me: This program's owner id.

    Attributes:
        lock: Held by who does something with this or with the file; `add`, `give_back`, `settle` and `drop` take it
            themselves. Never held while waiting for a locked file or for the disk, so that guards and forks need not.
        known: What is known of the last step.
        lost: Whether rows that were in the file are not in the one that has its name now.
    """

    def __init__(self, me: int) -> None:
        self.lock = Lock()
        self.known = Known()
        self.lost = False
        self._me = me
        self._rows: dict[int, Row | None] = {}
        self._entries: dict[int, Entry] = {}
        self._written: dict[int, Row] = {}  # what the file holds of it
        self._finished: list[tuple[Finish, str, float]] = []  # what it still holds of finishes that Anymate has
        self._settled = deque[int](maxlen=_SETTLED)  # a copy of the file that is put back may hold these again

    @property
    def empty(self) -> bool:
        """Whether no guard is open, and everything is written."""
        return not (self._rows or self._finished)

    @property
    def differs(self) -> bool:
        """Whether there is something to write."""
        return bool(self._finished or self._differences())

    @property
    def in_file(self) -> bool:
        """Whether the file holds something of it."""
        return bool(self._written)

    def holds(self, number: int) -> bool:
        """Whether a row is to be this program's own."""
        row = self._rows.get(number)
        return row is not None and row.owner == self._me

    def was_written(self, number: int) -> bool:
        """Whether a row was in the file when it was seen last."""
        return number in self._written

    def written(self, row: Row) -> Row | None:
        """A row as the file holds it, if somebody may send it: one that is `starting` there is dropped by everybody."""
        held = self._written.get(row.id)
        return None if held is None or held.state == "starting" else held

    def add(self, entry: Entry) -> None:
        """Want a guard's row to be in the file, with what it has recorded at each look."""
        with self.lock:
            entry.change(owner=self._me)
            self._entries[entry.row.id] = entry
            self._rows[entry.row.id] = entry.row

    def give_back(self, numbers: set[int], unsent: set[int]) -> None:
        """Let go of rows that were claimed, or are open.

        Args:
            numbers: The ids of the rows.
            unsent: Those whose finish was not sent, for sure.
        """
        with self.lock:
            for number in numbers:
                row, entry = self._rows.get(number), self._entries.get(number)
                if row is not None:
                    self._rows[number] = left = released(entry.recorded() if entry else row, unsent)
                    if entry is not None and left is not None:
                        entry.row = left

    def settle(self, finish: Finish, how: str) -> None:
        """Want the rows of a finish that Anymate has to be gone, and a line in the history instead."""
        with self.lock:
            self._settled.extend(finish.numbers)
            self._finished.append((finish, how, float(time.time())))
            for number in finish.numbers:
                self._forget(number)

    def drop(self, numbers: set[int]) -> None:
        """Want rows to be gone."""
        with self.lock:
            self._settled.extend(numbers)
            for number in numbers:
                self._forget(number)
                if number in self._written or number in self.known.unseen:
                    self._rows[number] = None

    def record(self) -> None:
        """Take up what the guards have recorded by now."""
        for entry in list(self._entries.values()):
            row = entry.recorded()
            self._rows[row.id] = row

    def updates(self) -> list[tuple[Row, int]] | None:
        """What differs, if that is nothing but new content of rows in the file; each with its finish there."""
        if self._finished or self.known.unsure:
            return None
        updates = []
        for number, row in self._differences():
            written = self._written.get(number)
            if row is None or row.owner != self._me or written is None:
                return None
            updates.append((row, written.finish))
        return updates

    def doubt(self) -> None:
        """Note that the file may be another one."""
        self.known = self.known._replace(unsure=True)

    def write(self, tables: Tables, file: tuple[int, int]) -> Known:
        """Write what differs, as the first part of a step; what has become known of the step so far."""
        for finish in self._finished:
            tables.settle(*finish)
        if self.known.unsure:
            self._compare(tables, file)
        gone = dict.fromkeys(number for finish, *_ in self._finished for number in finish.numbers)
        return Known(file, True, {**gone, **self._write_differences(tables)}, len(self._finished))

    def expect(self, step: Known, view: View) -> None:
        """Note what a step is about to have written, with what a rule changed, as its end may not be seen."""
        self.known = step._replace(unseen={**step.unseen, **view.puts, **dict.fromkeys(view.drops | view.taken)})

    def note(self, decided: Mapping[int, Row]) -> None:
        """Note that the end of a step was seen; what a rule decided is what its guards know of their rows, too."""
        for number, row in self.known.unseen.items():
            if row is not None and row.owner == self._me:
                self._rows[number] = self._written[number] = row
                if number in self._entries and number in decided:  # else the guard knows more by now
                    self._entries[number].row = row
            else:
                self._forget(number)
                self._written.pop(number, None)
        del self._finished[: self.known.settled]
        self.known = Known(self.known.file)

    def begin_anew(self, number: int) -> Row | None:
        """Leave a row to the program that took it; what its guard records from then on goes into a new one."""
        entry, taken = self._entries.pop(number, None), self._written.pop(number)
        self._rows.pop(number, None)
        if entry is None or entry.row.finish:  # it was claimed as it is now
            return None
        row = entry.begin_anew(taken)
        if row.state == "done" and row.entries is None and row.nanoseconds is None:
            return None
        self._entries[row.id], self._rows[row.id] = entry, row
        return row

    def _forget(self, number: int) -> None:
        self._entries.pop(number, None)
        self._rows.pop(number, None)

    def _compare(self, tables: Tables, file: tuple[int, int]) -> None:
        """Find out what the file holds of this program."""
        before, unseen = set[int](), self.known.unseen
        if self.known.file != file:
            before, unseen = set(self._written), {}
            self._written.clear()
            for number in tuple(self._settled):
                tables.drop(number)
        # What is not there any more was taken by another program.
        self._written.update({number: row for number, row in unseen.items() if row is not None})
        held = {row.id: row for row in tables.of_owner(self._me)}
        self.lost |= bool(before - held.keys())
        for number, row in held.items():
            self._written[number] = row
            if number not in self._rows:  # claimed by a step whose end was not seen
                self._rows[number] = released(row)
        for number in self._written.keys() - held.keys() - self._rows.keys():
            del self._written[number]

    def _differences(self) -> list[tuple[int, Row | None]]:
        wanted = list(self._rows.items())
        return [(number, row) for number, row in wanted if row is None or self._written.get(number) is not row]

    def _write_differences(self, tables: Tables) -> dict[int, Row | None]:
        """Write what differs, and give back what was written."""
        wrote: dict[int, Row | None] = {}
        for number, wanted in self._differences():
            row = wanted
            if row is None:
                tables.drop(number, self._me)
            elif number not in self._written:
                row = row if row.began else self._entries[number].begin()
                tables.put(row)
            elif not tables.makes_sense(number):
                tables.put(row)  # somebody made a mess of it
            elif not tables.put_mine(row, self._me, self._written[number].finish):
                row = self.begin_anew(number)
                wrote[number] = None
                if row is None:
                    continue
                tables.put(row)
            wrote[row.id if row else number] = row
        return wrote

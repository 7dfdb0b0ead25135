"""What this program wants the journal's file to hold, what it knows of what the file holds, and the step between them.

What a program wants is a small map: its rows by their ids, or None for a row that is to go. One step writes what
differs; it comes before every rule, at each look of the recorder, and at the end.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from anymate_guard._journal.rows import Entry, Finish, Row, released
from anymate_guard._journal.storage.tables import Tables
from anymate_guard._process.locks import Lock

_SETTLED = 10_000  # rows that are remembered as settled


class Opened(NamedTuple):
    """Which file is open.

    Attributes:
        file: Its number, and how often it or a part of it was found lost.
        times: How often it, and the file of locks, were opened.
    """

    file: tuple[int, int] = (0, 0)
    times: tuple[int, int] = (0, 0)


class Step(NamedTuple):
    """A transaction, from just before its end on.

    Attributes:
        opened: The file that it is about.
        wrote: What it writes: the row of an id, or None for one that is gone.
        settled: How many finishes that Anymate has it takes out.
        ended: Has an item once it is written, even if Ctrl-C came just then.
        noted: Whether that was noted.
    """

    opened: Opened = Opened()
    wrote: Mapping[int, Row | None] = {}
    settled: int = 0
    ended: Sequence[object] = (True,)
    noted: bool = True


class Wanted:
    """The rows of this program, and what the file holds of them.

    A step writes what differs by `write`, then what a rule changes; `expect` is to be called before its end, and `note`
    after it. Ctrl-C may come anywhere: what `expect` was told counts if the step was written, and then the next one
    compares.

    Args:
        me: This program's owner id.

    Attributes:
        lock: Held by who is at a step, or changes what is wanted. Never held while waiting for a locked file or for the
            disk, so that guards and forks need not wait either.
        lost: Whether rows that were in the file are not in the one that has its name now.
    """

    def __init__(self, me: int) -> None:
        self.lock = Lock()
        self.lost = False
        self._me = me
        self._rows: dict[int, Row | None] = {}
        self._changed = set[int]()  # which of them may differ from what the file holds: a step looks at no others
        self._entries: dict[int, Entry] = {}
        self._written: dict[int, Row] = {}  # what the file holds of it
        self._finished: list[tuple[Finish, str, float]] = []  # what it still holds of finishes that Anymate has
        self._settled = deque[int](maxlen=_SETTLED)  # a copy of the file that is put back may hold these again
        self._step = self._before = Step()

    @property
    def last(self) -> Step:
        """The last step that was written."""
        return self._step if self._step.ended else self._before

    @property
    def empty(self) -> bool:
        """Whether no guard is open, and everything is written."""
        return not (self._rows or self._finished)

    @property
    def differs(self) -> bool:
        """Whether there is something to write."""
        with self.lock:
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
        with self.lock:  # a step that is under way may write it
            held = self._written.get(row.id)
        return None if held is None or held.state == "starting" else held

    def add(self, entry: Entry) -> None:
        """Want a guard's row to be in the file, with what it has recorded at each look."""
        with self.lock:
            entry.change(owner=self._me)
            self._entries[entry.row.id] = entry
            self._want(entry.row.id, entry.row)

    def give_back(self, numbers: set[int], unsent: set[int]) -> None:
        """Let go of rows that were claimed, or are open.

        Args:
            numbers: The ids of the rows.
            unsent: Those whose finish was not sent, for sure.
        """
        with self.lock:
            self.record()
            for number in numbers:
                row, entry = self._rows.get(number), self._entries.get(number)
                if row is not None:
                    left = released(entry.recorded() if entry else row, unsent)
                    self._want(number, left)
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
            self.record()
            self._settled.extend(numbers)
            for number in numbers:
                self._forget(number)
                if number in self._written or number in self.last.wrote:
                    self._want(number, None)

    def record(self) -> None:
        """Take up what the guards have recorded by now."""
        for number, entry in list(self._entries.items()):
            row = entry.recorded()
            if row.id != number:
                self.begin_anew(number)
            elif row is not self._rows.get(number):
                self._want(number, row)

    def updates(self, opened: Opened) -> list[tuple[Row, int]] | None:
        """What differs, if that is nothing but new content of rows in the file; each with its finish there."""
        last, updates = self.last, []
        if self._finished or not last.noted or last.opened != opened:
            return None
        for number, row in self._differences():
            written = self._written.get(number)
            if row is None or row.owner != self._me or written is None:
                return None
            updates.append((row, written.finish))
        return updates

    def write(self, tables: Tables, opened: Opened) -> dict[int, Row | None]:
        """Write what differs, as the first part of a step; what was written."""
        last = self.last
        for finish in self._finished:
            tables.settle(*finish)
        if not last.noted or last.opened != opened:
            self._compare(tables, last, opened)
        gone = dict.fromkeys(number for finish, *_ in self._finished for number in finish.numbers)
        return {**gone, **self._write_differences(tables)}

    def expect(self, opened: Opened, wrote: Mapping[int, Row | None], ended: Sequence[object]) -> Step:
        """The step that is about to be written."""
        self._before = self.last
        self._step = Step(opened, wrote, len(self._finished), ended, noted=False)
        return self._step

    def note(self, step: Step, decided: Mapping[int, Row]) -> None:
        """Note that a step was written; what a rule decided in it is what its guards know of their rows, too."""
        for number, row in step.wrote.items():
            if row is not None and row.owner == self._me:
                self._rows[number] = self._written[number] = row
                self._changed.discard(number)
                if number in self._entries and number in decided:  # else the guard knows more by now
                    self._entries[number].row = row
            else:
                self._forget(number)
                self._written.pop(number, None)
        del self._finished[: step.settled]
        self._step = Step(step.opened)

    def begin_anew(self, number: int) -> Row | None:
        """Leave a row to the program that took it; what its guard records from then on goes into a new one."""
        entry, row = self._entries.get(number), None
        if entry is not None and entry.row.id != number:  # this was interrupted
            row = entry.recorded()
        elif entry is not None and not entry.row.finish:  # else it was claimed as it is now
            row = entry.begin_anew(self._written[number])
        if row is not None and row.state == "done" and row.entries is None and row.nanoseconds is None:
            row = None
        if entry is not None and row is not None:
            self._entries[row.id] = entry
            self._want(row.id, row)
        self._rows.pop(number, None)
        self._changed.discard(number)
        self._written.pop(number, None)
        self._entries.pop(number, None)  # at last: as long as it is there, `record` goes on with what was interrupted
        return row

    def _want(self, number: int, row: Row | None) -> None:
        self._changed.add(number)  # first, as Ctrl-C may come in between
        self._rows[number] = row

    def _forget(self, number: int) -> None:
        self._rows.pop(number, None)
        self._changed.discard(number)
        self._entries.pop(number, None)

    def _compare(self, tables: Tables, last: Step, opened: Opened) -> None:
        """Find out what the file holds of this program."""
        before, unseen = set[int](), last.wrote
        if last.opened.file != opened.file:
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
        self._changed.update(self._rows)
        for number in self._written.keys() - held.keys() - self._rows.keys():
            del self._written[number]

    def _differences(self) -> list[tuple[int, Row | None]]:
        wanted = [(number, self._rows[number]) for number in tuple(self._changed) if number in self._rows]
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
            elif not tables.put_mine(row, self._me, self._written[number].finish, []):
                row = self.begin_anew(number)
                wrote[number] = None
                if row is None:
                    continue
                tables.put(row)
            wrote[row.id if row else number] = row
        return wrote

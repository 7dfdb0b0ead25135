"""The tables of the journal's file, in SQL: rows, outages and the history."""

from __future__ import annotations

import itertools
import sqlite3
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from operator import attrgetter
from typing import Any

from anymate_guard._journal.rows import NO_ID, Finish, Row, new_id
from anymate_guard._journal.view import BEGINNING, Place, View

_VERSION = 2
_TYPES = {"id": "id INTEGER PRIMARY KEY"}
_WAITING = "owner = 0 AND state = 'done'"
_OWED = "owner = 0 AND state IN ('open', 'finishing', 'done')"
_SCHEMA = (
    # An index is one more page to write for every change: the ids of rows have none of their own, and the history none.
    f"CREATE TABLE rows ({', '.join(_TYPES.get(name, name) for name in Row._fields)})",
    # What waits to be sent may be much, and is read by its run.
    f"""CREATE INDEX of_process ON rows (address, process_key, ({_WAITING}), run_id DESC, began)
    WHERE state <> 'refused'""",
    f"CREATE INDEX abandoned ON rows (address, username, began) WHERE {_OWED}",
    "CREATE INDEX of_owner ON rows (owner) WHERE owner <> 0",
    "CREATE TABLE outages (address PRIMARY KEY, at)",
    """CREATE TABLE history
    (address, username, process_key, run_id, began, ended, outcome, entries, seconds_saved, delivered)""",
    "CREATE TABLE file (number)",
)
_COLUMNS = ", ".join(Row._fields)
_MARKS = ", ".join("?" * len(Row._fields))
_READ = "SELECT {0} FROM rows"  # the columns come later
_ALL = f"{_READ} ORDER BY owner = 0, state <> 'refused', began"
_REFUSED = f"{_READ} WHERE state = 'refused' ORDER BY began"
_BETWEEN = f"{_READ} WHERE id BETWEEN ? AND ?"
_PROCESS = f"{_READ} WHERE address = ? AND process_key = ? AND id <> ? AND state <> 'refused' AND ({_WAITING})"
_OF_PROCESS = f"{_PROCESS} = 0 UNION ALL {_PROCESS} = 1 AND run_id = ?"
_WAITING_OF = f"{_PROCESS} = 1 AND username = ? ORDER BY run_id DESC, began"
_ABANDONED = f"{_READ} WHERE address = ? AND username = ? AND {_OWED} AND (began, id) > (?, ?) ORDER BY began, id"
_GLANCE = f"""SELECT (SELECT at FROM outages WHERE address = ?),
    EXISTS (SELECT 1 FROM rows WHERE address = ? AND {_OWED})"""  # noqa: S608  # nothing of it comes from outside
_OF_OWNER = f"{_READ} WHERE owner = ? AND owner <> 0"
_BY_ID = f"{_READ} WHERE id = ?"
_OWNERS = "SELECT DISTINCT owner FROM rows WHERE owner <> 0"
_PUT = f"INSERT OR REPLACE INTO rows VALUES ({_MARKS})"  # noqa: S608  # as above
# One that others have made nobody's, as they believed this program dead, can be taken back until it is in a finish of
# theirs: who takes it gives it another one.
_MINE = "WHERE id = ? AND (owner = ? OR owner = 0 AND finish = ? AND state <> 'refused')"
_IS_MINE = f"SELECT 1 FROM rows {_MINE}"  # noqa: S608  # as above
_UPDATE = f"UPDATE rows SET ({_COLUMNS}) = ({_MARKS}) {_MINE}"  # noqa: S608  # as above
_DROP = "DELETE FROM rows WHERE id = ?"
_DROP_MINE = "DELETE FROM rows WHERE id = ? AND owner = ?"
_NOTE = "INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_NO_OUTAGE = "DELETE FROM outages WHERE address = ?"
_LINES = "FROM history WHERE ended >= :since AND (:process IS NULL OR process_key = :process)"
_HISTORY = f"SELECT * {_LINES} ORDER BY ended DESC LIMIT :most"
_DAYS = f"""SELECT date(ended, 'unixepoch', 'localtime'), count(*), total(seconds_saved) {_LINES}
    GROUP BY 1 ORDER BY 1 DESC"""
_OUTAGE = 60.0  # seconds for which an address counts as unreachable
_OLDEST = 90 * 86_400.0  # seconds for which a line of the history is kept
_MOST_LINES = 100_000
_rowcount = attrgetter("rowcount")


class Newer(sqlite3.Error):
    """The file has a schema that this version does not know."""


class Tables:
    """What rules read and write, in one transaction.

    Rows that make no sense are left out, so that they stop nobody.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def of_process(self, address: str, process_key: str, run_id: int | None, but_for: int = NO_ID) -> list[Row]:
        """The rows of a process that somebody is or was at, and those of a run that wait to be sent, oldest first."""
        process = (address, process_key, but_for)
        return sorted(self._rows(_OF_PROCESS, (*process, *process, run_id)), key=attrgetter("began"))

    def waiting(self, row: Row, most: int, but_for: Container[int]) -> Iterator[Row]:
        """What waits to be sent for the process and account of a row; what has a run already comes first."""
        rows = filter(None, self._each(_WAITING_OF, (*row.process, NO_ID, row.username)))
        return itertools.islice((row for row in rows if row.id not in but_for), most)

    def abandoned(self, address: str, username: str, most: int, after: Place = BEGINNING) -> list[Row]:
        """The rows of an account that nobody is at, but for `starting` ones, oldest first, after a place among them."""
        return self._rows(_ABANDONED, (address, username, *after), most)

    def owners(self) -> list[int]:
        """All owners of rows."""
        return [owner for (owner,) in self._connection.execute(_OWNERS) if type(owner) is int]

    def of_owner(self, owner: int) -> list[Row]:
        """The rows of an owner."""
        return self._rows(_OF_OWNER, (owner,))

    def all(self) -> Iterator[Row]:
        """Rows that somebody is at, then refused ones, then the others, oldest first."""
        return filter(None, self._each(_ALL, ()))

    def refused(self) -> list[Row]:
        """Refused rows, oldest first."""
        return self._rows(_REFUSED, ())

    def between(self, low: int, high: int, most: int) -> list[Row]:
        """Rows with an id from `low` to `high`."""
        return self._rows(_BETWEEN, (low, high), most)

    def count(self) -> Counter[str | None]:
        """How many rows there are in each state; None counts those that make no sense."""
        return Counter(row and row.state for row in self._each(_READ, ()))

    def glance(self, address: str, now: float) -> tuple[bool, bool]:
        """Whether an address was unreachable less than a minute ago, and whether something is owed to it."""
        at, owed = self._connection.execute(_GLANCE, (address, address)).fetchone()
        return type(at) is float and abs(now - at) < _OUTAGE, bool(owed)

    def is_mine(self, number: int, me: int, finish: int) -> bool:
        """Whether a row is somebody's own still, or can be taken back; it need not make sense.

        Args:
            number: The row's id.
            me: Whose it was.
            finish: The number of the finish that it was part of.
        """
        return self._connection.execute(_IS_MINE, (number, me, finish)).fetchone() is not None

    def makes_sense(self, number: int) -> bool:
        """Whether a row can be read, if there is one."""
        return next(self._each(_BY_ID, (number,)), True) is not None

    def put(self, row: Row) -> None:
        """Write a row."""
        self._write(_PUT, row.columns, [])

    def put_mine(self, row: Row, me: int, finish: int, changed: list[int]) -> bool:
        """Write a row that is there already, as part of a finish; False if another program has taken it.

        Args:
            row: The row.
            me: Whose it is.
            finish: The number of the finish that it is part of there.
            changed: Gets an item when it is written, even if Ctrl-C comes just then.
        """
        self._write(_UPDATE, (*row.columns, row.id, me, finish), changed)
        return bool(changed)

    def drop(self, number: int, me: int | None = None) -> None:
        """Delete a row; given an owner, only if it is that one's."""
        if me is None:
            self._connection.execute(_DROP, (number,))
        else:
            self._connection.execute(_DROP_MINE, (number, me))

    def change(self, view: View) -> None:
        """Write what a rule changed."""
        for row in view.puts.values():
            self.put(row)
        for number in view.drops:
            self.drop(number)
        if view.reachable is False:
            self._connection.execute("INSERT OR REPLACE INTO outages VALUES (?, ?)", (view.address, view.now))
        elif view.reachable:
            self._connection.execute(_NO_OUTAGE, (view.address,))

    def settle(self, finish: Finish, how: str, now: float) -> None:
        """Delete the rows of a finish that Anymate has, and note it in the history, unless somebody has done so."""
        if sum(self._connection.execute(_DROP, (number,)).rowcount for number in finish.numbers):
            self._write(_NOTE, _line(finish, how, now), [])
        self._connection.execute(_NO_OUTAGE, (finish.rows[0].address,))

    def empty(self) -> None:
        """Delete everything."""
        for table in ("rows", "outages", "history"):
            self._connection.execute(f"DELETE FROM {table}")  # noqa: S608  # nothing of it comes from outside

    def forget_history(self, now: float) -> None:
        """Delete the oldest lines of the history."""
        self._connection.execute(
            "DELETE FROM history WHERE rowid < (SELECT rowid FROM history WHERE ended >= ? ORDER BY rowid LIMIT 1)",
            (now - _OLDEST,),
        )
        self._connection.execute(
            "DELETE FROM history WHERE rowid <= (SELECT max(rowid) FROM history) - ?", (_MOST_LINES,)
        )

    def history(self, since: float, process_key: str | None, most: int | None) -> list[tuple[Any, ...]]:
        """The lines of the history since a time, newest first, of a process or of all; all lines if `most` is None."""
        chosen = {"since": since, "process": process_key, "most": -1 if most is None else most}
        return self._connection.execute(_HISTORY, chosen).fetchall()

    def days(self, since: float, process_key: str | None) -> list[tuple[str, int, float]]:
        """The days of the same lines, newest first, each with the number of runs and the seconds saved."""
        return self._connection.execute(_DAYS, {"since": since, "process": process_key}).fetchall()

    def _write(self, statement: str, values: Sequence[object], changed: list[int]) -> None:
        try:  # by one call, in the midst of which no Ctrl-C comes
            changed.extend(filter(None, map(_rowcount, map(self._connection.execute, (statement,), (values,)))))
        except UnicodeEncodeError:  # half a surrogate in a failure's message, say: it holds up nothing else
            self._write(statement, [_writable(value) for value in values], changed)

    def _rows(self, statement: str, values: Sequence[object], most: int | None = None) -> list[Row]:
        return list(itertools.islice(filter(None, self._each(statement, values)), most))

    def _each(self, query: str, values: Sequence[object]) -> Iterator[Row | None]:
        """One row after the other; None for one that makes no sense."""
        if self._connection.execute(query.format("1"), values).fetchone() is None:
            return iter(())  # there mostly is none, and sqlite3 describes each column beforehand
        return map(Row.of, self._connection.execute(query.format(_COLUMNS), values))


def number_of(connection: sqlite3.Connection) -> int:
    """The number of the file, which has its tables after this.

    Raises:
        Newer: Another version has made it.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise Newer(f"its schema {version} is newer than {_VERSION}")
    if version == 0:
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("INSERT INTO file VALUES (?)", (new_id(),))
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    (number,) = connection.execute("SELECT number FROM file").fetchone()
    return int(number)


def _writable(value: object) -> object:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _line(finish: Finish, how: str, now: float) -> tuple[object, ...]:
    row, kpis = finish.rows[0], finish.kpis
    began = min(row.began for row in finish.rows)
    account = (row.address, row.username, row.process_key)
    return (*account, finish.run_id, began, now, finish.outcome, kpis.entries, kpis.seconds_saved, how)

"""What a rule sees of the journal in one transaction, what it changes there, and what a guard has claimed. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from anymate_guard._journal.rows import NO_ID, Finish, Row, RowTaken

if TYPE_CHECKING:  # by name only: rules read it, whatever it is, and write nothing
    from anymate_guard._journal.storage.tables import Tables

Place = tuple[float, int]  # of a row among those that are owed: when it began, and its id

BATCH = 32  # finishes claimed at once: others can't enter those processes meanwhile
BEGINNING: Place = (0.0, 0)


@dataclass(eq=False)
class View:
    """What a rule sees of the journal in one transaction, and what it changes there.

    Attributes:
        table: What is in the journal; each read is small, however much that is.
        address: Whose outages matter.
        me: This program's owner id.
        alive: Whether the program with an owner id, which has had a row since a time, runs.
        mine: Whether this program wants to have a row of its own id: others were left over by an interrupted write.
        written: Whether the journal held a row of this id, and it was this program's.
        now: Seconds since 1970.
        boot: When the machine was started.
        look: Whether it is time to look for programs that died.
        puts: The rows that the rule changed.
        drops: Those that it dropped.
        taken: Rows of this program that others have taken, as they believed it dead.
        reachable: What the rule noted about its address: True for an answer, False for none.
    """

    table: Tables
    address: str
    me: int
    alive: Callable[[int, float], bool]
    mine: Callable[[int], bool]
    written: Callable[[int], bool]
    now: float
    boot: float = 0.0
    look: bool = True
    puts: dict[int, Row] = field(default_factory=dict)
    drops: set[int] = field(default_factory=set)
    taken: set[int] = field(default_factory=set)
    reachable: bool | None = None
    _glance: tuple[bool, bool] | None = None
    _read: dict[tuple[str, str, int | None, int], list[Row]] = field(default_factory=dict)

    @property
    def outage(self) -> bool:
        """Whether the address was unreachable less than a minute ago."""
        return self._at_a_glance()[0]

    @property
    def owed(self) -> bool:
        """Whether something was owed to the address before this transaction, whoever's account it is."""
        return self._at_a_glance()[1]

    def _at_a_glance(self) -> tuple[bool, bool]:
        if self._glance is None:
            self._glance = self.table.glance(self.address, self.now)
        return self._glance

    def put(self, row: Row, **changes: Any) -> Row:
        """Change a row, or add it."""
        row = row.but(**changes) if changes else row
        self.puts[row.id] = row
        self.drops.discard(row.id)
        return row

    def drop(self, row: Row) -> None:
        """Delete a row."""
        self.puts.pop(row.id, None)
        self.drops.add(row.id)

    def rows_of(self, row: Row, *, itself: bool = True) -> list[Row]:
        """The rows of a row's process, as they are now; of what waits to be sent, those of its run.

        Args:
            row: Whose process and run.
            itself: Whether the row may be among them.
        """
        return self.current(self.written_of(row, NO_ID if itself else row.id))

    def written_of(self, row: Row, but_for: int = NO_ID) -> list[Row]:
        """The same rows, as the transaction found them, but for one."""
        place = (*row.process, row.run_id, but_for)
        rows = self._read.get(place)
        if rows is None:
            rows = self._read[place] = self.table.of_process(*place)
        return rows

    def current(self, rows: Iterable[Row]) -> list[Row]:
        """Rows that the transaction found, as they are now."""
        return [self.puts.get(row.id, row) for row in rows if row.id not in self.drops]

    def of_process(self, row: Row) -> list[Row]:
        """The rows of a row's process, without the row itself."""
        return self.rows_of(row, itself=False)

    def in_use(self, row: Row) -> bool:
        """Whether a live program is in the row's run, or about to start or finish it."""
        if self.mine(row.id):  # whatever another program has made of it, as it believed this one dead
            return True
        if row.state in {"done", "refused"}:
            return False
        return row.owner not in {0, self.me} and self.alive(row.owner, row.began)

    def check_not_taken(self, row: Row) -> None:
        """Raise `RowTaken` for a row of this program that another one has taken."""
        mine = self.table.is_mine(row.id, self.me, row.finish)
        if not mine and self.written(row.id) and self.table.makes_sense(row.id):
            raise RowTaken(row.id)

    def ours(self, finish: Finish) -> list[Row]:
        """The rows of a claimed finish, but for those that another program took, as it believed this one dead."""
        ours = [row for row in finish.rows if self.table.is_mine(row.id, self.me, row.finish)]
        self.taken |= finish.numbers - {row.id for row in ours}
        return ours


@dataclass(eq=False)
class Claims:
    """The rows that a guard has claimed, by their ids, so that they are given back however that ends.

    Attributes:
        rows: Those that it has claimed now.
        unsent: Those whose finish was not sent, for sure.
        tried: Those that it does not claim again.
        batch: How many finishes to claim at once.
        place: How far it has come among those that are owed.
        more: Whether there may be some after that.
    """

    rows: set[int] = field(default_factory=set)
    unsent: set[int] = field(default_factory=set)
    tried: set[int] = field(default_factory=set)
    batch: int = BATCH
    place: Place = BEGINNING
    more: bool = False

    def begin_anew(self) -> None:
        """Forget what stood in the way."""
        self.tried.clear()
        self.place = BEGINNING

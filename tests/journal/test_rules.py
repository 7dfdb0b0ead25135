"""What the rules say is what happens in the file, however few statements it takes."""

from __future__ import annotations

import copy
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anymate_guard._deadline import Deadline
from anymate_guard._journal.journal import Journal
from anymate_guard._journal.rules import Claims, Row, View

ADDRESS, USERNAME = "https://address", "mate"
MINE, NOBODY_S = 1, 0  # owners; a dead one left the latter behind

OTHERS = st.builds(
    Row,
    address=st.sampled_from([ADDRESS, ADDRESS, "https://elsewhere"]),
    username=st.just(USERNAME),
    process_key=st.sampled_from(["a", "b"]),
    run_id=st.sampled_from([None, 1, 2]),
    owner=st.sampled_from([MINE, MINE, NOBODY_S]),
    state=st.sampled_from(["starting", "open", "done", "finishing"]),
    entries=st.sampled_from([None, 3]),
    sent=st.booleans(),
    id=st.integers(1, 1000),
    at=st.floats(1, 9),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    others=st.lists(OTHERS, max_size=2, unique_by=(lambda row: row.id, lambda row: row.at)),
    operation=st.sampled_from([("enter", None), ("enter", 1), ("leave", 1), ("start_late", None)]),
    outage=st.sampled_from(["none", "old", "new"]),
)
def test_file_and_rules_agree(
    folder: Path, file: Path, others: list[Row], operation: tuple[str, int | None], outage: str
) -> None:
    """Entering and leaving do to the journal, and give back, what the rules say of all its rows."""
    journal, soon = Journal.at(folder), Deadline.after(10)
    journal.enter(Row(ADDRESS, USERNAME, "b"), Claims(), soon, settle=False)  # makes the file, and an owner of us
    me = journal._database.owner_id
    others = [attrs.evolve(row, owner=me if row.owner == MINE else 2**40 + 1) for row in others]
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("DELETE FROM rows")
        database.execute("DELETE FROM outages")
        database.executemany(f"INSERT INTO rows VALUES ({'?, ' * 11}?)", [row.values() for row in others])
        if outage != "none":
            database.execute("INSERT INTO outages VALUES (?, ?)", (ADDRESS, time.time() if outage == "new" else 0.0))

    name, run_id = operation
    mine = Row(ADDRESS, USERNAME, "a", run_id, me, "starting" if name == "enter" else "open", 5, id=5000, at=10.0)
    expected, result = _by_the_rules(others, copy.copy(mine), name, me, outage == "new")
    done = _by_the_journal(journal, mine, name)
    assert done == result
    assert {row.id: row for row, _ in journal.rows(soon)} == expected
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM outages").fetchone() == (1 if outage == "new" else 0,)


def _by_the_rules(others: list[Row], mine: Row, operation: str, me: int, outage: bool) -> tuple[dict[int, Row], object]:
    """The rows afterwards, and what the operation gives and claims."""
    account = [copy.copy(row) for row in others if row.account == mine.account]
    view, claims = View(sorted(account, key=lambda row: row.at), me, lambda owner: owner == me, outage=outage), Claims()
    operations: dict[str, Callable[[], object]] = {
        "enter": lambda: view.enter(mine, claims, settle=True),
        "leave": lambda: view.leave(mine, claims),
        "start_late": lambda: view.start_late(mine, claims),
    }
    result = operations[operation]()
    rows = {row.id: row for row in [*others, *view.changed]}
    return {number: row for number, row in rows.items() if row not in view.dropped}, (result, claims, mine.state)


def _by_the_journal(journal: Journal, mine: Row, operation: str) -> object:
    """What the operation gives and claims."""
    soon, claims = Deadline.after(10), Claims()
    operations: dict[str, Callable[[], object]] = {
        "enter": lambda: journal.enter(mine, claims, soon, settle=True),
        "leave": lambda: journal.leave(mine, claims, soon),
        "start_late": lambda: journal.start_late(mine, claims, soon),
    }
    return operations[operation](), claims, mine.state

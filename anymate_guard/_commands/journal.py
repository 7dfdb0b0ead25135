"""`anymate-guard journal`: what is open, what is owed and what was refused; its delivery, and what is given up."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Sequence

import attrs

from anymate_guard import AnymateClient, ConfigurationError, Settings
from anymate_guard._commands.log import Event, collected, told
from anymate_guard._commands.table import age, columns, duration, or_dash
from anymate_guard._commands.terminal import Paint, fitted, say, sign
from anymate_guard._guard.driver import settle_all
from anymate_guard._journal import contents
from anymate_guard._journal.journal import Journal
from anymate_guard._journal.journals import journal_at
from anymate_guard._journal.rows import Row, Unavailable

_COLOURS = {"open": "green", "owed": "yellow", "refused": "red", "maybe open": "yellow"}
_SHORT = 7  # digits of an id that are shown
_SHOWN = 100  # rows of a long journal
_TOGETHER = 4  # finishes that are delivered at once, over as many connections
_BAR = 30  # characters


@attrs.frozen
class Item:
    """A row, as people see it.

    Attributes:
        row: The row.
        state: "open" while a live program is in its run; "owed"; "refused"; "maybe open" where a program died while it
            started a run, or just after: it had recorded nothing yet.
    """

    row: Row
    state: contents.State

    @property
    def id(self) -> str:
        """What people call it, the beginning of which will do."""
        return f"{self.row.id:0{contents.DIGITS}x}"

    def facts(self) -> dict[str, object]:
        """What programs read of it."""
        row = self.row
        return {
            "id": self.id,
            "state": self.state,
            "processKey": row.process_key,
            "runId": row.run_id,
            "entries": row.entries,
            "secondsSaved": _seconds(row),
            "ageSeconds": round(max(0.0, time.time() - row.began), 3),
            "reason": row.reason,
            "address": row.address,
            "username": row.username,
        }


def show(*, as_json: bool) -> int:
    """Print a table, or JSON, of what the journal holds.

    Returns:
        The exit code: 0 if the journal could be read, else 1; 2 for a wrong setting.
    """
    troubles = collected()
    journal = _journal()
    if journal is None:
        return 2
    items, counts = look(journal, contents.ALL if as_json else _SHOWN)
    failed = _tell(troubles)
    if as_json:
        print(json.dumps([item.facts() for item in items], indent=2))
    elif items:
        _print(items)
        if more := counts.total() - len(items):
            print(f"{sign('…')} and {more} more; anymate-guard journal --json lists all")
    elif not failed:
        print(fitted(f"Nothing is open and nothing is owed in {journal.path}.", sys.stdout))
    return failed


def deliver(*, as_json: bool) -> int:
    """Send what is owed to the address and user of the settings.

    Returns:
        The exit code: 0 only if nothing is owed any more, to anybody, and nothing was refused; 2 for a wrong setting.
    """
    troubles = collected()
    try:
        settings = Settings.from_env()
    except ConfigurationError as error:
        say("journal", str(error))
        return 2
    journal = journal_at(settings.state_dir)
    delivered, left = deliver_all(settings, journal, Progress(troubles.counts))
    failed = _tell(troubles)
    owed = [item for item in left if item.state == "owed"]
    refused = [item for item in left if item.state == "refused"]
    if as_json:
        listed = {"owed": [item.facts() for item in owed], "refused": [item.facts() for item in refused]}
        print(json.dumps({"delivered": delivered, **listed}, indent=2))
    else:
        print(f"{delivered} delivered, {len(owed)} still owed" + (f", {len(refused)} refused" if refused else ""))
        if left:
            _print(left)
    return 1 if failed or left else 0


def drop(ids: Sequence[str], *, sure: bool) -> int:
    """Give up what is owed, or was refused: its KPIs are never credited.

    Args:
        ids: The beginnings of ids.
        sure: Whether nobody has to be asked.

    Returns:
        The exit code: 0 if all of them are gone, else 1; 2 for an id that is none.
    """
    troubles = collected()
    journal = _journal()
    if journal is None:
        return 2
    try:
        found = {name: contents.named(journal, name.lower()) for name in ids}
    except Unavailable:
        return _tell(troubles)
    for name, rows in found.items():
        if len(rows) != 1:
            say("journal", f"{name}: {'there is no such id' if not rows else 'more than one id begins like this'}")
            return 2
        if rows[0][1] == "open":
            say("journal", f"{name}: a program is in this run; it can't be dropped")
            return 1
    chosen = [Item(row, state) for row, state in dict(rows[0] for rows in found.values()).items()]
    if not sure and not _agreed(chosen):
        return 1
    gone = contents.drop(journal, [item.row.id for item in chosen])
    print(f"{len(gone)} dropped")
    return _tell(troubles) or int(len(gone) < len(chosen))


def look(journal: Journal, most: int) -> tuple[list[Item], Counter[contents.State]]:
    """What the journal holds, up to so many rows, and how many there are in each state.

    Where it can't be read it is nothing, and a warning.
    """
    try:
        rows, counts = contents.first_of(journal, most)
    except Unavailable:
        return [], Counter()
    return [Item(row, state) for row, state in rows], counts


def read(journal: Journal) -> list[Item]:
    """All that the journal holds; nothing, and a warning, where it can't be read."""
    return look(journal, contents.ALL)[0]


class Progress:
    """A line on a terminal: how many finishes are left, and when they will be delivered.

    Args:
        counts: How often there was each event so far.
    """

    def __init__(self, counts: Counter[str]) -> None:
        self.owed = 0
        self._counts = counts
        self._began = time.monotonic()

    def __call__(self) -> None:
        """Write the line anew."""
        done = self._counts["anymate.finish_delivered"]
        if not done or not sys.stderr.isatty():
            return
        left = max(0, self.owed - done)
        rest = left * (time.monotonic() - self._began) / done
        full = _BAR * done // (done + left)
        sys.stderr.write(f"\r{sign('█') * full}{sign('░') * (_BAR - full)} {left} left, done in {duration(rest)}\033[K")
        sys.stderr.flush()

    def close(self) -> None:
        """Take the line away."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def deliver_all(settings: Settings, journal: Journal, progress: Progress | None = None) -> tuple[int, list[Item]]:
    """Send what is owed; how many were delivered, and what is owed still or was refused now."""
    progress = progress or Progress(Counter())
    owed = {item.id for item in read(journal) if item.state == "owed"}
    progress.owed = len(owed)
    if owed and not settings.disabled:
        with contextlib.closing(progress), AnymateClient(settings) as client:
            settle_all(client, min(_TOGETHER, len(owed)), progress)
    left = [item for item in read(journal) if item.state == "owed" or (item.state == "refused" and item.id in owed)]
    return len(owed - {item.id for item in left}), left


def of_environment() -> Journal:
    """The journal that guards of this environment use; to look at it needs no credentials.

    Raises:
        ConfigurationError: A setting beside the credentials is wrong.
    """
    return journal_at(Settings.from_env({**os.environ, "ANYMATE_DISABLED": "1"}).state_dir)


def _journal() -> Journal | None:
    try:
        return of_environment()
    except ConfigurationError as error:
        say("journal", str(error))
        return None


def _tell(troubles: list[Event]) -> int:
    """Say what went wrong; 1 if the journal could not be used."""
    for line in dict.fromkeys(map(told, troubles)):
        say("journal", line)
    failed = any(event["event"] == "anymate.journal_unavailable" for event in troubles)
    troubles.clear()
    return int(failed)


def _agreed(items: Sequence[Item]) -> bool:
    if not sys.stdin.isatty():
        say("journal", "nothing was dropped: say --yes where nobody can be asked")
        return False
    _print(items)
    return input("Drop this? Its KPIs will never be credited. [y/N] ").strip().lower() in {"y", "yes"}


def _seconds(row: Row) -> float | None:
    return None if row.nanoseconds is None else row.nanoseconds / 1_000_000_000


def _print(items: Sequence[Item]) -> None:
    """One table for each account, with reasons under their rows."""
    now, paint = time.time(), Paint(sys.stdout)
    for account in sorted({(item.row.address, item.row.username) for item in items}):
        mine = [item for item in items if (item.row.address, item.row.username) == account]
        print(paint(f"{account[1]} at {account[0]}", "bold"))
        head, *lines = columns(
            [
                ("ID", "STATE", "PROCESS", "RUN", "ENTRIES", "TIME SAVED", "AGE"),
                *(
                    (
                        item.id[:_SHORT],
                        item.state,
                        item.row.process_key,
                        or_dash(item.row.run_id),
                        or_dash(item.row.entries),
                        duration(_seconds(item.row)),
                        age(now - item.row.began),
                    )
                    for item in mine
                ),
            ],
            right=(4, 5),
            elastic=2,
        )
        print(paint(head, "dim"))
        for item, line in zip(mine, lines, strict=True):
            print(line.replace(item.state, paint(item.state, _COLOURS[item.state]), 1))
            if item.row.reason:
                print(textwrap.fill(item.row.reason, 79, initial_indent="    ", subsequent_indent="    "))

"""`anymate-guard journal`: what is open, what is owed and what was refused; its delivery, and what is given up."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import NamedTuple

from anymate_guard import AnymateClient, Settings
from anymate_guard._commands.log import Event, collected, told
from anymate_guard._commands.table import age, columns, duration, or_dash
from anymate_guard._commands.terminal import Paint, fitted, quoted, say, sign
from anymate_guard._guard.driver import settle_all
from anymate_guard._journal import contents
from anymate_guard._journal.contents import Item
from anymate_guard._journal.journal import Journal
from anymate_guard._journal.journals import journal_at
from anymate_guard._journal.rows import Row, Unavailable

_COLOURS = {"open": "green", "owed": "yellow", "refused": "red", "maybe open": "yellow"}
_SHORT = 7  # digits of an id that are shown
_SHOWN = 100  # rows of a long journal
_TOGETHER = 4  # finishes that are delivered at once, over as many connections
_BAR = 30  # characters


def show(*, as_json: bool) -> int:
    """Print a table, or JSON, of what the journal holds.

    Returns:
        The exit code: 0 if the journal could be read, else 1.
    """
    troubles = collected()
    journal = of_environment()
    try:
        seen = contents.look(journal, None if as_json else _SHOWN)
    except Unavailable:
        return tell(troubles)
    if as_json:
        print(json.dumps(list(map(_facts, seen.items)), indent=2))
    elif seen.items:
        _print(seen.items, seen.counts.total())
    else:
        print(fitted(f"Nothing is open and nothing is owed in {journal.path}.", sys.stdout))
    if seen.senseless:
        say("journal", f"{journal.path}: {set_aside(seen.senseless)}")
    return tell(troubles)


def deliver(*, as_json: bool) -> int:
    """Send what is owed to the address and user of the settings.

    Returns:
        The exit code: 0 only if nothing is owed any more, to anybody, and nothing was refused.
    """
    troubles = collected()
    try:
        settings = Settings.from_env()
        done = deliver_all(settings, journal_at(settings.state_dir), None if as_json else _SHOWN)
    except Unavailable:
        return tell(troubles)
    failed = tell(troubles)
    if as_json:
        owed, refused = (list(map(_facts, items)) for items in (done.items, done.refused))
        print(json.dumps({"delivered": done.delivered, "owed": owed, "refused": refused}, indent=2))
    else:
        print(done)
        _print([*done.refused, *done.items][:_SHOWN], len(done.refused) + done.owed)
    return 1 if failed or done.owed or done.refused else 0


def drop(ids: Sequence[str], *, sure: bool) -> int:
    """Give up what is owed, or was refused: its KPIs are never credited.

    Args:
        ids: The beginnings of ids.
        sure: Whether nobody has to be asked.

    Returns:
        The exit code: 0 if all of them are gone, else 1; 2 for an id that is none.
    """
    troubles = collected()
    journal = of_environment()
    code = 1
    with contextlib.suppress(Unavailable):  # which is among the troubles
        code = _drop(journal, ids, sure=sure)
    return tell(troubles) or code


def _drop(journal: Journal, ids: Sequence[str], *, sure: bool) -> int:
    found = {name: contents.named(journal, name.lower()) for name in ids}
    for name, rows in found.items():
        if len(rows) != 1:
            problem = "more than one id begins like this" if rows else "there is no such id"
            say("journal", f"{quoted(name)}: {problem}")
            return 2
        if rows[0].state == "open":
            say("journal", f"{quoted(name)}: a program is in this run; it can't be dropped")
            return 1
    chosen = list(dict.fromkeys(rows[0] for rows in found.values()))
    if not sure and not _agreed(chosen):
        return 1
    gone = contents.drop(journal, [item.row.id for item in chosen])
    print(f"{len(gone)} dropped")
    return int(len(gone) < len(chosen))


def set_aside(senseless: int) -> str:
    """What people are told of rows that make no sense."""
    return (
        f"{senseless} {'row makes' if senseless == 1 else 'rows make'} no sense; nothing is sent for what is set aside"
    )


class Delivered(NamedTuple):
    """What a delivery came to.

    Attributes:
        delivered: How many rows Anymate has now.
        owed: How many are owed still.
        items: Those that are shown of them.
        refused: What was refused.
    """

    delivered: int
    owed: int
    items: list[Item]
    refused: list[Item]

    def __str__(self) -> str:
        refused = f", {len(self.refused)} refused" if self.refused else ""
        return f"{self.delivered} delivered, {self.owed} still owed{refused}"


class _Progress:
    """A line on a terminal: how many finishes are left, and when they will be delivered.

    Args:
        owed: How many there are at first.

    Attributes:
        delivered: How many were delivered so far.
    """

    def __init__(self, owed: int) -> None:
        self.delivered = 0
        self._owed = owed
        self._began = time.monotonic()

    def __call__(self, delivered: int) -> None:
        """Write the line anew."""
        self.delivered = delivered
        if not delivered or not sys.stderr.isatty():
            return
        left = max(0, self._owed - delivered)
        rest = left * (time.monotonic() - self._began) / delivered
        full = _BAR * delivered // (delivered + left)
        sys.stderr.write(f"\r{sign('█') * full}{sign('░') * (_BAR - full)} {left} left, done in {duration(rest)}\033[K")
        sys.stderr.flush()

    def close(self) -> None:
        """Take the line away."""
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def deliver_all(settings: Settings, journal: Journal, most: int | None) -> Delivered:
    """Send what is owed, and give up to so many rows that are owed still; None gives all.

    Raises:
        Unavailable: The journal can't be read.
    """
    owed, refused = contents.look(journal, 0).counts["owed"], contents.refused_in(journal)
    progress = _Progress(owed)
    if owed and not settings.disabled:
        threads = min(_TOGETHER, owed)
        with contextlib.closing(progress), AnymateClient(settings) as client:
            settle_all(client, threads, owed // threads, progress)
    left = contents.look(journal, most, only="owed")
    known = {item.id for item in refused}
    new = [item for item in contents.refused_in(journal) if item.id not in known]
    return Delivered(progress.delivered, left.counts["owed"], left.items, new)


def of_environment() -> Journal:
    """The journal that guards of this environment use; to look at it needs no credentials.

    Raises:
        ConfigurationError: A setting beside the credentials is wrong.
    """
    return journal_at(Settings.from_env({**os.environ, "ANYMATE_DISABLED": "1"}).state_dir)


def tell(troubles: list[Event], command: str = "journal") -> int:
    """Say what went wrong; 1 if the journal could not be used."""
    for line in dict.fromkeys(map(told, troubles)):
        say(command, line)
    failed = any(event["event"] == "anymate.journal_unavailable" for event in troubles)
    troubles.clear()
    return int(failed)


def _agreed(items: Sequence[Item]) -> bool:
    if not (sys.stdin and sys.stdin.isatty()):
        say("journal", "nothing was dropped: say --yes where nobody can be asked")
        return False
    _print(items, len(items))
    answer = ""
    with contextlib.suppress(EOFError):  # Ctrl-D
        answer = input("Drop this? Its KPIs will never be credited. [y/N] ")
    return answer.strip().lower() in {"y", "yes"}


def _seconds(row: Row) -> float | None:
    return None if row.nanoseconds is None else row.nanoseconds / 1_000_000_000


def _facts(item: Item) -> dict[str, object]:
    """What programs read of a row."""
    row = item.row
    return {
        "id": item.id,
        "state": item.state,
        "processKey": row.process_key,
        "runId": row.run_id,
        "entries": row.entries,
        "secondsSaved": _seconds(row),
        "ageSeconds": round(max(0.0, time.time() - row.began), 3),
        "reason": row.reason,
        "address": row.address,
        "username": row.username,
    }


def _print(items: Sequence[Item], count: int) -> None:
    """One table for each account, with reasons under their rows, and how many of all that is."""
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
    if more := count - len(items):
        print(f"{sign('…')} and {more} more; anymate-guard journal --json lists all")

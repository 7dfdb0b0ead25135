"""`anymate-guard journal`: what is open, what is owed, and its delivery."""

from __future__ import annotations

import json
import os

from anymate_guard import AnymateClient, ConfigurationError, Settings
from anymate_guard._commands.log import collected, told
from anymate_guard._commands.terminal import say
from anymate_guard._guard.driver import settle_all
from anymate_guard._journal.contents import rows_of
from anymate_guard._journal.journal import Journal
from anymate_guard._journal.rules import Row, Unavailable


def show(*, as_json: bool) -> int:
    """Print a table, or JSON, of what the journal holds.

    Returns:
        The exit code: 0 if the journal could be read.
    """
    troubles = collected()
    try:
        journal = of_environment()
    except ConfigurationError as error:
        say("journal", str(error))
        return 2
    opened, owed = read(journal)
    for trouble in troubles:
        say("journal", told(trouble))
    rows = [*(_facts(row, "open") for row in opened), *(_facts(row, "owed") for row in owed)]
    if as_json:
        print(json.dumps(rows, indent=2))
    elif not troubles:
        _print_table(rows) if rows else print(f"Nothing is open and nothing is owed, says {journal.path}.")
    return 1 if troubles else 0


def deliver() -> int:
    """Send what is owed to the address and user of the settings.

    Returns:
        The exit code: 0 only if nothing is owed any more, to anybody.
    """
    troubles = collected()
    try:
        settings = Settings.from_env()
    except ConfigurationError as error:
        say("journal", str(error))
        return 2
    journal = Journal.at(settings.state_dir)
    _, owed = read(journal)
    before = len(owed)
    if not settings.disabled:
        _deliver(settings, journal, before)
    _, left = read(journal)
    for line in dict.fromkeys(map(told, troubles)):
        say("journal", line)
    print(f"{before - len(left)} settled, {len(left)} still owed")
    for address, user in sorted({(row.address, row.username) for row in left}):
        print(f"  owed to {address} by {user}")
    return 1 if left or any(event["event"] == "anymate.journal_unavailable" for event in troubles) else 0


def of_environment() -> Journal:
    """The journal that guards of this environment use; to look at it needs no credentials.

    Raises:
        ConfigurationError: A setting beside the credentials is wrong.
    """
    return Journal.at(Settings.from_env({**os.environ, "ANYMATE_DISABLED": "1"}).state_dir)


def read(journal: Journal) -> tuple[list[Row], list[Row]]:
    """What is open, and what is owed: rows of runs that no live program is in."""
    try:
        rows = rows_of(journal)
    except Unavailable:  # a warning tells of it
        return [], []
    in_use = {_run(row) for row, used in rows if used}
    opened = [row for row, _ in rows if _run(row) in in_use]
    begun = [row for row, _ in rows if row.state != "starting"]  # else the body never ran
    owed = [row for row in begun if _run(row) not in in_use]
    return opened, owed


def _deliver(settings: Settings, journal: Journal, owed: int) -> None:
    """Settle as long as that gets somewhere: one round ends with the deadline."""
    with AnymateClient(settings) as client:
        while owed and not settle_all(client):
            _, left = read(journal)
            if len(left) >= owed:
                return
            owed = len(left)


def _run(row: Row) -> tuple[object, ...]:
    return row.address, row.username, row.run_id or -row.id


def _facts(row: Row, state: str) -> dict[str, object]:
    return {
        "state": state,
        "processKey": row.process_key,
        "runId": row.run_id,
        "entries": row.entries,
        "secondsSaved": None if row.nanoseconds is None else row.nanoseconds / 1_000_000_000,
        "address": row.address,
        "username": row.username,
    }


def _print_table(rows: list[dict[str, object]]) -> None:
    lines = [["–" if value is None else str(value) for value in row.values()] for row in rows]
    table = [list(rows[0]), *lines]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())

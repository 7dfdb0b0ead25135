"""`anymate-guard history`: the finished runs of this machine."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from anymate_guard._commands import journal
from anymate_guard._commands.log import collected
from anymate_guard._commands.table import columns, duration, or_dash
from anymate_guard._commands.terminal import Paint, say, sign
from anymate_guard._journal.contents import Day, Line, history_of
from anymate_guard._journal.rows import Unavailable

_UNITS = {"min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_BAR = 40
_SHOWN = 1000  # lines of a long history
_COLOURS = {"succeeded": "green", "failed": "red", "interrupted": "yellow"}


def moment(text: str) -> float:
    """The time that `--since` names, in seconds since 1970: `7d` ago, or the beginning of `2026-11-01`."""
    if ago := re.fullmatch(r"(\d{1,6})(min|h|d|w)", text.strip()):
        return time.time() - int(ago[1]) * _UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be like 30min, 12h, 7d, 4w or 2026-11-01, got {text!r}") from None


def history(since: float, process_key: str | None, *, as_json: bool) -> int:
    """Print the finished runs, newest first.

    Args:
        since: From when on, in seconds since 1970.
        process_key: Of which process; None prints all.
        as_json: Whether to print JSON.

    Returns:
        The exit code: 0 if the journal could be read, else 1.
    """
    troubles = collected()
    try:
        book = journal.of_environment()
        lines, days, senseless = history_of(book, since, process_key, None if as_json else _SHOWN)
    except Unavailable:
        return journal.tell(troubles, "history")
    if as_json:
        print(json.dumps([_facts(line) for line in lines], indent=2))
    elif lines:
        _print(lines)
        if (more := sum(day.runs for day in days) - len(lines) - senseless) > 0:
            print(f"{sign('…')} and {more} more; a later --since, --process or --json shows them")
        _print_days(days)
    else:
        print("No run has finished since then.")
    if senseless:
        say("history", f"{senseless} of the runs make no sense, as somebody has changed them, and are left out")
    return journal.tell(troubles, "history")


def _facts(line: Line) -> dict[str, object]:
    facts = asdict(line)
    return {
        "processKey": facts["process_key"],
        "runId": facts["run_id"],
        "began": _utc(line.began),
        "ended": _utc(line.ended),
        **{name: facts[name] for name in ("outcome", "entries")},
        "secondsSaved": facts["seconds_saved"],
        **{name: facts[name] for name in ("delivered", "address", "username")},
    }


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _print(lines: Sequence[Line]) -> None:
    paint = Paint(sys.stdout)
    head, *texts = columns(
        [
            ("FINISHED", "PROCESS", "RUN", "OUTCOME", "ENTRIES", "TIME SAVED"),
            *(
                (
                    time.strftime("%Y-%m-%d %H:%M", time.localtime(line.ended)),
                    line.process_key,
                    or_dash(line.run_id),
                    line.outcome,
                    or_dash(line.entries),
                    duration(line.seconds_saved),
                )
                for line in lines
            ),
        ],
        right=(4, 5),
        elastic=1,
    )
    print(paint(head, "dim"))
    for line, text in zip(lines, texts, strict=True):
        before, outcome, after = text.rpartition(line.outcome)
        print(f"{before}{paint(outcome, _COLOURS[line.outcome])}{after}")


def _print_days(days: Sequence[Day]) -> None:
    """On a terminal, a bar of the time saved on each day."""
    paint = Paint(sys.stdout)
    if not paint.terminal:
        return
    most = max(day.seconds_saved for day in days) or 1
    print()
    for day in days:
        bar = sign("█") * round(_BAR * day.seconds_saved / most)
        print(f"{day.date}  {paint(bar, 'green')} {duration(day.seconds_saved)}")

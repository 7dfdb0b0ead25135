"""`anymate-guard history`: the finished runs of this machine."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox

from .support import ended, needs_sh, repeated

pytestmark = needs_sh


def finish(key: str, script: str) -> None:
    """Finish a run."""
    ended("exec", key, "--", "sh", "-c", script)


def shown(text: str) -> list[str]:
    """Lines, with one space between columns, T for a time and N for a run."""
    text = re.sub(r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d", "T", text)
    return [" ".join(line.split()) for line in re.sub(r"\b\d{5,}\b", "N", text).splitlines()]


def test_runs(sandbox: Sandbox) -> None:
    """Finished runs are listed, newest first, with outcome and KPIs; a dash is Anymate's default."""
    finish("jobs", "echo entries=240 >> $ANYMATE_KPI_FILE; echo seconds_saved=25810 >> $ANYMATE_KPI_FILE")
    finish("mails", "exit 3")
    done = ended("history")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert shown(done.stdout) == [
        "FINISHED PROCESS RUN OUTCOME ENTRIES TIME SAVED",
        "T mails N failed – –",
        "T jobs N succeeded 240 7 h 10 min",
    ]
    assert [line.split()[1] for line in shown(ended("history", "--process", "jobs").stdout)] == ["PROCESS", "jobs"]


def test_json(sandbox: Sandbox) -> None:
    """`--json` has the same and more for programs."""
    finish("jobs", "echo entries=3 >> $ANYMATE_KPI_FILE")
    (line,) = json.loads(ended("history", "--json").stdout)
    times = [line.pop(name) for name in ("began", "ended")]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time in times)
    assert line == {
        "processKey": "jobs",
        "runId": sandbox.runs()[0]["runId"],
        "outcome": "succeeded",
        "entries": 3,
        "secondsSaved": None,
        "delivered": "delivered",
        "address": sandbox.url,
        "username": "mate@sandbox",
    }


def test_long_history(sandbox: Sandbox) -> None:
    """Of a long history the list shows the newest thousand runs, and how many more there are; JSON has all."""
    finish("jobs", "echo seconds_saved=3600 >> $ANYMATE_KPI_FILE")
    (run,) = json.loads(ended("history", "--json").stdout)
    now = time.time()
    repeated("history", "jobs", 1200, "ended", lambda number: now - 60 * number)
    done = ended("history")
    assert len(done.stdout.splitlines()) == 1002
    assert done.stdout.endswith("… and 200 more; a later --since, --process or --json shows them\n")
    assert shown(done.stdout)[1] == "T jobs N succeeded – 1 h"
    lines = json.loads(ended("history", "--json").stdout)
    assert len(lines) == 1200
    assert lines[0]["runId"] == run["runId"]


@pytest.mark.parametrize(("since", "found"), [("1min", 1), ("7d", 1), ("2020-01-01", 1), ("2999-01-01T12:00", 0)])
def test_since(sandbox: Sandbox, since: str, found: int) -> None:
    """`--since` takes a time ago, or a date."""
    finish("jobs", "exit 0")
    assert len(json.loads(ended("history", "--json", "--since", since).stdout)) == found


def test_damaged_journal(sandbox: Sandbox) -> None:
    """A journal that is moved aside, as it is damaged, is told of: what was in it is not what never was."""
    finish("jobs", "true")
    file = Path(os.environ["ANYMATE_STATE_DIR"], "journal.sqlite3")
    file.write_bytes(b"no database" * 1000)
    done = ended("history")
    assert (done.returncode, done.stdout) == (1, "No run has finished since then.\n")
    assert done.stderr.startswith("anymate-guard history: journal unavailable: ")
    assert "moved" in done.stderr


@pytest.mark.parametrize(
    "change",
    [
        "ended = 'y'",
        "ended = 1e300",
        "began = NULL",
        "outcome = 'odd'",
        "process_key = NULL",
        "process_key = 'a' || char(27)",
        "entries = 'many'",
        "seconds_saved = 9e999",
        "username = x'ff'",
    ],
)
def test_line_that_makes_no_sense(sandbox: Sandbox, change: str) -> None:
    """A line that somebody has made a mess of does not hide the others."""
    finish("jobs", "true")
    finish("mails", "true")
    with closing(sqlite3.connect(Path(os.environ["ANYMATE_STATE_DIR"], "journal.sqlite3"))) as other, other:
        other.execute(f"UPDATE history SET {change} WHERE process_key = 'mails'")
    done = ended("history")
    assert shown(done.stdout)[1:] == ["T jobs N succeeded – –"]
    assert done.stderr.startswith("anymate-guard history: 1 of the runs make no sense, ")
    assert [line["processKey"] for line in json.loads(ended("history", "--json").stdout)] == ["jobs"]


def test_wrong_process(sandbox: Sandbox) -> None:
    """What can be no process key is refused, and not taken for trouble with the journal."""
    done = ended("history", "--process", "..")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("anymate-guard history: --process: '..' would name another path")


def test_nothing(sandbox: Sandbox) -> None:
    """Where no run was finished it says so."""
    done = ended("history")
    assert (done.returncode, done.stdout) == (0, "No run has finished since then.\n")


@pytest.mark.parametrize("since", ["soon", "7", "-1d", "2026-13-01"])
def test_wrong_since(since: str) -> None:
    """A time that can't be read is refused, with examples."""
    done = ended("history", f"--since={since}")
    assert done.returncode == 2
    assert f"must be like 30min, 12h, 7d, 4w or 2026-11-01, got '{since}'" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_terminal(sandbox: Sandbox) -> None:
    """In a terminal of 80 columns outcomes have colours, and each day a bar of the time saved."""
    from tests.support.screen import screen

    finish("jobs", "echo seconds_saved=25810 >> $ANYMATE_KPI_FILE")
    with screen("history") as terminal:
        assert terminal.ended() == 0
    assert "green" in terminal.colours
    assert re.fullmatch(r"\d{4}-\d\d-\d\d  █{40} 7 h 10 min", terminal.lines[-1])
    with screen("history", NO_COLOR="1") as terminal:
        assert terminal.ended() == 0
    assert terminal.colours == set()

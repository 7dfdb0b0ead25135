"""The command line as a process, and what it left behind."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST

needs_sh = pytest.mark.skipif(shutil.which("sh") is None, reason="types for a POSIX shell; tests/windows does for cmd")
COMMAND = (sys.executable, "-m", "anymate_guard")


def ended(*arguments: str | os.PathLike[str], stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a command of `anymate-guard` to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environ},
        capture_output=True,
        encoding="utf-8",
        timeout=LONGEST,
        check=False,
    )


@contextmanager
def started(*arguments: str | os.PathLike[str], **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command of `anymate-guard`, away from the terminal of whoever runs the tests."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def journal(**environ: str) -> list[dict[str, Any]]:
    """What the journal holds."""
    rows: list[dict[str, Any]] = json.loads(ended("journal", "--json", **environ).stdout)
    return rows


def repeated(table: str, key: str, times: int, column: str, value: Callable[[int], object]) -> None:
    """Repeat the row of a process in a table of the journal, as many guards would, with other values in a column."""
    file = os.path.join(os.environ["ANYMATE_STATE_DIR"], "journal.sqlite3")  # noqa: PTH118
    with closing(sqlite3.connect(file)) as connection, connection:
        cursor = connection.execute(f"SELECT * FROM {table} WHERE process_key = ?", (key,))
        names = [name for name, *_ in cursor.description]
        row = dict(zip(names, cursor.fetchone(), strict=True))
        connection.executemany(
            f"INSERT INTO {table} VALUES ({', '.join(f':{name}' for name in names)})",
            ({**row, column: value(number)} for number in range(1, times)),
        )


def recorded(sandbox: Sandbox) -> list[tuple[int | None, int | None]]:
    """The overrides of all runs; every one of them is finished."""
    runs = sandbox.runs()
    assert all(run["finished"] for run in runs)
    return [(run["overwriteEntries"], run["overwriteSecondsSaved"]) for run in runs]


def under_way(sandbox: Sandbox, operation: str) -> bool:
    """Whether a call has come in that is not answered yet."""
    return any(request["operation"] == operation and request["status"] is None for request in sandbox.requests())

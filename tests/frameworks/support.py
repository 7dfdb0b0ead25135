"""Programs of a page of the documentation, and what became of their runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from anymate_guard.sandbox import Sandbox

PLACES = Path(__file__).parents[2] / "docs" / "places"
LIMIT = 90.0  # seconds that anything here may take
INSIDE = Path("inside")  # here a bot puts its process's id when it is in its guard
GO_ON = Path("go-on")  # and waits for this one
WAIT = """
import os, pathlib, time
pathlib.Path("inside.new").write_text(str(os.getpid()))
pathlib.Path("inside.new").rename("inside")
while not pathlib.Path("go-on").exists():
    time.sleep(0.02)
"""

_PROGRAM = re.compile(r"^```python\n# (?P<name>\w+\.py)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ (.*)$", re.MULTILINE)


def programs(page: str) -> dict[str, str]:
    """The programs of a page, by their names."""
    text = (PLACES / page).read_text(encoding="utf-8")
    return {match["name"]: match["text"] for match in _PROGRAM.finditer(text)}


def command(page: str, start: str) -> str:
    """The command line of a page that starts like this."""
    (line,) = (line for line in _COMMAND.findall((PLACES / page).read_text(encoding="utf-8")) if line.startswith(start))
    return str(line)


def replace(program: str, old: str, new: str) -> None:
    """Change a program of a page in one place."""
    text = Path(program).read_text(encoding="utf-8")
    assert text.count(old) == 1
    Path(program).write_text(text.replace(old, new), encoding="utf-8")


def wait_after(program: str, line: str, depth: int = 4) -> None:
    """Let a program of a page wait after one of its lines, in a body that is indented so far."""
    replace(program, line, line + textwrap.indent(WAIT, " " * depth))


def until(condition: Callable[[], object], seconds: float = LIMIT) -> None:
    """Look again and again until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.02)


@contextmanager
def started(*words: str | os.PathLike[str], shell: str = "", **environ: str) -> Iterator[subprocess.Popen[str]]:
    """A program in the current folder, in a session of its own, of which nothing is left afterwards."""
    process = subprocess.Popen(
        ["sh", "-c", f"exec {shell}"] if shell else words,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def done(*words: str | os.PathLike[str], shell: str = "", status: int = 0, **environ: str) -> str:
    """What a program printed that ran to its end."""
    with started(*words, shell=shell, **environ) as process:
        output = process.communicate(timeout=LIMIT)[0]
        assert process.returncode == status, output
    return output


def python(text: str, *, status: int = 0, **environ: str) -> str:
    """Run a program of Python's to its end, from a file of its own."""
    Path("bot.py").write_text(text, encoding="utf-8")
    return done(sys.executable, "bot.py", status=status, **environ)


def journaled(folder: Path | None = None) -> bool:
    """Whether the journal, in that folder or the test's own, has what a bot recorded."""
    folder = folder or Path(os.environ["ANYMATE_STATE_DIR"])
    rows = json.loads(done(sys.executable, "-m", "anymate_guard", "journal", "--json", ANYMATE_STATE_DIR=str(folder)))
    return any(row["entries"] for row in rows)


def kill_inside() -> None:
    """Kill the bot that is in its guard, once the journal has what it recorded."""
    until(INSIDE.exists)
    until(journaled)
    os.kill(int(INSIDE.read_text()), signal.SIGKILL)


def runs(sandbox: Sandbox) -> list[tuple[str, int | None, int | None]]:
    """Process, entries and seconds saved of every run; all of them have to be finished."""
    found = sandbox.runs()
    assert all(run["finished"] for run in found), found
    return sorted((run["processKey"], run["overwriteEntries"], run["overwriteSecondsSaved"]) for run in found)


def finished(sandbox: Sandbox, count: int = 1) -> bool:
    """Whether there are so many runs, all finished."""
    return [run["finished"] for run in sandbox.runs()] == [True] * count

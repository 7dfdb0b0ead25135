"""Bots that run as processes of their own, and what a test asks of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from anymate_guard._journal.contents import rows_of
from anymate_guard._journal.journals import journal_at
from anymate_guard._journal.rows import Row
from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST

# For bots that fork beside threads of their own; and on Python 3.13, which at first looks for threads only after the
# hook that starts ours again (python/cpython#137109).
FORK_IS_MEANT = {"PYTHONWARNINGS": "ignore:This process:DeprecationWarning"}
LATE_TO_LOOK = sys.version_info[:2] == (3, 13)

PRELUDE = """
import asyncio, multiprocessing, os, signal, sys, threading, time
from anymate_guard import NoCurrentRun, anymate_run, current_run

def say(*words):
    print(*words, flush=True)

def fork():
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)

# In steps: Python sees a signal that comes just before a sleep only when that ends.
def wait():
    say("inside")
    while True:
        time.sleep(0.1)

async def idle():
    while True:
        await asyncio.sleep(0.1)
"""


class Bot:
    """A program that runs; its text follows a prelude of imports."""

    def __init__(self, text: str, wrapper: Sequence[str] = (), **environ: str) -> None:
        """Start it, by another command perhaps, and with more environment variables if any are given."""
        program = PRELUDE + textwrap.dedent(text)
        self._process = subprocess.Popen(
            [*wrapper, sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(FORK_IS_MEANT if LATE_TO_LOOK else {}), **environ},
            start_new_session=True,
        )
        self.pid = self._process.pid

    def until(self, word: str) -> None:
        """Wait until it says something."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == word:
                return
        raise AssertionError(f"it never said {word}: {self.end()}")

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it, so that it can't do anything about it."""
        self._process.kill()

    def go_on(self) -> None:
        """Send it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: exit status, what else it said, its stderr."""
        said, complained = self._process.communicate(timeout=LONGEST)
        return self._process.returncode, said, complained

    def dead(self) -> None:
        """Wait until it is dead, though not for its children."""
        self._process.wait(LONGEST)

    def abandon(self) -> None:
        """Take no more interest in it, and leave its children alone."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def stop(self) -> None:
        """Kill it, and the children that it left behind."""
        if sys.platform == "win32":
            self._process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.communicate()


@contextmanager
def running(text: str, wrapper: Sequence[str] = (), **environ: str) -> Iterator[Bot]:
    """A bot that is gone afterwards."""
    bot = Bot(text, wrapper, **environ)
    try:
        yield bot
    finally:
        bot.stop()


def run(text: str, **environ: str) -> tuple[int, str, str]:
    """Run a bot to its end."""
    with running(text, **environ) as bot:
        return bot.end()


def asked(sandbox: Sandbox, operation: str, times: int = 1) -> Callable[[], bool]:
    """Whether the sandbox was asked for an operation that often."""
    return lambda: [request["operation"] for request in sandbox.requests()].count(operation) >= times


def rows() -> list[tuple[Row, bool]]:
    """What is in the journal of this test, and whether its owners are alive."""
    return rows_of(journal_at(Path(os.environ["ANYMATE_STATE_DIR"])))


def finished(sandbox: Sandbox) -> list[tuple[int | None, int | None]]:
    """Entries and seconds saved of every run; all of them have to be finished, and the journal empty."""
    runs = sandbox.runs()
    assert [run["finished"] for run in runs] == [True] * len(runs)
    assert rows() == []
    return [(run["overwriteEntries"], run["overwriteSecondsSaved"]) for run in runs]


def children(pid: int) -> list[int]:
    """The children of a process."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


TERMINATED = 128 + signal.SIGTERM

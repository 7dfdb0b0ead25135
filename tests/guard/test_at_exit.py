"""Guards in code that runs when the interpreter is on its way out."""

from __future__ import annotations

import subprocess
import sys

import pytest

from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST

SYNC = """
import atexit
from anymate_guard import anymate_run

@anymate_run("invoice-intake")
def last_words():
    print("body ran")

atexit.register(last_words)
"""

ASYNC = """
import asyncio, atexit
from anymate_guard import anymate_run

@anymate_run("invoice-intake")
async def last_words():
    print("body ran")

@anymate_run("invoice-intake")
async def refused():
    raise ValueError("flawed")

def leave():
    asyncio.run(last_words())
    try:
        asyncio.run(refused())
    except ValueError:
        print("and failed")

atexit.register(leave)
"""


@pytest.mark.parametrize(("program", "said"), [(SYNC, "body ran\n"), (ASYNC, "body ran\nand failed\n")])
def test_guard_in_an_atexit_handler(sandbox: Sandbox, program: str, said: str) -> None:
    """A guard entered when no new thread can be started any more starts and finishes its run, without a traceback."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONGEST, check=True)
    assert (done.stdout, done.stderr) == (said, "")
    assert [run["finished"] for run in sandbox.runs()] == [True] * said.count("\n")


UNREACHABLE = """
import asyncio, atexit
from anymate_guard import UnreachableError, anymate_run

@anymate_run("invoice-intake", require_start=True)
async def last_words():
    print("body ran")

def leave():
    try:
        asyncio.run(last_words())
    except UnreachableError:
        print("no run, no work")

atexit.register(leave)
"""


def test_required_start_in_an_atexit_handler(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What entering raises comes out where no new thread can be started, too."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "0.3")
    sandbox.close()
    done = subprocess.run(
        [sys.executable, "-c", UNREACHABLE], capture_output=True, text=True, timeout=LONGEST, check=True
    )
    assert done.stdout == "no run, no work\n"

"""gevent, trio and uvloop: guards under other loops than Python's own."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox

from .conftest import Page
from .support import INSIDE, done, journaled, programs, python, runs, started, until

PAGE = "threads-and-signals.md"
GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent, os, subprocess, sys, time
from anymate_guard import anymate_run
"""


def test_gevent(sandbox: Sandbox) -> None:
    """Greenlets that are in guards at the same time record into runs of their own."""
    python(
        GEVENT
        + """
def work(number):
    with anymate_run(f"process-{number}") as run:
        gevent.sleep(0.01)
        run.add_entries(number)

gevent.joinall([gevent.spawn(work, number) for number in range(5)], raise_error=True)
"""
    )
    assert runs(sandbox) == [(f"process-{number}", number, None) for number in range(5)]


def test_programs_started_under_gevent(sandbox: Sandbox) -> None:
    """A fork or a program that is started within a guard costs no waiting for a thread that is none."""
    output = python(
        GEVENT
        + """
def work():
    with anymate_run("k") as run:
        for _ in range(3):
            subprocess.run([sys.executable, "-c", ""], check=True)
            if (child := os.fork()) == 0:
                os._exit(0)
            os.waitpid(child, 0)
            run.add_entries()

begun = time.process_time()
gevent.spawn(work).get()
print(time.process_time() - begun)
"""
    )
    assert float(output.split()[-1]) < 2, "six forks were busy waiting"
    assert runs(sandbox) == [("k", 3, None)]


def test_a_greenlet_is_killed(sandbox: Sandbox) -> None:
    """A greenlet that is killed was interrupted: its run is finished, and nobody is told of a failure."""
    output = python(
        GEVENT
        + """
import logging
logging.basicConfig(level="INFO")

inside = gevent.event.Event()

def work():
    with anymate_run("k", report_failure=True) as run:
        run.add_entries(3)
        inside.set()
        gevent.sleep(60)

greenlet = gevent.spawn(work)
inside.wait()
greenlet.kill()
"""
    )
    assert "outcome=interrupted" in output
    assert runs(sandbox) == [("k", 3, None)]
    assert sandbox.failures() == []


def test_a_greenlet_is_stopped(sandbox: Sandbox) -> None:
    """With the page's line for SIGTERM, a guard in a greenlet is finished when the program ends."""
    lines = [line.strip() for line in programs(PAGE)["threads_bot.py"].splitlines() if "signal" in line]
    Path("bot.py").write_text(
        GEVENT
        + "\n".join(lines)
        + """

def work():
    with anymate_run("k") as run:
        run.add_entries(3)
        open("inside", "w").close()
        gevent.sleep(60)

gevent.spawn(work).join()
"""
    )
    with started(sys.executable, "bot.py") as bot:
        until(INSIDE.exists)
        bot.send_signal(signal.SIGTERM)
        output = bot.communicate(timeout=60)[0]
        assert bot.returncode == 143, output
    assert runs(sandbox) == [("k", 3, None)]


def test_trio(sandbox: Sandbox, page: Page) -> None:
    """`with` does under trio what it does elsewhere."""
    page(PAGE)
    done(sys.executable, "trio_bot.py")
    assert runs(sandbox) == [("invoice-intake", 3, None)]


@pytest.mark.parametrize(
    "text",
    [
        "async def main():\n    async with anymate_run('k') as run:\n        run.add_entries()",
        "@anymate_run('k')\nasync def main():\n    pass",
    ],
    ids=["block", "function"],
)
def test_async_with_under_trio(sandbox: Sandbox, text: str) -> None:
    """`async with` and a decorated coroutine are refused under trio, before anything is sent."""
    output = python(f"import trio\nfrom anymate_guard import anymate_run\n{text}\ntrio.run(main)", status=1)
    last = output.strip().splitlines()[-1]
    assert "needs asyncio" in last
    assert "`with`" in last
    assert sandbox.requests() == []


def test_trio_cancels(sandbox: Sandbox) -> None:
    """A block that trio cancelled was interrupted, and nobody is told of a failure."""
    output = python(
        """
import logging, trio
from anymate_guard import anymate_run

logging.basicConfig(level="INFO")

async def main():
    with trio.move_on_after(0.1):
        with anymate_run("k", report_failure=True) as run:
            run.add_entries(3)
            await trio.sleep(60)

trio.run(main)
"""
    )
    assert "outcome=interrupted" in output
    assert runs(sandbox) == [("k", 3, None)]
    assert sandbox.failures() == []


UVLOOP = """
import asyncio, uvloop
from anymate_guard import anymate_run

async def work(number):
    async with anymate_run(f"process-{number}") as run:
        run.add_entries(number)

async def main():
    await asyncio.gather(*(work(number) for number in range(5)))

uvloop.run(main())
"""
STOPPED = """
import asyncio, uvloop
from anymate_guard import anymate_run, current_run

@anymate_run("k")
async def main():
    current_run().add_entries(3)
    open("inside", "w").close()
    await asyncio.sleep(60)

uvloop.run(main())
"""


def test_uvloop(sandbox: Sandbox) -> None:
    """Tasks under uvloop record into runs of their own."""
    python(UVLOOP)
    assert runs(sandbox) == [(f"process-{number}", number, None) for number in range(5)]


def test_uvloop_is_stopped(sandbox: Sandbox) -> None:
    """SIGTERM cancels a guarded coroutine under uvloop; its run is finished, and the status is 143."""
    with started(sys.executable, "-c", STOPPED) as bot:
        until(INSIDE.exists)
        bot.send_signal(signal.SIGTERM)
        output = bot.communicate(timeout=60)[0]
        assert bot.returncode == 143, output
    assert runs(sandbox) == [("k", 3, None)]


def test_a_thread_is_stopped(sandbox: Sandbox, page: Page) -> None:
    """With the page's line for SIGTERM, a guard in a daemon thread is finished when the program ends."""
    page(PAGE)
    with started(sys.executable, "threads_bot.py") as bot:
        until(journaled)
        bot.send_signal(signal.SIGTERM)
        output = bot.communicate(timeout=60)[0]
        assert bot.returncode == 143, output
    assert runs(sandbox) == [("invoice-intake", 3, None)]

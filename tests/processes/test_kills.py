"""Bots killed at random moments, a hundred times and more: nothing is lost, and nothing is credited twice."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox

from .bots import Bot, asked, finished, rows, run, until

SEED = 20_251
KILLS = 110
AT_ONCE = 3
KEYS = ["a", "b", "c"]

# Counts entries as fast as it is asked to, and notes each in a file of its own before it tells the guard: what is noted
# is at least what was counted. Some leave a child behind.
TEXT = """
import random

noted = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
choice = random.Random(sys.argv[1])
say("up")
while True:
    with anymate_run(sys.argv[2]) as run:
        if choice.random() < 0.1:
            if os.fork() == 0:
                time.sleep(2)
                os._exit(0)
        for _ in range(choice.randint(0, 30)):
            os.write(noted, b"%.6f\\n" % time.time())
            run.add_entries()
            time.sleep(choice.random() * 0.02)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


def test_kills(sandbox: Sandbox, tmp_path: Path) -> None:
    """After kills at random moments every run is finished, with all that was counted a second before, and no more."""
    sys.stdout.write(f"seed {SEED}, {KILLS} kills\n")
    choice = random.Random(SEED)
    delays = [choice.uniform(1.3, 2.6) if choice.random() < 0.3 else choice.uniform(0, 0.5) for _ in range(KILLS)]
    slow = threading.Event()
    weather = threading.Thread(target=_slow_down, args=(sandbox, slow))
    weather.start()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        counted = list(pool.map(lambda number: _killed(number, delays[number], tmp_path), range(KILLS)))
    slow.set()
    weather.join()
    for key in KEYS:
        assert run(f"with anymate_run({key!r}): pass")[0] == 0
    total = sum(entries or 0 for entries, _ in finished(sandbox))
    least, most = sum(sure for sure, _ in counted), sum(all_of_it for _, all_of_it in counted)
    sys.stdout.write(f"{len(sandbox.runs())} runs; credited {total}, at least {least}, at most {most}\n")
    assert KILLS < least <= total <= most


def _killed(number: int, delay: float, folder: Path) -> tuple[int, int]:
    """Start a bot and kill it; what it had counted a second before, and in all."""
    notes = folder / f"notes{number}"
    bot = Bot(TEXT, arguments=[str(notes), KEYS[number % len(KEYS)]])
    try:
        bot.until("up")
        time.sleep(delay)
        os.kill(bot.pid, signal.SIGKILL)
        killed_at = time.time()
        bot.dead()
    finally:
        bot.abandon()
    moments = [float(line) for line in notes.read_text().split()]
    return sum(moment < killed_at - 1 for moment in moments), len(moments)


def _slow_down(sandbox: Sandbox, enough: threading.Event) -> None:
    """Answer late now and then, so that kills fall into calls, too."""
    choice = random.Random(SEED + 1)
    while not enough.wait(0.05):
        if len(sandbox.faults()) < 3:
            sandbox.fail_next(choice.choice(["StartRun", "FinishRun"]), delay=0.05, after=choice.random() < 0.5)


def test_no_run_is_finished_under_a_live_bot(sandbox: Sandbox) -> None:
    """A bot that shares a run with one that was killed is still in it; others that come and go do not finish it."""
    text = """
        with anymate_run("k") as run:
            run.add_entries(5)
            wait()
        """
    killed, alive = Bot(text), Bot(text)
    try:
        killed.until("inside")
        alive.until("inside")
        time.sleep(1)
        os.kill(killed.pid, signal.SIGKILL)
        killed.dead()
        run("with anymate_run('k') as run: run.add_entries(1)\nwith anymate_run('other'): pass")
        assert [one["finished"] for one in sandbox.runs()] == [False, True]
        alive.send(signal.SIGTERM)
        alive.end()
    finally:
        killed.stop()
        alive.stop()
    assert rows() == []
    assert finished(sandbox) == [(11, None), (None, None)]


def test_killed_before_its_body(sandbox: Sandbox) -> None:
    """A bot killed during StartRun owes nothing, as its body never ran: its row is dropped, and no run made for it."""
    sandbox.fail_next("StartRun", hang=True)
    bot = Bot("with anymate_run('k'): pass")
    try:
        until(asked(sandbox, "StartRun"))
        os.kill(bot.pid, signal.SIGKILL)
        bot.dead()
    finally:
        bot.stop()
    assert [(row.state, alive) for row, alive in rows()] == [("starting", False)]
    run("with anymate_run('other'): pass")
    assert finished(sandbox) == [(None, None)]
    assert [one["processKey"] for one in sandbox.runs()] == ["other"]


def test_killed_in_an_outage(sandbox: Sandbox) -> None:
    """What a bot counted that was killed before Anymate was back is carried into the run that the next start gets."""
    sandbox.close()
    text = "with anymate_run('k') as run:\n    run.add_entries(5)\n    wait()"
    bot = Bot(text, ANYMATE_DEADLINE="0.5")
    try:
        bot.until("inside")
        until(lambda: [row.entries for row, _ in rows()] == [5])
        os.kill(bot.pid, signal.SIGKILL)
        bot.dead()
    finally:
        bot.stop()
    sandbox.start()
    run("with anymate_run('k') as run: run.add_entries(1)")
    assert finished(sandbox) == [(6, None)]


def test_killed_after_its_finish(sandbox: Sandbox) -> None:
    """A bot killed before it heard that its run is finished: the next one hears it, and complains about nothing."""
    sandbox.fail_next("FinishRun", hang=True, after=True)
    bot = Bot("with anymate_run('k') as run: run.add_entries(5)")
    try:
        until(lambda: [one["finished"] for one in sandbox.runs()] == [True])
        os.kill(bot.pid, signal.SIGKILL)
        bot.dead()
    finally:
        bot.stop()
    assert [(row.state, alive) for row, alive in rows()] == [("finishing", False)]
    assert run("with anymate_run('k') as run: run.add_entries(1)") == (0, "", "")
    assert finished(sandbox) == [(5, None), (1, None)]

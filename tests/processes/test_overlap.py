"""Many processes with many threads on few processes of Anymate: the last one out finishes each run, with the sum."""

from __future__ import annotations

import random
import sys
import threading

import pytest

from anymate_guard.sandbox import Sandbox

from .bots import Bot, finished, rows, run

SEED = 20_252
PROCESSES, THREADS, ROUNDS = 8, 8, 5
KEYS = ["a", "b", "c"]

# Each thread enters guards on random keys; the bot says what it recorded, unless it crashes in the middle of it all.
TEXT = """
import random

crashes = sys.argv[2] == "crashes"
gate = threading.Barrier(THREADS)
totals = []

def work(number):
    choice = random.Random(f"{sys.argv[1]} {number}")
    gate.wait()
    for round in range(ROUNDS):
        time.sleep(choice.random() * 4)
        with anymate_run(choice.choice(["a", "b", "c"])) as run:
            for _ in range(choice.randint(0, 3)):
                time.sleep(choice.random() * 0.005)
                run.add_entries(2)
                totals.append(2)
        if crashes and number == 0 and round == 2:
            os._exit(1)

threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
say(sum(totals))
""".replace("THREADS", str(THREADS)).replace("ROUNDS", str(ROUNDS))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the bots' text has no main module")


@pytest.mark.parametrize("crashing", [0, 2])
def test_overlap(sandbox: Sandbox, crashing: int) -> None:
    """Each run is finished once, by the last one out; the totals are exact, with crashes at least for the others."""
    enough = threading.Event()
    weather = threading.Thread(target=_slow_down, args=(sandbox, enough))
    weather.start()
    bots = [Bot(TEXT, [str(number), "crashes" if number < crashing else "ends"]) for number in range(PROCESSES)]
    try:
        ends = [bot.end() for bot in bots]
    finally:
        for bot in bots:
            bot.stop()
        enough.set()
        weather.join()
    assert [status for status, *_ in ends] == [1] * crashing + [0] * (PROCESSES - crashing)
    assert [complaint for *_, complaint in ends] == [""] * PROCESSES
    counted = sum(int(said) for status, said, _ in ends if status == 0)
    most = counted + crashing * THREADS * ROUNDS * 3 * 2
    for key in KEYS if crashing else ():
        run(f"with anymate_run({key!r}): pass")
    assert rows() == []
    credited = sum(entries or 0 for entries, _ in finished(sandbox))
    finishes = [request for request in sandbox.requests() if request["operation"] == "FinishRun"]
    # A bot that crashed while it sent a finish may have sent it, so that it is sent again.
    assert 30 < len(sandbox.runs()) <= len(finishes) <= len(sandbox.runs()) + crashing * THREADS
    sys.stdout.write(f"seed {SEED}: {len(finishes)} runs, {credited} entries of {counted}\n")
    assert credited == counted if not crashing else counted <= credited <= most


def _slow_down(sandbox: Sandbox, enough: threading.Event) -> None:
    """Answer some hundredths of a second late, before or after the state has changed."""
    choice = random.Random(SEED)
    while not enough.wait(0.01):
        for operation in ("StartRun", "FinishRun"):
            if sum(fault["operation"] == operation for fault in sandbox.faults()) < 10:
                sandbox.fail_next(operation, delay=choice.uniform(0.01, 0.06), after=choice.random() < 0.5, times=5)

"""Ctrl-C at every point of entering and leaving where Python lets it in."""

from __future__ import annotations

import json
import sys

import pytest

from anymate_guard.sandbox import Sandbox

from .bots import finished, run

# An exception out of a signal handler comes where a function begins or a call in C has returned: the very beginning of
# `__exit__`, of which no line has run, is such a point.
INTERRUPTION = """
import dis
import anymate_guard
from anymate_guard._guard import driver
from anymate_guard._journal import recorder

recorder._EVERY = 0.01
FOLDER = os.path.dirname(anymate_guard.__file__)
PACKAGES = tuple(os.path.join(FOLDER, name, "") for name in ("_guard", "_journal", "_lifecycle", "_process"))

def passes_on(frame):
    # A generator goes on inside a `yield from`: Python lets no signal in there.
    code, place = frame.f_code.co_code, frame.f_lasti
    if place < 0:
        return False
    if sys.version_info >= (3, 11):
        return dis.opname[code[place]] == "RESUME" and code[place + 1] & 3 == 2
    return dis.opname[code[place + 2]] == "YIELD_FROM"

class Interruption:
    def __init__(self, number):
        self.left, self.where = number, None
    def __call__(self, frame, event, what):
        code = frame.f_code
        if event not in ("call", "c_return") or not code.co_filename.startswith(PACKAGES):
            return
        if event == "call" and passes_on(frame):
            return
        if event == "c_return" and what.__name__ == "__enter__":
            return  # nor between taking a lock and the block, but on 3.14, where ours is made for that
        self.left -= 1
        if self.left == 0:
            self.where = f"{code.co_filename}:{frame.f_lineno} {event} {what}"
            sys.setprofile(None)
            raise KeyboardInterrupt

def wait_for_the_end():
    begun = time.monotonic()
    while (left := driver.program.runs()) and time.monotonic() - begun < 25:
        time.sleep(0.01)
    return [one.run.process_key for one in left]
"""

ANYWHERE = """
named = {}

def guarded(key, count, interruption=None):
    guard = named.setdefault(key, anymate_run(key)) if NAMED else None
    sys.setprofile(interruption)
    try:
        with (guard or anymate_run(key)) as run:
            run.add_entries(count)
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)

guarded("warm", 0)
number, stuck = FIRST, []
while True:
    interruption = Interruption(number)
    guarded(f"k{number}", 1, interruption)
    if interruption.where is None:
        break
    begun = time.monotonic()
    guarded(f"k{number}", 10)
    if time.monotonic() - begun > 25:
        stuck.append(interruption.where)
    number += 4
stuck += wait_for_the_end()
guarded("last", 0)
say(number > 100, stuck)
"""

MONITORED = """
import json

MONITOR, EVENTS = sys.monitoring, sys.monitoring.events
MONITOR.use_tool_id(MONITOR.PROFILER_ID, "Ctrl-C")
MAIN = threading.get_ident()

def guarded(guard, interruption, body=lambda run: None):
    def returned(code, offset, what, argument):
        if threading.get_ident() == MAIN:
            interruption(code, getattr(what, "__name__", ""))
    def began(code, offset):
        if threading.get_ident() == MAIN:
            interruption(code, None)
    MONITOR.register_callback(MONITOR.PROFILER_ID, EVENTS.PY_START, began)
    MONITOR.register_callback(MONITOR.PROFILER_ID, EVENTS.C_RETURN, returned)
    try:
        MONITOR.set_events(MONITOR.PROFILER_ID, EVENTS.PY_START | EVENTS.CALL)
        with guard as run:
            body(run)
    except KeyboardInterrupt:
        pass
    finally:
        MONITOR.set_events(MONITOR.PROFILER_ID, EVENTS.NO_EVENTS)
"""

AGAIN = """
class Again:
    def __init__(self, number, again, only):
        self.left, self.again, self.only, self.hits = number, again, only, 0
    def __call__(self, code, what):
        if not code.co_filename.startswith(PACKAGES) or what == "__enter__":
            return
        if self.hits == TIMES or (self.hits == 0 and self.only not in (None, what)):
            return
        self.left -= 1
        if self.left == 0:
            self.left, self.hits = self.again, self.hits + 1
            raise KeyboardInterrupt

def record(run, count):
    run.add_entries(count)
    recorded[run.process_key] += count

recorded, again = {}, None
while again is None or again.hits:
    key = f"k{len(recorded)}"
    recorded[key] = 0
    again = Again(len(recorded) * STEP, len(recorded) % MOST + 1, ONLY)
    guard = anymate_run(key)
    guarded(guard, again, lambda run: record(run, 1))
    with guard as run:
        record(run, 10)
say(json.dumps([recorded, wait_for_the_end()]))
"""

NEVER_LEFT = """
class AtThese:
    def __init__(self, *names):
        self.names = list(names)
    def __call__(self, code, what):
        if self.names and code.co_qualname == self.names[0]:
            del self.names[0]
            raise KeyboardInterrupt

def never_left(key, credit):
    places = AtThese("Held.__call__", "Held.__del__")
    guarded(anymate_run(key, default_credit=credit), places)
    return places.names == []

with anymate_run("shared", default_credit="never"):
    say(never_left("shared", "always"))
say(never_left("alone", "always"), never_left("strict", "succeeded"), wait_for_the_end())
"""

CANCELLED = """
reached, cancelled, opened, go = (threading.Event() for _ in range(4))

def hook(frame, event, _):
    code = frame.f_code
    if (event, code.co_name) == ("call", "open") and code.co_filename.endswith("sharing.py"):
        reached.set()
        cancelled.wait()
    if (event, code.co_name) == ("return", "_into_run") and not opened.is_set():
        opened.set()
        go.wait()

async def work():
    async with anymate_run("k"):
        say("never reached")

def join():
    with anymate_run("k", default_credit="never"):
        pass

async def main():
    task = asyncio.create_task(work())
    await asyncio.to_thread(reached.wait)
    task.cancel()
    await asyncio.wait([task])
    del task
    cancelled.set()
    await asyncio.to_thread(opened.wait)
    await asyncio.to_thread(join)
    go.set()

threading.setprofile(hook)
asyncio.run(main())
say(wait_for_the_end())
"""

ENTERED_BY_HAND = """
import contextlib, logging

class Interrupting(logging.Handler):
    def handle(self, record):
        if "run_finished" in record.getMessage():
            log.handlers.clear()
            raise KeyboardInterrupt

log = logging.getLogger("anymate_guard")
log.addHandler(Interrupting())
log.setLevel("INFO")
guard, stack = anymate_run("k"), contextlib.ExitStack()
try:
    with guard:
        pass
except KeyboardInterrupt:
    run = stack.enter_context(guard)
with anymate_run("k"):
    pass
run.add_entries(3)
stack.close()
"""

FIRST_OPCODE = """
class AtExit(Interruption):
    def __call__(self, frame, event, what):
        if event == "call" and frame.f_code.co_filename.endswith("block.py") and frame.f_code.co_name == "__call__":
            super().__call__(frame, event, what)

def interrupted(guard):
    sys.setprofile(AtExit(1))
    try:
        with guard as run:
            run.add_entries(1)
        return False
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)

def put_back():
    try:
        return current_run()
    except NoCurrentRun:
        return signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

guard = anymate_run("k")
say(all([interrupted(guard if NAMED else anymate_run("k")) for _ in range(ROUNDS)]), wait_for_the_end(), put_back())
"""


MONITORING = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="needs sys.monitoring: a profiler is gone once it has raised"
)


def credit_of(sandbox: Sandbox) -> dict[str, int]:
    """Entries of the runs of each process, in the order in which they began; all of them have to be finished."""
    finished(sandbox)
    credit: dict[str, int] = {}
    for one in sandbox.runs():
        credit[one["processKey"]] = credit.get(one["processKey"], 0) + (one["overwriteEntries"] or 0)
    return credit


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_interrupt_anywhere(sandbox: Sandbox, first: int, named: bool) -> None:
    """Wherever Ctrl-C comes, the next guard on its key is not held up, and nothing is left open or counted twice."""
    status, said, complaint = run(INTERRUPTION + ANYWHERE.replace("FIRST", str(first)).replace("NAMED", str(named)))
    assert (status, said) == (0, "True []\n"), complaint
    *interrupted, (_, whole) = ((key, entries) for key, entries in credit_of(sandbox).items() if key.startswith("k"))
    assert {entries for _, entries in interrupted} == {10, 11}
    assert whole == 1


@MONITORING
@pytest.mark.parametrize(("only", "step", "most", "times"), [("send", 1, 1, 2), (None, 11, 9, 2), (None, 11, 9, 99)])
def test_interrupt_again_and_again(sandbox: Sandbox, only: str | None, step: int, most: int, times: int) -> None:
    """However often Ctrl-C comes, nothing is lost or counted twice, and all is finished while the program goes on."""
    text = AGAIN.replace("STEP", str(step)).replace("MOST", str(most)).replace("TIMES", str(times))
    status, said, complaint = run(INTERRUPTION + MONITORED + text.replace("ONLY", repr(only)))
    assert status == 0, complaint
    recorded, left = json.loads(said)
    assert left == []
    assert credit_of(sandbox) == recorded
    assert set(recorded.values()) == {10, 11}


@MONITORING
def test_interrupt_twice_before_the_first_line_of_leaving(sandbox: Sandbox) -> None:
    """A guard that two interruptions keep from being left is in its run no more, with the default credit it wants."""
    status, said, complaint = run(INTERRUPTION + MONITORED + NEVER_LEFT)
    assert (status, said) == (0, "True\nTrue True []\n"), complaint
    assert finished(sandbox) == [(None, None), (None, None), (0, 0)]


def test_cancelled_just_as_the_run_has_begun(sandbox: Sandbox) -> None:
    """A guard that is cancelled while it is entered gets no credit, also if its run is seen before it is given up."""
    assert run(INTERRUPTION + CANCELLED) == (0, "[]\n", "")
    assert finished(sandbox) == [(0, 0)]


def test_entered_by_hand_while_an_interruption_is_handled(sandbox: Sandbox) -> None:
    """A guard that is entered again as its own interruption is handled is in its run until it is left."""
    assert run(ENTERED_BY_HAND) == (0, "", "")
    assert finished(sandbox) == [(None, None), (3, None)]


@pytest.mark.parametrize("named", [True, False])
def test_interrupt_before_the_first_line_of_leaving(sandbox: Sandbox, named: bool) -> None:
    """A guard that Ctrl-C hits at the first opcode of leaving, time and again, leaves nothing behind.

    No run that nobody leaves, no current run, and no signal that is not the program's.
    """
    rounds = 300
    text = FIRST_OPCODE.replace("NAMED", str(named)).replace("ROUNDS", str(rounds))
    status, said, complaint = run(INTERRUPTION + text)
    assert (status, said, complaint) == (0, "True [] True\n", "")
    assert sum(entries or 0 for entries, _ in finished(sandbox)) == rounds


def test_interrupt_of_a_disabled_guard(sandbox: Sandbox) -> None:
    """A disabled guard that is interrupted while it is left is out of its run, too."""
    text = """
        import logging
        class Interrupting(logging.Handler):
            def handle(self, record):
                raise KeyboardInterrupt
        runs = []
        with anymate_run("k") as outer:
            pass
        log = logging.getLogger("anymate_guard")
        log.setLevel("INFO")
        for _ in range(2):
            try:
                with anymate_run("k") as one:
                    runs.append(one)
                    log.addHandler(Interrupting())
            except KeyboardInterrupt:
                log.handlers.clear()
        say(runs[0] is not runs[1], [one.outcome for one in runs])
        """
    assert run(text, ANYMATE_DISABLED="1") == (0, "True ['succeeded', 'succeeded']\n", "")
    assert sandbox.requests() == []

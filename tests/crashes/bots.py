"""Bots that count entries, and crash: `python bots.py killed|overlapping FOLDER SEED KILLS`.

They are forked from this program, which has imported everything already, so that a hundred lives take seconds. What
they do is noted in files in the folder: a line of JSON with the monotonic time, process, thread, what happened, and a
fact. Each is one write to a file opened for appending, so that a kill can't lose it. Notes are on the safe side:
`count`, `leaving` and `killed` are written before that happens, `entered` and `counted` after.

At its end the program prints "done" and waits for a line, for forked children that its bots left behind live on.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# The library imports these when they are needed; here, that would be anew in every bot.
import requests  # noqa: F401
import structlog  # noqa: F401

from anymate_guard import anymate_run
from anymate_guard._http import transport  # noqa: F401

MOST_LOST = 1.0  # seconds of counting that a kill may cost

# Kill test: one bot each; some have their process for themselves, some share it.
KEYS = ("alone-0", "alone-1", "alone-2", "alone-3", "pair-0", "pair-0", "pair-1", "pair-1")
MOMENTS = (("entering", 0.1), ("entered", 0.2), ("entered", 2.8), ("leaving", 0.05), ("leaving", 0.05))  # and seconds

# Overlap test. Guards are in a run about a third of the time, so that there is often nobody in it, too.
SHARED_KEYS = ("red", "green", "blue")
PROCESSES = 8
THREADS = 8
USES = 6


class Stumble(Exception):
    """What a body raises when it crashes by itself."""


class Notes:
    """One file of notes; `heard` gets each of them too."""

    def __init__(self, path: Path, heard: Callable[[str], None] = lambda _: None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._heard = heard

    def hear(self, heard: Callable[[str], None]) -> None:
        """From here on, in this process."""
        self._heard = heard

    def write(self, what: str, fact: object = None, *, process: int = 0) -> None:
        """Note what happens now, to this process or to another one."""
        line = json.dumps([time.monotonic(), process or os.getpid(), threading.get_ident(), what, fact])
        os.write(self._file, f"{line}\n".encode())
        self._heard(what)


def work(notes: Notes, key: str, counts: Sequence[int], pause: float, act: Callable[[], object] = lambda: None) -> None:
    """Guard a block that counts entries."""
    notes.write("entering", key)
    with contextlib.suppress(Stumble), anymate_run(key) as run:
        notes.write("entered", run.run_id)
        for count in counts:
            notes.write("count", count)
            run.add_entries(count)
            notes.write("counted", count)
            time.sleep(pause)
        try:
            act()
        finally:
            notes.write("leaving")
    notes.write("left")


def fork(life: Callable[..., object], *arguments: object) -> int:
    """Start a process that lives this life and ends."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        life(*arguments)
        status = 0
    except Exception:  # noqa: BLE001  # it must not unwind into its parent's loop
        traceback.print_exc()
    finally:
        os._exit(status)


def status_of(process: int) -> int:
    """Wait for a process's end."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def all_well(processes: Iterable[int]) -> bool:
    """Wait for the end of them all."""
    return {status_of(process) for process in processes} <= {0}


def stumble() -> None:
    """Crash, the ordinary way."""
    raise Stumble


def leave_a_child_behind() -> None:
    """Fork a child that lives on when this process is dead."""
    if os.fork() == 0:
        signal.pause()
        os._exit(0)


# Kill test


@dataclass(frozen=True)
class Fate:
    """How a bot's life ends: a while after the first such note in the guard after so many others."""

    guards: int
    moment: str
    delay: float

    @classmethod
    def drawn(cls, dice: random.Random) -> Fate:
        """Cast the dice: in the calls that take some hundredths of a second or between them, or in a long body."""
        moment, longest = dice.choice(MOMENTS)
        return cls(dice.randrange(3), moment, dice.uniform(0, longest))


def restart_loop(notes: Notes, key: str, fate: Fate, dice: random.Random, bell: int) -> None:
    """Work on and on; ring the bell when the fated moment is there."""
    guards = -1

    def listen(what: str) -> None:
        nonlocal guards
        guards += what == "entering"
        if guards == fate.guards and what == fate.moment:
            os.write(bell, b"!")

    notes.hear(listen)
    while True:
        act: Callable[[], object] = dice.choice((stumble, leave_a_child_behind, lambda: None, lambda: None))
        counts = [dice.randint(1, 3) for _ in range(dice.randrange(6))]
        if guards + 1 == fate.guards and fate.moment == "entered":
            if dice.random() < 0.5:
                leave_a_child_behind()
            burst = dice.random() < 0.3
            work(notes, key, [dice.randint(1, 3) for _ in range(500)], 0 if burst else 0.01, lambda: time.sleep(60))
        if guards + 1 == fate.guards and fate.moment == "leaving" and dice.random() < 0.5:
            act = partial(time.sleep, MOST_LOST * 1.1)  # all that it counted is owed, then
        work(notes, key, counts, 0.01, act)


def supervise(folder: Path, seed: str, number: int, kills: int) -> None:
    """Start a bot again each time it is killed, and once more to end well."""
    notes, key, dice = Notes(folder / f"bot-{number}"), KEYS[number], random.Random(f"{seed} {number}")
    for _ in range(kills):
        fate, own = Fate.drawn(dice), random.Random(dice.random())
        heard, bell = os.pipe()
        bot = fork(restart_loop, notes, key, fate, own, bell)
        os.close(bell)
        if os.read(heard, 1):
            time.sleep(fate.delay)
        notes.write("killed", process=bot)
        os.kill(bot, signal.SIGKILL)
        if status_of(bot) != -signal.SIGKILL:
            raise RuntimeError("a bot ended by itself")
        os.close(heard)
    if not all_well([fork(work, notes, key, [1], 0)]):
        raise RuntimeError("the healthy bot failed")


def killed(folder: Path, seed: str, kills: int) -> None:
    """Every bot has a process that starts it again."""
    each = kills // len(KEYS)
    if not all_well([fork(supervise, folder, seed, number, each) for number in range(len(KEYS))]):
        raise RuntimeError("a restart loop failed")


# Overlap test


def many_threads(folder: Path, seed: str, number: int, exits: bool) -> None:
    """One process of the overlap test; one that exits does so without unwinding, in the middle of it all."""
    notes = Notes(folder / f"process-{number}")

    def leave_at_once() -> None:
        notes.write("killed")
        os._exit(9)

    def use_guards(thread: int) -> None:
        dice = random.Random(f"{seed} {number} {thread}")
        for use in range(USES):
            time.sleep(dice.uniform(0, 1.6))
            act = stumble if dice.random() < 0.2 else lambda: None
            if exits and thread == 0 and use == USES // 2:
                act = leave_at_once
            counts = [dice.randint(1, 5) for _ in range(dice.randrange(4))]
            work(notes, dice.choice(SHARED_KEYS), counts, dice.choice((0.002, 0.02)), act)

    threads = [threading.Thread(target=use_guards, args=(thread,)) for thread in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def overlapping(folder: Path, seed: str, kills: int) -> None:
    """So many processes are ended in the midst of it, one by itself; then each process key gets a healthy run."""
    dice, notes = random.Random(seed), Notes(folder / "supervisor")
    bots = [fork(many_threads, folder, seed, number, kills > 0 and number == 0) for number in range(PROCESSES)]
    for bot in bots[1:kills]:
        time.sleep(dice.uniform(0.5, 2))
        notes.write("killed", process=bot)
        os.kill(bot, signal.SIGKILL)
    statuses = [status_of(bot) for bot in bots]
    if statuses != [9, -9, -9, -9][:kills] + [0] * (PROCESSES - kills):
        raise RuntimeError(f"processes ended with {statuses}")
    if kills and not all_well([fork(work, notes, key, [1], 0) for key in SHARED_KEYS]):
        raise RuntimeError("a healthy bot failed")


if __name__ == "__main__":
    {"killed": killed, "overlapping": overlapping}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    print("done", flush=True)  # noqa: T201  # the test waits for it
    sys.stdin.readline()

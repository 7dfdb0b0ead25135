"""The power goes while bots are at work."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from bisect import bisect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox
from anymate_guard.sandbox._state.model import Run

from .disk import RECORDER, Disk, Event, events
from .evidence import Evidence, check
from .power import KEYS, UNREACHABLE

SEED = "power 1"
CUTS = 1000 if os.environ.get("ANYMATE_GUARD_MATRIX") == "full" else 90
ODDS = (0.0, 0.0, 0.2, 0.5, 0.9, 1.0)  # of what was not made durable, the part that is there
PROGRAM = (sys.executable, str(Path(__file__).with_name("power.py")))
LATER = ("unshare", "--time", "--map-root-user", "--fork")


def _works(*command: str) -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run([*command, "true"], check=False, capture_output=True).returncode == 0
    return False


pytestmark = [
    pytest.mark.skipif(not _works(*RECORDER, "--output=/dev/null"), reason="strace is needed, which only Linux has"),
    pytest.mark.skipif(not _works(*LATER), reason="time namespaces are needed, which only Linux has"),
]


def record(sandbox: Sandbox, folder: Path) -> list[Event]:
    """Let the bots work, and record what they write."""
    (folder / "notes").mkdir()
    (folder / "machine").mkdir()
    rewind(sandbox, [], 0)
    for operation, key, times in UNREACHABLE:
        sandbox.fail_next(operation, 503, process_key=key, times=times)
    environ = {**os.environ, **sandbox.environ, "ANYMATE_STATE_DIR": str(folder / "machine" / "user" / "state")}
    environ |= {"ANYMATE_DEADLINE": "1", "ANYMATE_TIMEOUT": "1"}
    environ.pop("COVERAGE_PROCESS_CONFIG", None)  # strace would record what it writes
    recorder = [*RECORDER, f"--output={folder / 'record'}"]
    subprocess.run([*recorder, *PROGRAM, "before", str(folder / "notes")], env=environ, check=True)
    return list(events(folder / "record", folder))


@contextlib.contextmanager
def after_boot(sandbox: Sandbox) -> Iterator[subprocess.Popen[str]]:
    """Bots on a machine that was started just now: its monotonic clock begins anew."""
    clocks = (f"--{clock}={-int(time.monotonic())}" for clock in ("monotonic", "boottime"))
    environ = {**os.environ, **sandbox.environ}
    environ.pop("COVERAGE_PROCESS_CONFIG", None)
    with subprocess.Popen(
        [*LATER, *clocks, *PROGRAM, "after"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        yield program
        program.communicate()


def ask(program: subprocess.Popen[str], line: str) -> str:
    """What a program answers to a line."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(f"{line}\n")
    program.stdin.flush()
    return program.stdout.readline().strip()


def moments(history: list[Event], dice: random.Random) -> list[int]:
    """After which events the power goes: where much happens, where little does, and where a guard has ended."""
    begun = [event.at for event in history]
    left = [place for place, event in enumerate(history) if b'"left"' in event.data]
    places = []
    for _ in range(CUTS // 3):
        places.append(dice.randrange(len(history)))
        places.append(bisect(begun, dice.uniform(begun[0], begun[-1])) - 1)
        places.append(dice.choice(left) + dice.randrange(3))
    return sorted(min(place, len(history) - 1) for place in places)


def rewind(sandbox: Sandbox, runs: list[Run], moment: float) -> None:
    """Let Anymate be what it was at a moment."""
    sandbox.reset()
    for key in KEYS:
        sandbox.set_process(key, entries=0, seconds_saved_per_entry=0)
    state = sandbox._world.state
    for run in runs:
        if run.started_at <= moment:
            ongoing = run.finished_at is None or run.finished_at > moment
            state._runs[run.run_id] = then = replace(run, finished_at=None if ongoing else run.finished_at)
            if ongoing:
                state._processes[run.process_key].run = then


class Past:
    """What has happened up to some event.

    Args:
        history: All that happened.
        folder: Where it did.
    """

    def __init__(self, history: list[Event], folder: Path) -> None:
        self.history = history
        self.now = 0.0
        self._folder = folder
        self._place = 0
        self._disk = Disk(folder / "machine")
        self._notes: dict[str, bytes] = {}
        self._since_1970 = time.time() - time.monotonic()

    def go_on(self, place: int) -> None:
        """Let everything happen up to an event."""
        for event in self.history[self._place : place + 1]:
            self.now = max(self.now, event.at - self._since_1970)
            if event.path.is_relative_to(self._folder / "notes"):
                self._notes[event.path.name] = self._notes.get(event.path.name, b"") + event.data
            else:
                self._disk.happen(event)
        self._place = max(self._place, place + 1)

    def before_more(self) -> float:
        """The last moment before the event after that."""
        begin = self.history[self._place].at - self._since_1970 if self._place < len(self.history) else self.now
        return max(self.now, begin - 1e-6)

    def cut_power(self, folder: Path, dice: random.Random) -> None:
        """Write down what the bots had noted, and that they were killed; make what is on the disk then."""
        notes, odds = folder / "notes", dice.choice(ODDS)
        notes.mkdir(parents=True)
        for name, content in self._notes.items():
            (notes / name).write_bytes(content)
        killed = [[self.now, stay.process, 0, "killed", None] for stay in Evidence.of(notes).stays]
        (notes / "supervisor").write_text("".join(f"{json.dumps(note)}\n" for note in killed))
        self._disk.build(folder / "machine", odds, dice)
        last = self.history[self._place - 1]
        print(f"{folder.name} after {last.call} of {last.path.name}, {odds} of the rest kept")  # noqa: T201


@pytest.mark.timeout(600)
def test_power_cuts(tmp_path: Path) -> None:
    """Whatever a disk forgets, one second of work is lost at most, no stored finish, and nothing is credited twice."""
    print(f"seed: {SEED}")  # noqa: T201
    dice = random.Random(SEED)
    with Sandbox(clock=time.monotonic) as sandbox:
        past = Past(record(sandbox, tmp_path), tmp_path)
        runs = list(sandbox._world.state._runs.values())
        with after_boot(sandbox) as program:
            for number, place in enumerate(moments(past.history, dice)):
                folder = tmp_path / f"cut-{number}"
                past.go_on(place)
                past.cut_power(folder, dice)
                rewind(sandbox, runs, dice.choice([past.now, past.before_more()]))
                keys = {stay.key for stay in Evidence.of(folder / "notes").stays if not stay.left}
                assert ask(program, " ".join([str(folder), dice.choice(KEYS), *keys])) == "0"
                check(sandbox, Evidence.of(folder / "notes", power_cut=True))
                shutil.rmtree(folder)

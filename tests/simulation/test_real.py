"""Real programs, around a real file and a real Anymate, do what the models say."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import pytest

from anymate_guard._guard import defaults
from anymate_guard._journal.rows import Row
from anymate_guard._lifecycle.asks import Call
from anymate_guard.sandbox import Sandbox

from .anymate import Run
from .choices import Choices
from .machine import Process
from .world import Guard, Plan, World
from .worlds import SMALL

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="programs are forked, and locks of open files let go of"
)

FAULTS = frozenset({"answers", "crashes", "deletions", "file", "interruptions", "looks", "mistakes", "people"})
SCHEDULES = 12  # of each world
DEAD = "http://127.0.0.1:9"  # where nobody listens


class Programs:
    """Real programs on this machine.

    Args:
        folder: Where their journal is, and the addresses by which they are told what to do.
        sandbox: Their Anymate.
        server: Starts and kills them.
    """

    def __init__(self, folder: Path, sandbox: Sandbox, server: subprocess.Popen[str]) -> None:
        self.journal = folder / "state" / "journal.sqlite3"
        self.sandbox = sandbox
        self.owners: dict[int, str] = {}
        self._folder = folder
        self._server = server
        self.journal.parent.mkdir(mode=0o700)
        locks = self.journal.with_name("owners.lock")
        locks.touch(0o600)
        os.utime(locks, (0, 0))  # whoever is not in a new one may be alive
        self._running: dict[str, tuple[int, Connection]] = {}

    def tell(self, name: str, plans: Sequence[Plan], *words: object) -> Any:
        """Let a program do something, and give what it says; it is started if need be."""
        if name not in self._running:
            self._start(name, plans)
        _, connection = self._running[name]
        connection.send(words)
        return connection.recv()

    def end(self, name: str, now: float) -> None:
        """Let a program end, and see it gone; one that was never started does so at once."""
        if name in self._running:
            process, connection = self._running.pop(name)
            connection.send(("end", now, 0.0))
            assert self._ask(f"wait {process}") == 0
            connection.close()

    def kill(self, name: str) -> None:
        """Kill a program, and see it dead."""
        if name in self._running:
            process, connection = self._running.pop(name)
            self._ask(f"kill {process}")
            connection.close()

    def kill_all(self) -> None:
        """Kill those that are left."""
        for name in list(self._running):
            self.kill(name)

    def _start(self, name: str, plans: Sequence[Plan]) -> None:
        address = self._folder / name
        with Listener(str(address), "AF_UNIX") as listener:
            self._ask(f"start {address}")
            connection = listener.accept()
        environ = {**self.sandbox.environ, "ANYMATE_STATE_DIR": str(self.journal.parent)}
        connection.send((name, plans, environ, {**environ, "ANYMATE_API_URL": DEAD, "ANYMATE_AUTH_URL": DEAD}))
        process, owner = connection.recv()
        self._running[name], self.owners[owner] = (process, connection), name

    def _ask(self, line: str) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{line}\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def rows(self) -> list[Row]:
        """What is in the file."""
        if not self.journal.exists():
            return []
        with closing(sqlite3.connect(self.journal)) as file:
            if not file.execute("SELECT 1 FROM sqlite_master WHERE name = 'rows'").fetchone():
                return []
            return [Row._make(columns) for columns in file.execute(f"SELECT {', '.join(Row._fields)} FROM rows")]


@dataclass(eq=False)
class Followed(World):
    """A world whose every step is done by real programs, too.

    Attributes:
        programs: Those.
    """

    programs: Programs = field(kw_only=True)

    def _step(self, guard: Guard, outcome: str = "as asked") -> None:
        ask, now, number = guard.ask, self.machine.now, self.guards.index(guard)
        World._step(self, guard, outcome)
        with self._fault(ask, outcome):
            said = self._tell_program(guard.process, "step", now, number, outcome)
        self._compare(said, type(guard.ask).__name__ if guard.steps is not None else None)

    @contextlib.contextmanager
    def _fault(self, ask: object, outcome: str) -> Iterator[None]:
        """Let something go wrong."""
        if isinstance(ask, Call) and outcome.startswith("lost"):
            names = {"start_run": "StartRun", "finish_run": "FinishRun", "failure": "Failure", "ok_to_run": "OkToRun"}
            self.programs.sandbox.fail_next(names[ask.operation], reset=outcome.removeprefix("lost "))
        if outcome != "not written":
            yield
            return
        with closing(sqlite3.connect(self.programs.journal, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
            other.execute("ROLLBACK")

    def _faults(self, guard: Guard) -> list[Callable[[], object]]:
        found = World._faults(self, guard)
        return [one for one in found if getattr(one, "args", ())[1:] != ("late",)]  # which no program has a part in

    def _crash(self, process: Process) -> None:
        World._crash(self, process)
        self.programs.kill(process.name)
        self._compare()

    def _look(self, process: Process) -> None:
        now = self.machine.now
        World._look(self, process)
        self._tell_program(process, "look", now)
        self._compare()

    def _mistake(self, process: Process) -> None:
        World._mistake(self, process)
        self._tell_program(process, "mistake", self.machine.now)

    def _delete(self) -> None:
        World._delete(self)
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.programs.journal}{suffix}").unlink(missing_ok=True)

    def _finish_by_hand(self, run: Run) -> None:
        World._finish_by_hand(self, run)
        place = list(self.anymate.runs).index(run.run_id)
        defaults.shared_client().finish_run(self.programs.sandbox.runs()[place]["runId"])
        self._compare()

    def _end(self) -> None:
        now, alive = self.machine.now, [process for process in self.machine.processes.values() if process.alive]
        World._end(self)
        for process in alive:
            self.programs.end(process.name, now)
        self.programs.tell("last", (), "settle", now, 0.0, sorted({plan.username for plan in self.plans}))
        self.programs.end("last", now)
        self._compare()

    def _tell_program(self, process: Process, what: str, now: float, *more: object) -> Any:
        return self.programs.tell(process.name, self.plans, what, now, self.machine.now, *more)

    def _compare(self, said: object = None, expected: object = None) -> None:
        """See that the file and Anymate hold what the models hold."""
        names = {number: process.name for number, process in self.machine.processes.items()}
        model, file = self.machine.file.content.rows.values(), self.programs.rows()
        runs = self.programs.sandbox.runs()
        assert said == expected
        assert _told(file, [run["runId"] for run in runs], self.programs.owners) == _told(
            model, list(self.anymate.runs), names
        )
        assert [(run["processKey"], run["creditedEntries"] if run["finished"] else None) for run in runs] == [
            (run.process_key, run.credited) for run in self.anymate.runs.values()
        ]


def _told(rows: Any, run_ids: Sequence[int], names: dict[int, str]) -> list[str]:
    """Rows as they can be compared: numbers of runs, programs and finishes are different ones."""
    return sorted(
        str(
            row.but(
                run_id=None if row.run_id is None else run_ids.index(row.run_id),
                owner=names.get(row.owner, ""),
                zeros=bool(row.zeros),
                adopted=bool(row.adopted),
                again=bool(row.again),
                finish=row.finish != 0,
                reason=row.state == "refused",
                id=0,
                began=0,
                recorded=0,
            )
        )
        for row in rows
    )


@pytest.fixture(scope="module", name="server")
def _server() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(Path(__file__).with_name("programs.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server
        finally:
            server.kill()


@pytest.mark.parametrize("name", SMALL)
def test_real_programs(name: str, server: subprocess.Popen[str], sandbox: Sandbox, tmp_path: Path) -> None:
    """After each step of a small world, its file and Anymate hold what the models hold, whatever goes wrong."""
    injected = 0
    for seed in range(SCHEDULES):
        sandbox.reset()
        for process_key in ("p", "q", "stopped"):
            stopped = process_key == "stopped"
            sandbox.set_process(process_key, entries=0, seconds_saved_per_entry=0, stopped=stopped)
        (tmp_path / str(seed)).mkdir()
        programs = Programs(tmp_path / str(seed), sandbox, server)
        choices = Choices(budget=8, rng=random.Random(f"{name} {seed}"), odds=0.2)
        world = Followed(SMALL[name], choices, FAULTS, programs=programs)
        try:
            world.run()
        except BaseException:
            print(f"seed {seed}", *world.story, sep="\n")
            raise
        finally:
            programs.kill_all()
        injected += world.injected
    assert injected > SCHEDULES

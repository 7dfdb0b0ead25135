"""Real programs that do what the model's programs do: `python programs.py`.

It reads lines and answers each with one: "start ADDRESS" forks a program that does what it is told over that address,
"kill PID" kills one and sees it dead, "wait PID" sees one end.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import sys
import time
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

import requests  # noqa: F401  # before programs are forked

sys.path.append(str(Path(__file__).parents[2]))  # last, as what is tested is the package that is installed

from anymate_guard import AnymateClient, Settings
from anymate_guard._deadline import Deadline
from anymate_guard._http import transport  # noqa: F401  # as above
from anymate_guard._journal.rows import Row
from anymate_guard._journal.storage.database import Database
from anymate_guard._journal.storage.folder import Folder
from anymate_guard._lifecycle.asks import Call, Wait
from anymate_guard._lifecycle.leaving import give_up
from anymate_guard._lifecycle.settling import settle
from anymate_guard._lifecycle.sharing import Program
from anymate_guard._process import owners
from tests.simulation.choices import Choices
from tests.simulation.machine import Looking, Process
from tests.simulation.world import ADDRESS, DEADLINE, Guard, World

_PATIENCE = 20.0  # seconds for a call


@dataclass(eq=False)
class RealWorld(World):
    """What one program sees of the world: a real journal, and Anymate over a socket.

    Attributes:
        client: Makes its calls.
        dead: Makes those to which nobody listens.
        later: The time after a step.
    """

    client: AnymateClient = field(kw_only=True)
    dead: AnymateClient = field(kw_only=True)
    later: float = 0.0

    def _do(self, guard: Guard, ask: Any, how: str) -> object:
        if isinstance(ask, Wait):
            self.machine.now, guard.waiting = max(self.machine.now + ask.seconds, self.later), True
            return None
        return World._do(self, guard, ask, how)

    def _call(self, guard: Guard, ask: Call, how: str) -> object:
        guard.sent = ask
        usual = how in {"as asked", "interrupted after"}
        self.machine.now = self.machine.now + 0.01 if usual else max(self.machine.now, ask.end)
        client = self.dead if how == "refused" else self.client
        deadline = Deadline(time.monotonic() + _PATIENCE, retry=False)
        answer = getattr(client, ask.operation)(*ask.arguments, deadline=deadline)
        if not usual:
            raise AssertionError(f"{ask.operation} was answered with {answer} where that was to be {how}")
        return answer


class Anymate:
    """What a plan that adopts a run asks of Anymate."""

    def __init__(self, client: AnymateClient) -> None:
        self._client = client
        self.runs: dict[int, Any] = {}
        self.late: list[Any] = []

    def start(self, process_key: str) -> int:
        """StartRun."""
        return self._client.start_run(process_key)


class Owner(owners.Owner):
    """An owner that may let go of the lock by which others see that it is alive."""

    mistaken = False

    def hold(self, path: Path) -> None:
        super().hold(path)
        self.be_seen()

    def be_seen(self) -> None:
        """Hold the lock, or not."""
        if self._file is not None:
            kind = fcntl.F_UNLCK if self.mistaken else fcntl.F_WRLCK
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, struct.pack("hhqqixxxx", kind, os.SEEK_SET, self.id, 1, 0))


def program(address: str) -> None:
    """Do what is told, step by step."""
    with Client(address) as connection:
        name, plans, *environs = connection.recv()
        client, dead = (AnymateClient(Settings.from_env(environ)) for environ in environs)
        world = RealWorld(plans, Choices(), frozenset(), client=client, dead=dead)
        world.anymate = Anymate(client)  # type: ignore[assignment]  # all that is asked of it here
        owner = Owner()
        process = Process(
            name, Looking(Database(Folder(client.settings.state_dir)), owner), Program(lambda: world.machine.now)
        )
        world.machine.processes[owner.id] = process
        for plan in plans:
            world.guards.append(guard := Guard(plan, process))
            if plan.program == name:
                guard.steps = world._life_of(guard)
                next(guard.steps)
        connection.send((os.getpid(), owner.id))
        follow(world, process, owner, connection)


def follow(world: RealWorld, process: Process, owner: Owner, connection: Connection) -> None:
    """Do each step, and say what comes next."""
    while True:
        what, now, world.later, *more = connection.recv()
        world.machine.now = now
        if what == "step":
            guard = world.guards[more[0]]
            world._step(guard, more[1])
            connection.send(type(guard.ask).__name__ if guard.steps is not None else None)
            continue
        if what == "look":
            world._look(process)
        elif what == "mistake":
            process.mistaken = owner.mistaken = not owner.mistaken
            owner.be_seen()
        elif what == "settle":
            for username in more[0]:
                row = Row(ADDRESS, username, "-")
                for _ in range(3):
                    world._finish(process, settle(world._way(username), row, seconds=float("inf")))
        elif what == "end":
            for shared in process.program.runs():
                world._finish(process, give_up(process.program, shared, exit_by=world.machine.now + DEADLINE))
            process.journal.close()
            return
        connection.send(None)


def main() -> None:
    """Start and kill programs."""
    for line in sys.stdin:
        command, what = line.split(maxsplit=1)
        if command == "start":
            process = os.fork()
            if process == 0:
                status = 1
                try:
                    program(what.strip())
                    status = 0
                except Exception:  # noqa: BLE001  # it must not unwind into its parent's loop
                    traceback.print_exc()
                finally:
                    os._exit(status)
            answer = process
        else:
            if command == "kill":
                os.kill(int(what), signal.SIGKILL)
            answer = os.waitstatus_to_exitcode(os.waitpid(int(what), 0)[1])
        print(answer, flush=True)


if __name__ == "__main__":
    main()

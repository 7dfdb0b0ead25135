"""Guards, programs, faults, kills and outages in any order, against a model of what the journal promises."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from anymate_guard._journal.contents import rows_of
from anymate_guard._journal.journals import journal_at
from anymate_guard.sandbox import Sandbox

from .programs import Nursery, Program

KEYS = st.sampled_from(["a", "b"])
TROUBLES = st.sampled_from(
    [
        {"status": 503},
        {"reset": "before"},
        {"reset": "after"},
        {"html": True},
        {"status": 401},
        {"delay": 0.02, "after": True},
    ]
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="programs are forked")


@dataclass(eq=False)
class Guard:
    """A guard that is open: what it recorded, and how much of that is surely in the journal."""

    program: Program
    slot: int
    key: str
    run_id: int | None
    recorded: int = 0
    noted: int = 0
    alive: bool = True


class Machine(RuleBasedStateMachine):
    """What happens, and what has to be so afterwards."""

    sandbox: Sandbox
    nursery: Nursery

    programs = Bundle("programs")
    guards = Bundle("guards")

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.sandbox.start()
        self.sandbox.reset()
        self.folder = tempfile.mkdtemp()
        self.living: list[Program] = []
        self.open: list[Guard] = []
        self.least = 0  # of what has to be credited in the end
        self.most = 0
        self.slots = 0

    @rule(target=programs)
    def begin(self) -> Program:
        """A program begins."""
        program = self.nursery.program()
        self.living.append(program)
        return program

    @rule(target=guards, program=programs, key=KEYS)
    def enter(self, program: Program, key: str) -> object:
        """A program enters a guard."""
        if program not in self.living:
            return multiple()
        self.slots += 1
        answer = program.do("enter", self.slots, key)
        guard = Guard(program, self.slots, key, None if answer == "None" else int(answer))
        self.open.append(guard)
        return guard

    @rule(guard=guards, count=st.integers(1, 1000))
    def record(self, guard: Guard, count: int) -> None:
        """A body records entries."""
        if guard in self.open:
            guard.program.do("record", guard.slot, count)
            guard.recorded += count

    @rule(program=programs)
    def note(self, program: Program) -> None:
        """A second goes by for a program."""
        if program in self.living:
            program.do("note", 0)
            for guard in self.open:
                if guard.program is program:
                    guard.noted = guard.recorded

    @rule(guard=consumes(guards), failed=st.sampled_from(["failed", "succeeded"]))
    def leave(self, guard: Guard, failed: str) -> None:
        """A body ends, well or not."""
        if guard in self.open:
            self.open.remove(guard)
            guard.program.do("leave", guard.slot, failed)
            self.least += guard.recorded
            self.most += guard.recorded

    @rule(program=consumes(programs))
    def kill(self, program: Program) -> None:
        """A program is killed."""
        if program in self.living:
            self.living.remove(program)
            program.kill()
            for guard in [guard for guard in self.open if guard.program is program]:
                self.open.remove(guard)
                self.least += guard.noted
                self.most += guard.recorded

    @rule(operation=st.sampled_from(["StartRun", "FinishRun"]), trouble=TROUBLES)
    def trouble(self, operation: str, trouble: dict[str, object]) -> None:
        """The next call of an operation goes wrong."""
        self.sandbox.fail_next(operation, **trouble)  # type: ignore[arg-type]

    @rule()
    def outage(self) -> None:
        """Anymate goes away."""
        self.sandbox.close()

    @rule()
    def back(self) -> None:
        """Anymate is back."""
        self.sandbox.start()

    @invariant()
    def nobody_s_run_is_finished(self) -> None:
        """No run is finished while a live guard is in it."""
        unfinished = {run["runId"] for run in self.sandbox.runs() if not run["finished"]}
        for guard in self.open:
            assert guard.run_id is None or guard.run_id in unfinished

    @invariant()
    def nothing_is_credited_too_early_or_twice(self) -> None:
        """What is credited was recorded by guards that are closed."""
        assert sum(run["overwriteEntries"] or 0 for run in self.sandbox.runs()) <= self.most

    def teardown(self) -> None:
        """When everybody has left and Anymate is back, everything that was promised is credited, and nothing owed."""
        try:
            self.sandbox.start()
            self.sandbox._world.faults.reset()
            for guard in list(self.open):
                self.leave(guard, "succeeded")
            for program in list(self.living):
                self.kill(program)
            last = self.nursery.program()
            for key in ("a", "b"):
                last.do("enter", key, key)
                last.do("leave", key, "succeeded")
            last.kill()
            runs = self.sandbox.runs()
            journal = journal_at(Path(os.environ["ANYMATE_STATE_DIR"]))
            assert all(run["finished"] for run in runs)
            assert self.least <= sum(run["overwriteEntries"] or 0 for run in runs) <= self.most
            assert rows_of(journal) == []
        finally:
            for program in self.living:
                program.kill()


def test_journal(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens in whatever order, no run of a live guard is finished, and all is credited once."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "0.8")
    monkeypatch.setenv("ANYMATE_TIMEOUT", "0.4")
    nursery = Nursery(tmp_path)
    Machine.sandbox, Machine.nursery = sandbox, nursery
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                database=None,
                derandomize=True,
                max_examples=40,
                stateful_step_count=30,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        nursery.close()

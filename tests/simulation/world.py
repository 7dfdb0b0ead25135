"""A world: guards in programs on one machine, driven step by step through the real lives and rules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from anymate_guard import AnymateGuardError, UnreachableError
from anymate_guard._api.client import OkToRun
from anymate_guard._journal.rows import Row
from anymate_guard._lifecycle.asks import (
    ActFor,
    Apply,
    Call,
    Drop,
    GiveBack,
    Keep,
    Life,
    Read,
    Say,
    Settled,
    Wait,
    Written,
)
from anymate_guard._lifecycle.calling import Way
from anymate_guard._lifecycle.entering import entering
from anymate_guard._lifecycle.leaving import give_up, leaving
from anymate_guard._lifecycle.options import Mate, Options
from anymate_guard._lifecycle.settling import settle
from anymate_guard._lifecycle.sharing import Place, Shared
from anymate_guard._run.run import Outcome

from .anymate import Anymate, Run
from .choices import Choices
from .machine import Machine, Process

ADDRESS = "https://anymate"
DEADLINE, TIMEOUT = 30.0, 10.0
Step = Generator[Any, Any, Any]


class Broken(AssertionError):
    """A promise is broken."""


@dataclass(frozen=True)
class Plan:
    """What a guard does.

    Attributes:
        program: In which program it is.
        process_key: Which process.
        entries: What it records, in two parts: each a power of four, so that the sum tells how often each was credited.
        username: Whose account.
        options: What it asks for.
        adopts: Whether it adopts a run that is started for it first.
        fails: Whether its body fails.
    """

    program: str
    process_key: str
    entries: tuple[int, int]
    username: str = "mate"
    options: Options = field(default_factory=lambda: Options(default_credit="never"))
    adopts: bool = False
    fails: bool = False


@dataclass(eq=False)
class Guard:
    """A guard at work.

    Attributes:
        plan: What it does.
        process: The program that it is in.
        steps: What is left of it.
        begun: How much it has recorded.
        safe: How much of that is surely in the journal.
        body: In which run its body is at work, or is to be.
        shared: The run that it is in, or was.
        lost: Whether only a file that was deleted knew of it.
        ask: The request that it waits for.
        waiting: Whether it waits for others.
        sent: Its last call.
        known: Others at work whose rows were in the journal when it looked there last.
        reported: How often its failure was reported.
        username: As whom it calls.
    """

    plan: Plan
    process: Process
    steps: Step | None = None
    begun: int = 0
    safe: int = 0
    body: int | None = None
    shared: Shared | None = None
    lost: bool = False
    ask: Any = None
    waiting: bool = False
    sent: Call | None = None
    known: list[Guard] = field(default_factory=list)
    reported: int = 0
    username: str = field(init=False)

    def __post_init__(self) -> None:
        self.username = self.plan.username


@dataclass(eq=False)
class World:
    """All there is.

    Attributes:
        plans: What the guards do, in the order they begin.
        choices: Decides what happens next.
        faults: Which kinds of faults there may be.
        backlog: How many finishes are owed from before, half of them to the process of the first guard.
        story: What happened, for people.
    """

    plans: tuple[Plan, ...]
    choices: Choices
    faults: frozenset[str]
    backlog: int = 0
    machine: Machine = field(default_factory=Machine)
    anymate: Anymate = field(default_factory=Anymate)
    guards: list[Guard] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    steps: int = 0
    injected: int = 0
    uncertain: list[tuple[int, int]] = field(default_factory=list)  # finishes that got lost: run and entries
    doubtful: bool = False  # whether a fault has happened after which a live run may be ended, as nobody could know

    def run(self) -> None:
        """Let everything happen, then see whether the promises hold.

        Raises:
            Broken: One does not.
        """
        for number in range(0, self.backlog, 2):
            key = f"old {number}"
            for owed in (
                Row(ADDRESS, "mate", key, self.anymate.start(key), 0, "done", id=number + 1),
                Row(ADDRESS, "mate", self.plans[0].process_key, None, 0, "done", id=number + 2),
            ):
                self.machine.file.content.rows[owed.id] = owed
        programs: dict[str, Process] = {}
        for plan in self.plans:
            process = programs.get(plan.program) or self.machine.start(plan.program)
            programs[plan.program] = process
            guard = Guard(plan, process)
            guard.steps = self._life_of(guard)
            next(guard.steps)
            self.guards.append(guard)
        current = self.guards[0]
        while any(guard.steps is not None for guard in self.guards):
            self.steps += 1
            if self.steps > 2000:
                raise Broken("it does not end")
            current = self._choose(current)
        self._end()

    def _choose(self, current: Guard) -> Guard:
        """One step of a guard, or something else that happens."""
        ready = [guard for guard in self.guards if guard.steps is not None]
        if current not in ready or current.waiting:
            others = [guard for guard in ready if guard is not current and not guard.waiting]
            current = others[0] if others else ready[0]
            if not others:
                for guard in ready:
                    guard.waiting = False
        turns = [current, *(guard for guard in ready if guard is not current)]
        ways: list[Callable[[], object]] = [functools.partial(self._step, guard) for guard in turns]
        guards = len(ways)
        ways += self._faults(current)
        choice = self.choices.pick(len(ways))
        if choice >= guards:
            self.injected += 1
        ways[choice]()
        return turns[choice] if choice < guards else current

    def _step(self, guard: Guard, outcome: str = "as asked") -> None:
        """Do what a guard has asked for, or the like."""
        assert guard.steps is not None
        guard.waiting = False
        try:
            guard.ask = guard.steps.send(outcome)
        except StopIteration:
            guard.steps = None

    def _faults(self, guard: Guard) -> list[Callable[[], object]]:
        """What may go wrong at this moment."""
        found: list[Callable[[], object]] = []
        if isinstance(guard.ask, Call) and "answers" in self.faults:
            found += [
                functools.partial(self._step, guard, how) for how in ("refused", "lost before", "lost after", "late")
            ]
        if isinstance(guard.ask, Apply) and "file" in self.faults:
            found += [lambda: self._step(guard, "not written"), lambda: self._step(guard, "end not seen")]
        if guard.ask is not None and "interruptions" in self.faults:
            found += [lambda: self._step(guard, "interrupted before"), lambda: self._step(guard, "interrupted after")]
            found += [lambda: self._step(guard, "interrupted twice")]
        return found + list(self._faults_beside(guard.process))

    def _faults_beside(self, process: Process) -> Iterator[Callable[[], object]]:
        """What may happen beside what a guard of a program does."""
        if "crashes" in self.faults:
            yield lambda: self._crash(process)
        if "looks" in self.faults and process.alive:
            yield lambda: self._look(process)
        for what, effect in list(self.anymate.late):
            yield functools.partial(self._arrive, what, effect)
        if "mistakes" in self.faults and process.alive and len(self.machine.processes) > 1:
            yield lambda: self._mistake(process)
        if "deletions" in self.faults and not any(
            one.journal.wanted.last.wrote for one in self.machine.processes.values()
        ):
            yield self._delete  # else the file alone knew of it
        if "locks" in self.faults:
            yield self._lock
        for run in self.anymate.runs.values() if "people" in self.faults else ():
            if run.is_open:
                yield functools.partial(self._finish_by_hand, run)

    # What guards do

    def _life_of(self, guard: Guard) -> Step:
        """A guard from entering to leaving; what it yields is what it asks for, what it is sent is how that goes."""
        plan, program = guard.plan, guard.process.program
        yield None
        options, place = plan.options, Place()
        if plan.adopts:
            options = replace(options, run_id=self.anymate.start(plan.process_key))
            self._tell(guard, f"adopts run {options.run_id}")
        self._tell(guard, "enters")
        try:
            begun = self.machine.now
            shared = yield from self._drive(
                guard, entering(program, place, self._way(plan.username), plan.process_key, options)
            )
            self._check_time(guard, begun, DEADLINE)
        except (AnymateGuardError, KeyboardInterrupt) as error:
            guard.body = None
            program.abandon(place)
            self._tell(guard, f"did not enter: {type(error).__name__}")
            return
        guard.body, guard.shared = shared.run_id, shared
        rows = self.machine.file.content.rows.values()
        if any(row.state == "finishing" and row.run_id == shared.run_id for row in rows):
            self.doubtful = True  # it has waited for that until its deadline
        for part in plan.entries:
            shared.run.add_entries(part)
            guard.begun += part
            self._tell(guard, f"records {part}")
            yield None
        guard.body = None
        self._tell(guard, "leaves")
        try:
            begun = self.machine.now
            outcome: Outcome = "failed" if plan.fails else "succeeded"
            failure = str(self.guards.index(guard)) if options.reports(outcome) else None
            life = leaving(program, place, self._way(guard.username), options, outcome=outcome, failure=failure)
            yield from self._drive(guard, life)
            self._check_time(guard, begun, DEADLINE)
            if shared.state == "over":
                self._is_safe(guard.process, shared)
        except (AnymateGuardError, KeyboardInterrupt) as error:
            program.abandon(place)
            self._tell(guard, f"left by {type(error).__name__}")

    def _drive(self, guard: Guard, life: Life[Any]) -> Step:
        """What the driver does, one request at a time."""
        answer: object = None
        error: BaseException | None = None
        while True:
            try:
                ask = life.send(answer) if error is None else life.throw(error)
            except StopIteration as end:
                return end.value
            answer, error = None, None
            # What is said, or noted in memory, is no step: nobody else can tell whether it has happened yet.
            how = (yield ask) if not isinstance(ask, Say | Settled) else "as asked"
            if how in {"interrupted twice", "interrupted before"} and isinstance(ask, Call):
                self._note_uncertain(ask)
            if how == "interrupted twice":
                if guard.sent is not None:
                    self._note_uncertain(guard.sent)  # whatever was heard of it is forgotten
                life.close()
                self._tell(guard, f"is interrupted twice before {_name(ask)}")
                raise KeyboardInterrupt
            if how == "interrupted before":
                self._tell(guard, f"is interrupted before {_name(ask)}")
                error = KeyboardInterrupt()
                continue
            try:
                answer = self._do(guard, ask, how)
            except BaseException as trouble:  # noqa: BLE001  # the life's own to decide about
                error = trouble
            if how == "interrupted after":
                if isinstance(error, AnymateGuardError) and isinstance(ask, Call):
                    self._note_uncertain(ask)
                self._tell(guard, "is interrupted after that")
                error = KeyboardInterrupt()

    def _do(self, guard: Guard, ask: Any, how: str) -> object:
        journal = guard.process.journal
        if isinstance(ask, Apply):
            return self._apply(guard, ask, how)
        if isinstance(ask, Call):
            return self._call(guard, ask, how)
        if isinstance(ask, Keep):
            journal.wanted.add(ask.entry)
            guard.process.unseen = True
            guard.body = ask.entry.row.run_id  # of one that adopts; its body begins later
        elif isinstance(ask, Read | Written):
            return self._read(guard, ask)
        elif isinstance(ask, GiveBack | Settled | Drop):
            self._let_go(guard, ask)
        elif isinstance(ask, Say):
            self._hear(ask)
        elif isinstance(ask, ActFor):
            guard.username = ask.mate.username
        elif isinstance(ask, Wait):
            self._wait(guard, ask)
        return None

    def _read(self, guard: Guard, ask: Read | Written) -> object:
        if isinstance(ask, Written):
            return guard.process.journal.wanted.written(ask.entry.row)
        self._look_around(guard)
        return guard.process.journal.read(ask.address, ask.rule)

    def _wait(self, guard: Guard, ask: Wait) -> None:
        self.machine.now += ask.seconds
        guard.waiting = True
        others = [other for other in self.guards if other.steps is not None and not other.waiting]
        self.machine.now += 0 if others else 1.0

    def _let_go(self, guard: Guard, ask: GiveBack | Settled | Drop) -> None:
        journal = guard.process.journal
        if isinstance(ask, GiveBack):
            self._give_back(guard, ask)
        elif isinstance(ask, Settled):
            journal.wanted.settle(ask.finish, ask.how)
        else:
            journal.wanted.drop(ask.numbers)
            journal.clear(0.0)

    def _give_back(self, guard: Guard, ask: GiveBack) -> None:
        self._tell(guard, "gives back")
        if self.machine.file.locked and guard.sent is not None:
            self._note_uncertain(guard.sent)  # what was heard of it is not written
        journal, held = guard.process.journal, self.machine.file.content.rows
        for row in (journal.wanted._written[number] for number in ask.numbers if number in journal.wanted._written):
            if row.finish and row.run_id and (row.id not in held or held[row.id].finish != row.finish):
                self.uncertain.append((row.run_id, row.entries or 0))  # another program has taken it
        journal.wanted.give_back(ask.numbers, ask.unsent)
        journal.clear(0.0)

    def _hear(self, say: Say) -> None:
        """People are told what nobody can tell for sure."""
        if say.event == "anymate.finish_uncertain":
            self.uncertain.append((int(str(say.fields["run_id"])), int(str(say.fields["entries"] or 0))))

    def _apply(self, guard: Guard, ask: Apply, how: str) -> object:
        file = self.machine.file
        file.full = how == "not written"
        self.machine.now += ask.patience if file.locked or file.full else 0.0
        guard.process.journal.wanted.interrupted = how == "end not seen"
        try:
            result = guard.process.journal.apply(ask.address, ask.rule, 0.0, durable=ask.durable)
        finally:
            self._tell(guard, f"journal: {_name(ask)}, {'not written' if file.locked else how}")
            file.full = guard.process.journal.wanted.interrupted = False
        guard.process.unseen = False
        self._look_around(guard)
        self._check_reading(guard)
        return result

    def _call(self, guard: Guard, ask: Call, how: str) -> object:
        effect = self._effect(guard, ask)
        guard.sent = ask
        if guard.process.mistaken:
            self._note_uncertain(ask)  # others that found its claim have sent it, too
        what = f"{ask.operation}({', '.join(map(str, ask.arguments))})"
        self._tell(guard, f"{what}: {how}")
        if how not in {"as asked", "interrupted after"}:
            self.machine.now = max(self.machine.now, ask.end)
            arrive = self._arriving(ask, effect)
            if how == "lost after":
                arrive()
            elif how == "late" and ask.operation == "finish_run":
                self.anymate.late.append((what, arrive))
                self.doubtful = True
            elif how == "lost before":
                self._note_uncertain(ask)
            raise UnreachableError(ask.operation, how, how != "refused")
        self.machine.now += 0.01
        return effect()

    def _arriving(self, ask: Call, effect: Callable[[], Any]) -> Callable[[], None]:
        """A call that reaches Anymate, whose answer nobody hears."""

        def arrive() -> None:
            try:
                effect()
            except AnymateGuardError:
                self._note_uncertain(ask)

        return arrive

    def _note_uncertain(self, ask: Call) -> None:
        if ask.operation == "finish_run":
            self.uncertain.append((ask.arguments[0], ask.arguments[1].entries or 0))

    def _effect(self, guard: Guard, ask: Call) -> Callable[[], Any]:
        if ask.operation == "start_run":
            return lambda: self.anymate.start(*ask.arguments)
        if ask.operation == "ok_to_run":  # who asks hears no
            return lambda: OkToRun(ok_to_run=False, gate_open=False, tasks_available=True, not_blocked_date=True)
        if ask.operation == "failure":
            return lambda: self._report(self.guards[int(ask.arguments[1])])
        run_id, kpis = ask.arguments

        def finish() -> None:
            self._check_alone(guard, run_id)
            self.anymate.finish(run_id, kpis.entries)

        return finish

    # What happens beside them

    def _crash(self, process: Process) -> None:
        self.story.append(f"{process.name} is killed")
        process.alive = False
        self._cut_off(process)
        for guard in self.guards:
            if guard.process is process and guard.steps is not None:
                guard.steps.close()
                guard.steps, guard.body = None, None

    def _cut_off(self, process: Process) -> None:
        """What a program is about to send, or has heard, is not known to others."""
        wrote, written = process.journal.wanted.last.wrote, process.journal.wanted._written
        for row in (*self.machine.file.content.rows.values(), *wrote.values()):
            own = row is not None and (row.id in written or row.id in wrote)
            if own and row is not None and row.finish and row.run_id:
                self.uncertain.append((row.run_id, row.entries or 0))
        for guard in self.guards:
            for call in (guard.ask, guard.sent):
                if guard.process is process and guard.steps is not None and isinstance(call, Call):
                    self._note_uncertain(call)

    def _look(self, process: Process) -> None:
        self.story.append(f"{process.name} looks at its journal")
        process.journal.look()
        process.unseen &= self.machine.file.locked
        self._is_safe(process)
        for shared in process.abandoned():
            self._finish(process, give_up(process.program, shared))

    def _is_safe(self, process: Process, shared: Shared | None = None) -> None:
        """Note that what a program has recorded so far, in a run, is in the journal, or finished."""
        if self.machine.file.locked:
            return
        for guard in self.guards:
            if guard.process is process and shared in {None, guard.shared} and not guard.lost:
                guard.safe = guard.begun

    def _arrive(self, what: str, effect: Callable[[], None]) -> None:
        self.story.append(f"Anymate gets {what} late")
        self.anymate.late = [one for one in self.anymate.late if one[1] is not effect]
        effect()

    def _mistake(self, process: Process) -> None:
        process.mistaken = not process.mistaken
        self._cut_off(process)
        self.doubtful = True
        self.story.append(f"{process.name} is {'' if process.mistaken else 'no longer '}taken for dead")

    def _delete(self) -> None:
        self.story.append("the journal's file is deleted")
        self.machine.file.delete()
        for process in self.machine.processes.values():
            process.unseen = True
        for guard in self.guards:
            guard.safe = 0  # until its program has written it again
            held = guard.process.journal.wanted._rows
            guard.lost |= not guard.process.alive or guard.shared is None or guard.shared.entry.row.id not in held

    def _lock(self) -> None:
        self.machine.file.locked = not self.machine.file.locked
        self.story.append(f"the journal's file is {'' if self.machine.file.locked else 'no longer '}locked")

    def _finish_by_hand(self, run: Run) -> None:
        """Somebody finishes a run in Anymate, with nothing in it."""
        self.anymate.finish(run.run_id, None)
        self.story.append(f"a person finishes run {run.run_id}")

    def _look_around(self, guard: Guard) -> None:
        guard.known = [other for other in self.guards if other.shared is not None and not other.process.unseen]

    def _report(self, guard: Guard) -> None:
        """Failure, which Anymate would forget with the FinishRun of a run that is open still."""
        guard.reported += 1
        run = self.anymate.runs.get(guard.shared.run_id or 0) if guard.shared else None
        if run is not None and run.is_open:
            raise Broken(f"the failure of {guard.process.name} is reported before its run {run.run_id} is finished")

    def _finish(self, process: Process, life: Life[Any]) -> Any:
        """Drive a life to its end without any fault."""
        helper = Guard(Plan(process.name, "-", (0, 0)), process)
        steps = self._drive(helper, life)
        while True:
            try:
                steps.send(None if helper.ask is None else "as asked")
                helper.ask = "something"
            except StopIteration as end:
                return end.value

    # Promises

    def _end(self) -> None:
        """Let programs end, and another one settle what is owed; then everything has to be right."""
        self.machine.file.locked = False
        for what, effect in list(self.anymate.late):
            self._arrive(what, effect)
        for process in [one for one in self.machine.processes.values() if one.alive]:
            for shared in process.program.runs():
                self._finish(process, give_up(process.program, shared, exit_by=self.machine.now + DEADLINE))
            process.journal.close()
            if any(row and row.state == "finishing" for row in process.journal.wanted._rows.values()):
                raise Broken(f"{process.name} still claims what nobody sends")
            self._is_safe(process)
            process.alive = False
        last = self.machine.start("last")
        for username in sorted({plan.username for plan in self.plans}):
            for _ in range(3):
                way = self._way(username)
                self._finish(last, settle(way, Row(ADDRESS, username, "-"), seconds=float("inf")))
        last.journal.close()
        self._check_credits()
        reported = [guard.reported for guard in self.guards if guard.plan.fails and guard.plan.options.report_failure]
        # Who is taken for dead may report, too, and so may whoever comes after a kill, if nothing could be written.
        once = self.faults.isdisjoint({"file", "locks", "mistakes"})
        lost = not any(reported) and (not self.injected or self.faults == {"people"})
        if reported and (lost or (once and max(reported) > 1)):
            raise Broken(f"failures were reported {reported} times")
        left = [row for row in self.machine.file.content.rows.values() if row.state not in {"starting", "refused"}]
        if left:
            raise Broken(f"left in the journal: {left}")

    def _check_credits(self) -> None:
        """What was recorded is credited once, or told to people; but for a killed program's last second."""
        rows = self.machine.file.content.rows.values()
        refused = sum(row.entries or 0 for row in rows if row.state == "refused")
        for guard in self.guards:
            for part in guard.plan.entries:
                times = _digit(self.anymate.credited, part) + _digit(refused, part)
                least = guard.safe >= sum(other for other in guard.plan.entries if other <= part)
                most = guard.begun >= part
                if not least - self._may_be_taken_for_credited(part) <= times <= most:
                    raise Broken(
                        f"{part} of {guard.process.name} was credited {times} times, not {least:d} to {most:d}"
                    )

    def _may_be_taken_for_credited(self, part: int) -> bool:
        """Whether it was in a finish that got lost, and whose run somebody else has ended: who could tell?"""
        return any(
            _digit(entries, part) and not _digit(self.anymate.runs[run_id].credited or 0, part)
            for run_id, entries in self.uncertain
        )

    def _check_alone(self, guard: Guard, run_id: int) -> None:
        run = self.anymate.runs.get(run_id)
        if self.doubtful or run is None or not run.is_open:
            return
        for other in (guard, *guard.known):
            if other.body == run_id and other.steps is not None:
                raise Broken(f"{guard.process.name} ends run {run_id}, which {other.process.name} is in")

    def _check_reading(self, guard: Guard) -> None:
        """What is owed to others is read in small portions, however much there is."""
        if self.machine.file.read > 100 + 10 * len(self.guards):
            raise Broken(f"{guard.process.name} read {self.machine.file.read} rows at once")

    def _check_time(self, guard: Guard, begun: float, deadline: float) -> None:
        if self.machine.now - begun > deadline + 1 and len(self.guards) == 1:
            raise Broken(f"{guard.process.name} took {self.machine.now - begun:.1f} s")

    def _way(self, username: str) -> Way:
        mate = Mate(ADDRESS, username, TIMEOUT, DEADLINE, disabled=False)
        return Way(mate, lambda: self.machine.now, self.machine.now + DEADLINE)

    def _tell(self, guard: Guard, what: str) -> None:
        self.story.append(f"{guard.process.name}/{guard.plan.process_key}: {what}")


def _digit(number: int, part: int) -> int:
    return number // part % 4


def _name(ask: Any) -> str:
    if isinstance(ask, Apply):
        return ask.rule.__qualname__.replace("<locals>.", "").replace(".<lambda>", "")
    return ask.operation if isinstance(ask, Call) else type(ask).__name__

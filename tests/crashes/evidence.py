"""What the bots did by their own notes, against what Anymate has."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from anymate_guard._journal.contents import rows_of
from anymate_guard._journal.journals import journal_at
from anymate_guard.sandbox import Sandbox

from .bots import MOST_LOST

SLOW = 0.03
ALL_CALLS = 1_000_000


@dataclass
class Stay:
    """One use of a guard: from before it is entered until it is left, or its process is gone."""

    process: int
    key: str
    run_id: int | None = None
    entered: bool = False
    end: float = math.inf
    left: bool = False
    begun: int = 0  # entries, also those whose counting a kill may have cut off
    counted: list[tuple[float, int]] = field(default_factory=list)


@dataclass
class Evidence:
    """All that is noted in a folder."""

    stays: list[Stay] = field(default_factory=list)
    kills: dict[int, float] = field(default_factory=dict)
    power_cut: bool = False  # whether they were killed by that, all at once

    @classmethod
    def of(cls, folder: Path, *, power_cut: bool = False) -> Evidence:
        """Read the notes; a process's end is the end of its stays."""
        evidence = cls(power_cut=power_cut)
        for path in sorted(folder.iterdir()):
            evidence._read(path)
        for stay in evidence.stays:
            if stay.end == math.inf:
                stay.end = evidence.kills.get(stay.process, math.inf)
        return evidence

    def _read(self, path: Path) -> None:
        current: dict[tuple[int, int], Stay] = {}
        for line in path.read_text().splitlines():
            at, process, thread, what, fact = json.loads(line)
            if what == "killed":
                self.kills[process] = at
                continue
            if what == "entering":
                self.stays.append(Stay(process, fact))
                current[process, thread] = self.stays[-1]
            stay = current[process, thread]
            if what == "entered":
                stay.run_id, stay.entered = fact, True
            elif what == "count":
                stay.begun += fact
            elif what == "counted":
                stay.counted.append((at, fact))
            elif what == "leaving":
                stay.end = at
            elif what == "left":
                stay.left = True

    def least(self, stay: Stay) -> int:
        """How much of it has to be credited, whatever became of its process."""
        kill = self.kills.get(stay.process)
        # Of several guards in a run, only the last one out sees that everything is in the journal at once.
        at_once = self.kills if self.power_cut else {stay.process}
        together = [other for other in self.stays if other.process in at_once and other.key == stay.key]
        if kill is None or all(other.left for other in together if other.run_id in {None, stay.run_id}):
            return sum(count for _, count in stay.counted)
        return sum(count for at, count in stay.counted if at <= kill - MOST_LOST)

    def moments(self) -> Counter[str]:
        """In what the killed processes died."""
        last = {stay.process: stay for stay in self.stays}
        return Counter(_moment(last[process], kill) for process, kill in self.kills.items())


def _moment(stay: Stay, kill: float) -> str:
    if not stay.entered:
        return "entering"
    if stay.left:
        return "between"
    return "leaving" if stay.end != kill else "body"


@contextlib.contextmanager
def slow_sandbox(keys: Iterable[str], hitches: int = 0) -> Iterator[Sandbox]:
    """A sandbox that dates by the clock of the notes, and takes hundredths of a second for each start and finish.

    It takes them before the state changes on one process key, after that on the next. While hitches are left, each
    third call ends without an answer.
    """
    with Sandbox(clock=time.monotonic) as sandbox:
        for number, key in enumerate(sorted(set(keys))):
            sandbox.set_process(key, entries=0, seconds_saved_per_entry=0)  # who counts nothing is credited nothing
            after = number % 2 == 0
            for operation in ("StartRun", "FinishRun"):
                for _ in range(hitches):
                    sandbox.fail_next(operation, delay=SLOW, after=after, process_key=key, times=2)
                    sandbox.fail_next(operation, hang=SLOW, after=after, process_key=key)
                sandbox.fail_next(operation, delay=SLOW, after=after, process_key=key, times=ALL_CALLS)
        yield sandbox


def observe(sandbox: Sandbox, folder: Path, mode: str, seed: str, kills: int) -> Evidence:
    """Let the bots do their work, to the end, and look at it while the children they left behind still live."""
    notes = folder / "notes"
    notes.mkdir()
    script = Path(__file__).with_name("bots.py")
    print(f"seed: {seed}")  # noqa: T201
    environ = {**os.environ, **sandbox.environ, "ANYMATE_STATE_DIR": str(folder / "state")}
    environ.pop("COVERAGE_PROCESS_CONFIG", None)  # whoever is killed could not write down what it covered
    with subprocess.Popen(
        [sys.executable, str(script), mode, str(notes), seed, str(kills)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
        start_new_session=True,
    ) as bots:
        try:
            assert bots.stdout is not None
            assert bots.stdout.readline() == "done\n"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(bots.pid, signal.SIGKILL)
    evidence = Evidence.of(notes)
    assert [stay for stay in evidence.stays if stay.entered and stay.run_id is None] == []
    assert rows_of(journal_at(folder / "state")) == []
    return evidence


def check(sandbox: Sandbox, evidence: Evidence) -> None:
    """Hold what Anymate has against the notes, run by run."""
    runs = sandbox.runs()
    assert [run for run in runs if not run["finished"]] == []

    finished = {run["runId"]: datetime.fromisoformat(run["finishedAt"] or "").timestamp() for run in runs}
    ended = [(stay.run_id, stay.end) for stay in evidence.stays if stay.run_id]
    too_early = [(run_id, finished[run_id], end) for run_id, end in ended if finished[run_id] < end]
    assert too_early == [], "finished while somebody was in it"

    # By process, as what was counted gets a run of its own when somebody else has ended the one that it was counted in.
    least: Counter[str] = Counter()
    most: Counter[str] = Counter()
    credited: Counter[str] = Counter()
    for stay in evidence.stays:
        least[stay.key] += evidence.least(stay)
        most[stay.key] += stay.begun
    for run in runs:
        credited[run["processKey"]] += run["creditedEntries"] or 0
    lost = {key: (least[key], credited[key]) for key in least if credited[key] < least[key]}
    assert lost == {}, f"credited less than was counted: {lost}"
    gained = {key: (most[key], credit) for key, credit in credited.items() if credit > most[key]}
    assert gained == {}, f"credited more than was counted: {gained}"


def finishes(sandbox: Sandbox, *, succeeded: bool = False) -> Counter[int]:
    """How often each run was asked to be finished, or was finished."""
    requests = [request for request in sandbox.requests() if request["operation"] == "FinishRun"]
    return Counter(
        json.loads(request["body"])["runId"]
        for request in requests
        if not succeeded or (request["status"] == 200 and json.loads(request["answer"])["succeeded"])
    )

"""Mistakes of an earlier version, put back by a changed line each: the simulation has to find every one of them."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from anymate_guard._journal import owed
from anymate_guard._journal.journal import Journal
from anymate_guard._journal.rows import Entry
from anymate_guard._journal.view import View
from anymate_guard._journal.wanted import Wanted
from anymate_guard._lifecycle import leaving, settling
from anymate_guard._lifecycle.options import Options

from .choices import every
from .world import Plan
from .worlds import SMALL, Failed, Seen, plan, try_one

_MOST = 10_000  # schedules


@dataclass(frozen=True)
class Mutant:
    """A mistake, and where it shows.

    Attributes:
        function: What is changed.
        line: A part of its source.
        instead: What stands there instead.
        plans: The world in which it shows.
        faults: What has to go wrong for it.
        budget: How many faults and changes of turn that takes at most.
        backlog: How many finishes are owed, half of them to the guard's own process.
    """

    function: Callable[..., Any]
    line: str
    instead: str
    plans: tuple[Plan, ...] = SMALL["two programs"]
    faults: frozenset[str] = frozenset()
    budget: int = 3
    backlog: int = 0

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Make the mistake in the block."""
        source = textwrap.dedent(inspect.getsource(self.function))
        assert source.count(self.line) == 1, f"{self.function.__qualname__} has changed"
        space = dict(self.function.__globals__)
        exec(compile(source.replace(self.line, self.instead), "a mutant", "exec"), space)
        right = self.function.__code__
        self.function.__code__ = space[self.function.__name__].__code__
        try:
            yield
        finally:
            self.function.__code__ = right

    def find(self) -> tuple[int, str]:
        """In how many schedules it is found, and its story, which is empty if it is not."""
        seen, story = Seen(), ""
        try:
            with self.put_back():
                self.try_world(seen)
        except Failed as error:
            story = str(error)
        return seen.schedules + 1, story

    def try_world(self, seen: Seen, most: int | None = None) -> None:
        """Try the world so often, first with few faults.

        Raises:
            Failed: A promise was broken.
        """
        for budget in range(self.budget + 1):
            for choices in every(budget):
                try_one(self.plans, choices, self.faults, budget, seen, "every order", self.backlog)
                if seen.schedules >= (most or _MOST):
                    return


MUTANTS = {
    "what is owed ends the run that is adopted": Mutant(
        owed._owed,
        'adopts = standing == "entering" and of.run_id is not None',
        "adopts = False",
        SMALL["one that adopts"],
        frozenset({"answers"}),
    ),
    "two mates are taken for two runs": Mutant(
        View.of_process,
        "self.rows_of(row, itself=False)",
        "[other for other in self.rows_of(row, itself=False) if other.username == row.username]",
        SMALL["two mates"],
    ),
    "a file that was deleted is not noticed": Mutant(
        Wanted.write,
        "last.opened != opened",
        "False",
        faults=frozenset({"deletions", "looks"}),
    ),
    "what Anymate has stays in the file": Mutant(Wanted.write, "tables.settle(*finish)", "pass", SMALL["a guard"]),
    "what another program took is recorded again": Mutant(
        Entry.begin_anew,
        "= taken.entries,",
        "= None,",
        faults=frozenset({"looks", "mistakes"}),
    ),
    '"not open" settles what was never sent': Mutant(
        settling._not_open,
        "if way.claims.unsent.isdisjoint(finish.numbers):",
        "if True:",
        faults=frozenset({"answers", "crashes"}),
    ),
    "what others took of a transaction whose end was not seen is written again": Mutant(
        Wanted._compare,
        "self._written.update({number: row for number, row in unseen.items() if row is not None})",
        "pass",
        faults=frozenset({"file"}),
    ),
    "what the disk had no room for is taken for written": Mutant(
        Journal._apply, "list[object]()", "[True]", faults=frozenset({"file"})
    ),
    "without a journal, others in the run are not looked for": Mutant(
        leaving._finish_without_journal, "if written or occupied:", "if written:", faults=frozenset({"locks"})
    ),
    "what is on the disk is sent without its claim there": Mutant(
        leaving._finish_without_journal,
        "if written or occupied:",
        "if occupied:",
        SMALL["a guard"],
        frozenset({"crashes", "locks", "looks"}),
    ),
    "what was sent without a journal counts as never sent": Mutant(
        leaving._finish_without_journal,
        "way.claims.unsent.discard(row.id)",
        "pass",
        SMALL["a guard"],
        frozenset({"answers", "locks"}),
    ),
    "a guard that may not start is forgotten before it has given back its claims": Mutant(
        leaving.take_back,
        "yield Drop({shared.entry.row.id})",
        "yield Drop({shared.entry.row.id}); program.remove(shared)",
        SMALL["one that may not start"],
        frozenset({"answers", "interruptions"}),
        budget=2,
    ),
    "all that is owed is read at once": Mutant(
        owed.claim, "row.username, claims.batch", "row.username, 1 << 30", SMALL["a guard"], backlog=200
    ),
    "all that waits for the process of a guard is read at once": Mutant(
        owed.claim, "claims.batch, claims.tried", "1 << 30, ()", SMALL["a guard"], backlog=400
    ),
    "a row has no owner": Mutant(Wanted.add, "entry.change(owner=self._me)", "pass"),
    "a failure is reported by who leaves, not by the last one out": Mutant(
        leaving._send,
        'yield say("info", "run_left", process_key=shared.run.process_key, run_id=shared.run_id)',
        "yield from report_failure(way, Delivery(Finish((shared.entry.row,))))",
        SMALL["one that fails"],
    ),
    "a failure is reported before it is written that its run is finished": Mutant(
        settling._acknowledge,
        "if until is None or finish.failure is not None:",
        "if False:",
        SMALL["one that fails"],
        frozenset({"crashes"}),
    ),
    "a failure in an adopted run that a person has finished is forgotten": Mutant(
        settling._start_over,
        "        else:\n            yield from _tell(way, delivery)",
        "        else:\n            pass",
        (plan(0, "A"), plan(1, "B", adopts=True, fails=True, options=Options(report_failure=True))),
        frozenset({"people"}),
    ),
}

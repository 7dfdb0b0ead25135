"""What 10 000 bots that start at midnight do to one Anymate: `python -m benchmarks.midnight`.

A simulation. Simulated are the clock, the network (10 to 30 ms per call), the bots, and a server that takes
200 requests in each second and answers 429 to the rest. Real are the guard's wait between two tries (jitter,
growth, heed of Retry-After), which is called as it is, and the default of `ANYMATE_DEADLINE`.

A bot is a process of its own, so each needs a token: it asks for token and run, works for 2 to 10 minutes,
and finishes. A guarded bot that gets no run in time works all the same, and starts the run late, before its
finish; what it can't deliver then, its journal owes. A bot that calls Anymate by hand gives up.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from unittest.mock import patch

from anymate_guard import Settings
from anymate_guard._api import calls

LATENCY = (0.01, 0.03)
WORK = (120.0, 600.0)
DEADLINE = Settings(disabled=True).deadline

Wait = Callable[[int, str | None], float]
Bot = Generator[float, None, None]  # yields how many seconds pass until it goes on


@dataclass
class Server:
    """Takes so many requests in each second; answers 429 to the rest, with Retry-After or without."""

    rate: int
    retry_after: str | None
    taken: Counter[int] = field(default_factory=Counter)
    asked: Counter[int] = field(default_factory=Counter)

    def take(self, now: float) -> bool:
        """Whether a request is taken."""
        second = int(now)
        self.asked[second] += 1
        if self.taken[second] >= self.rate:
            return False
        self.taken[second] += 1
        return True


@dataclass
class Plan:
    """How the bots of one scenario behave.

    Attributes:
        name: What the table calls it.
        wait: Seconds before the next try.
        deadline: Seconds in all for entering, and again for leaving.
        works_on: Whether a bot works without a run, and starts it late.
        spread: Seconds over which the bots start.
        retry_after: What the server sends with a 429.
    """

    name: str
    wait: Wait = calls._wait
    deadline: float = DEADLINE
    works_on: bool = True
    spread: float = 0.0
    retry_after: str | None = "1"


@dataclass
class Outcome:
    """What came of one scenario."""

    plan: Plan
    server: Server
    counts: Counter[str] = field(default_factory=Counter)
    last_start: float = 0.0

    def row(self) -> list[object]:
        """The cells of the table."""
        counts, refused = self.counts, self.server.asked.total() - self.server.taken.total()
        return [
            self.plan.name,
            counts["worked"],
            counts["in time"],
            f"{self.last_start:.0f} s",
            counts["late"],
            counts["finished"],
            counts["tokens"],
            self.server.asked.total(),
            refused,
            max(self.server.asked.values()),
        ]


HEAD = ["worked", "run in time", "last at", "run late", "finished", "tokens", "requests", "429s", "peak/s"]


class Midnight:
    """One scenario, played."""

    def __init__(self, plan: Plan, bots: int, rate: int) -> None:
        self.now = 0.0
        self.outcome = Outcome(plan, Server(rate, plan.retry_after))
        self._plan = plan
        self._serial = itertools.count()  # so that bots never have to be compared
        self._agenda: list[tuple[float, int, Bot]] = []
        for _ in range(bots):
            self._at(random.uniform(0, plan.spread), self._bot())

    def play(self) -> Outcome:
        """Let time pass until every bot is done."""
        while self._agenda:
            self.now, _, bot = heapq.heappop(self._agenda)
            seconds = next(bot, None)
            if seconds is not None:
                self._at(self.now + seconds, bot)
        return self.outcome

    def _at(self, moment: float, bot: Bot) -> None:
        heapq.heappush(self._agenda, (moment, next(self._serial), bot))

    def _bot(self) -> Bot:
        counts = self.outcome.counts
        end = self.now + self._plan.deadline
        token = yield from self._call(end)
        counts["tokens"] += token
        run = token and (yield from self._call(end))
        if run:
            counts["in time"] += 1
            self.outcome.last_start = max(self.outcome.last_start, self.now)
        elif not self._plan.works_on:
            return
        counts["worked"] += 1
        yield random.uniform(*WORK)
        end = self.now + self._plan.deadline
        if not token:
            token = yield from self._call(end)
            counts["tokens"] += token
        if token and not run:
            run = yield from self._call(end)
            counts["late"] += run
        finished = run and (yield from self._call(end))
        counts["finished"] += finished

    def _call(self, end: float) -> Generator[float, None, bool]:
        """Make one call, again and again until the deadline; whether it was taken."""
        for attempt in itertools.count(1):
            yield random.uniform(*LATENCY)
            if self.outcome.server.take(self.now):
                return True
            wait = self._plan.wait(attempt, self._plan.retry_after)
            if self.now + wait >= end:
                return False
            yield wait
        raise AssertionError  # the loop has no other end


def plans() -> list[Plan]:
    """The scenarios of the table."""
    return [
        Plan("by hand, no retry", wait=lambda *_: math.inf, works_on=False),
        Plan("by hand, a retry each second", wait=lambda *_: 1.0, works_on=False),
        Plan("guard, Retry-After 1"),
        Plan("guard, no Retry-After", retry_after=None),
        Plan("guard, Retry-After 20", retry_after="20"),
        Plan("guard, ANYMATE_DEADLINE=300", deadline=300),
        Plan("guard, starts spread over 2 minutes", spread=120),
    ]


def table(bots: int, rate: int) -> str:
    """Play all scenarios and render what came of them."""
    rows: list[list[object]] = [[f"{bots:,} bots".replace(",", " "), *HEAD]]
    with patch.object(calls, "chance", random):
        for plan in plans():
            random.seed(0)  # one night for all, the guard's jitter included
            rows.append(Midnight(plan, bots, rate).play().row())
    shown = [[f"{cell:,}".replace(",", " ") if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = ["| " + " | ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) + " |" for row in shown]
    rule = "|" + "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.midnight", description=__doc__)
    parser.add_argument("--bots", type=int, default=10_000)
    parser.add_argument("--rate", type=int, default=200, help="requests that the server takes in a second")
    arguments = parser.parse_args()
    print(table(arguments.bots, arguments.rate))

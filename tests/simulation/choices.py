"""What happens next: every choice in turn, or seeded at random; and how a schedule that fails is made short."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass
class Choices:
    """The choices of one schedule.

    Attributes:
        script: The first choices; what comes after it is taken from `rng`, or is the usual.
        budget: How many unusual choices, such as faults, there may be.
        rng: Chooses at random.
        odds: How likely an unusual choice is.
        made: What was chosen.
        widths: How many ways there were at each choice.
    """

    script: Sequence[int] = ()
    budget: int = 3
    rng: random.Random | None = None
    odds: float = 0.1
    made: list[int] = field(default_factory=list)
    widths: list[int] = field(default_factory=list)

    def pick(self, ways: int) -> int:
        """One of so many ways; the first one is the usual and costs nothing."""
        width = ways if self.budget > 0 else 1
        place = len(self.made)
        if place < len(self.script):
            choice = min(self.script[place], width - 1)
        elif self.rng is not None and width > 1 and self.rng.random() < self.odds:
            choice = self.rng.randrange(1, width)
        else:
            choice = 0
        self.made.append(choice)
        self.widths.append(width)
        self.budget -= choice != 0
        return choice


def every(budget: int) -> Iterator[Choices]:
    """All schedules with so many unusual choices at the most; each has to be used up before the next."""
    script: list[int] | None = []
    while script is not None:
        choices = Choices(script, budget)
        yield choices
        script = _next(choices)


def _next(choices: Choices) -> list[int] | None:
    made, widths = choices.made, choices.widths
    for place in reversed(range(len(made))):
        if made[place] + 1 < widths[place]:
            return [*made[:place], made[place] + 1]
    return None


def shortest(script: Sequence[int], budget: int, fails: Callable[[Choices], bool]) -> list[int]:
    """The schedule with every unusual choice taken out that is not needed for it to fail."""
    best = list(script)
    while best and best[-1] == 0:
        best.pop()
    place = 0
    while place < len(best):
        for tried in ([*best[:place], 0, *best[place + 1 :]], [*best[:place], *best[place + 1 :]]):
            if best[place] and fails(Choices(tried, budget)):
                best = tried
                break
        else:
            place += 1
    return best

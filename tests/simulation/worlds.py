"""The worlds that are tried: small ones in every order, large ones seeded at random."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from anymate_guard._lifecycle.options import Options

from .choices import Choices, every, shortest
from .world import Plan, World

ALL_FAULTS = frozenset(
    {"answers", "crashes", "deletions", "file", "interruptions", "locks", "looks", "mistakes", "people"}
)


def plan(number: int, program: str, process_key: str = "p", **more: object) -> Plan:
    """The plan of one of several guards, which records what no other does."""
    return Plan(program, process_key, (4 ** (2 * number), 4 ** (2 * number + 1)), **more)  # type: ignore[arg-type]


SMALL = {
    "a guard": (plan(0, "A"),),
    "two programs": (plan(0, "A"), plan(1, "B")),
    "two guards in a program": (plan(0, "A"), plan(1, "A")),
    "two mates": (plan(0, "A"), plan(1, "B", username="second")),
    "one that fails": (plan(0, "A", options=Options(report_failure=True), fails=True), plan(1, "B")),
    "one that may not start": (plan(0, "A"), plan(1, "B", "stopped", options=Options(check_ok_to_run=True))),
    "one that adopts": (plan(0, "A"), plan(1, "B", adopts=True)),
    "three guards in two programs": (plan(0, "A"), plan(1, "B"), plan(2, "B")),
    "a program after another, which adopts": (plan(0, "A", "q"), plan(1, "A"), plan(2, "B", adopts=True)),
}


@dataclass
class Seen:
    """What was tried.

    Attributes:
        schedules: How many.
        steps: How many steps they had in all.
        faults: How many faults happened in them.
    """

    schedules: int = 0
    steps: int = 0
    faults: int = 0

    def add(self, world: World) -> None:
        """Count a world that has ended."""
        self.schedules += 1
        self.steps += world.steps
        self.faults += world.injected


class Failed(AssertionError):
    """A promise was broken; the text is the story of how."""


def try_small(name: str, faults: frozenset[str], budget: int, seen: Seen, most: int | None = None) -> None:
    """Try a small world in every order with so many faults and changes of turn.

    Raises:
        Failed: A promise was broken.
    """
    for choices in every(budget):
        try_one(SMALL[name], choices, faults, budget, seen, f"{name}, every order")
        if most is not None and seen.schedules >= most:
            return


def try_large(seed: int, seen: Seen) -> None:
    """Try a large world, drawn and run by a seed.

    Raises:
        Failed: A promise was broken.
    """
    rng = random.Random(seed)
    faults = frozenset(rng.sample(sorted(ALL_FAULTS), rng.randint(1, len(ALL_FAULTS))))
    plans = tuple(_random_plans(rng, adopting="mistakes" not in faults))  # what is taken of an adopter gets no new run
    if "deletions" in faults:
        faults -= {"mistakes"}  # what a program took of another is known to the file only
    if "locks" in faults:
        faults &= {"answers", "crashes", "locks", "looks"}  # what can't be written is not known to others
    choices = Choices(budget=30, rng=rng, odds=rng.choice([0.03, 0.1, 0.3]))
    try_one(plans, choices, faults, 30, seen, f"seed {seed}")


def large_for(seconds: float, seed: int, seen: Seen, most: int | None = None) -> Iterator[int]:
    """Try large worlds for some time, so many at the most; yields the seed of each one."""
    end, last = time.monotonic() + seconds, None if most is None else seed + most
    while time.monotonic() < end and seed != last:
        try_large(seed, seen)
        yield seed
        seed += 1


def _random_plans(rng: random.Random, *, adopting: bool) -> Iterator[Plan]:
    for number in range(rng.randint(2, 7)):
        credit = rng.choice(["always", "succeeded", "never"])
        yield plan(
            number,
            rng.choice("ABCD"),
            rng.choice("ppq"),
            username=rng.choice(["mate", "mate", "second"]),
            adopts=rng.random() < 0.2 and adopting,
            fails=rng.random() < 0.2,
            options=Options(
                default_credit=credit,  # type: ignore[arg-type]
                report_failure=rng.random() < 0.5,
                require_start=rng.random() < 0.2,
            ),
        )


def try_one(
    plans: tuple[Plan, ...],
    choices: Choices,
    faults: frozenset[str],
    budget: int,
    seen: Seen,
    what: str,
    backlog: int = 0,
) -> None:
    """Try one schedule.

    Raises:
        Failed: A promise was broken.
    """

    def outcome(script: Choices) -> tuple[World, Exception | None]:
        world = World(plans, script, faults, backlog)
        try:
            world.run()
        except Exception as error:  # noqa: BLE001  # a broken promise, or a mistake in the code that is tried
            return world, error
        return world, None

    world, error = outcome(choices)
    if error is None:
        seen.add(world)
        return
    script = shortest(choices.made, budget, lambda script: outcome(script)[1] is not None)
    world, error = outcome(Choices(script, budget))
    raise Failed(_story(world, error, f"{what}, after {seen.schedules} other schedules", script))


def _story(world: World, error: Exception | None, what: str, script: Sequence[int]) -> str:
    """How it came to be, as short as it can be told."""
    guards = [
        f"  {one.program}/{one.process_key}: {one.entries}{' adopts' if one.adopts else ''}" for one in world.plans
    ]
    lines = [f"{type(error).__name__}: {error}", what, "guards:", *guards]
    return "\n".join([*lines, "what happened:", *(f"  {line}" for line in world.story), f"choices: {script}"])

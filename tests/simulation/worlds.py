"""The worlds that are tried: small ones in every order, large ones seeded at random."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import attrs

from anymate_guard._lifecycle.options import Options

from .choices import Choices, every, shortest
from .world import Plan, World

ALL_FAULTS = frozenset({"answers", "crashes", "deletions", "file", "interruptions", "looks", "mistakes"})


def plan(number: int, program: str, process_key: str = "p", **more: object) -> Plan:
    """The plan of one of several guards, which records what no other does."""
    return Plan(program, process_key, (4 ** (2 * number), 4 ** (2 * number + 1)), **more)  # type: ignore[arg-type]


SMALL = {
    "a guard": (plan(0, "A"),),
    "two programs": (plan(0, "A"), plan(1, "B")),
    "two guards in a program": (plan(0, "A"), plan(1, "A")),
    "two mates": (plan(0, "A"), plan(1, "B", username="second")),
    "one that adopts": (plan(0, "A"), plan(1, "B", adopts=True)),
    "three guards in two programs": (plan(0, "A"), plan(1, "B"), plan(2, "B")),
    "a program after another, which adopts": (plan(0, "A", "q"), plan(1, "A"), plan(2, "B", adopts=True)),
}


@attrs.define
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
        _try(SMALL[name], choices, faults, budget, seen, f"{name}, every order")
        if most is not None and seen.schedules >= most:
            return


def try_large(seed: int, seen: Seen) -> None:
    """Try a large world, drawn and run by a seed.

    Raises:
        Failed: A promise was broken.
    """
    rng = random.Random(seed)
    plans = tuple(_random_plans(rng))
    faults = frozenset(rng.sample(sorted(ALL_FAULTS), rng.randint(1, len(ALL_FAULTS))))
    if "deletions" in faults:
        faults -= {"mistakes"}  # what a program took of another is known to the file only
    choices = Choices(budget=30, rng=rng, odds=rng.choice([0.03, 0.1, 0.3]))
    _try(plans, choices, faults, 30, seen, f"seed {seed}")


def large_for(seconds: float, seed: int, seen: Seen) -> Iterator[int]:
    """Try large worlds for some time; yields the seed of each one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try_large(seed, seen)
        yield seed
        seed += 1


def _random_plans(rng: random.Random) -> Iterator[Plan]:
    for number in range(rng.randint(2, 7)):
        credit = rng.choice(["always", "succeeded", "never"])
        yield plan(
            number,
            rng.choice("ABCD"),
            rng.choice("ppq"),
            username=rng.choice(["mate", "mate", "second"]),
            adopts=rng.random() < 0.2,
            options=Options(default_credit=credit, require_start=rng.random() < 0.2),  # type: ignore[arg-type]
        )


def _try(plans: tuple[Plan, ...], choices: Choices, faults: frozenset[str], budget: int, seen: Seen, what: str) -> None:
    world = World(plans, choices, faults)
    try:
        world.run()
    except Exception:  # noqa: BLE001  # a broken promise, or a mistake in the code that is tried
        raise Failed(_story(plans, choices, faults, budget, what, seen.schedules)) from None
    seen.add(world)


def _story(
    plans: tuple[Plan, ...], choices: Choices, faults: frozenset[str], budget: int, what: str, before: int
) -> str:
    """How it came to be, as short as it can be told."""

    def outcome(script: Choices) -> tuple[World, Exception | None]:
        world = World(plans, script, faults)
        try:
            world.run()
        except Exception as error:  # noqa: BLE001  # as above
            return world, error
        return world, None

    fails: Callable[[Choices], bool] = lambda script: outcome(script)[1] is not None  # noqa: E731  # read in place
    script = shortest(choices.made, budget, fails)
    world, error = outcome(Choices(script, budget))
    guards = [f"  {one.program}/{one.process_key}: {one.entries}{' adopts' if one.adopts else ''}" for one in plans]
    lines = [f"{type(error).__name__}: {error}", f"{what}, after {before} other schedules", "guards:", *guards]
    return "\n".join([*lines, "what happened:", *(f"  {line}" for line in world.story), f"choices: {script}"])

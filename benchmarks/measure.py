"""Timing in interleaved rounds, so that what else the machine does meets all contestants alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Contestant:
    """What is called, and how often in one round.

    Attributes:
        call: One operation, or several.
        times: How often to call it in a round.
        operations: How many operations one call makes.
    """

    call: Callable[[], object]
    times: int = 1
    operations: int = 1


def rounds(contestants: Mapping[str, Contestant], count: int, *, warm_up: bool = True) -> Samples:
    """Let all contestants take turns, each round in another order; seconds per operation, one of each round.

    One round goes before, unless it was done, to open connections and fill caches.
    """
    samples: Samples = {name: [] for name in contestants}
    for number in range(-1 if warm_up else 0, count):
        for name in in_turn(list(contestants), number):
            seconds = _time(contestants[name])
            if number >= 0:
                samples[name].append(seconds)
    return samples


async def async_rounds(contestants: Mapping[str, Callable[[], Awaitable[object]]], times: int, count: int) -> Samples:
    """The same with coroutines, in the running loop."""
    samples: Samples = {name: [] for name in contestants}
    for number in range(-1, count):
        for name in in_turn(list(contestants), number):
            started = time.perf_counter()
            for _ in range(times):
                await contestants[name]()
            if number >= 0:
                samples[name].append((time.perf_counter() - started) / times)
    return samples


def _time(contestant: Contestant) -> float:
    call = contestant.call
    started = time.perf_counter()
    for _ in range(contestant.times):
        call()
    return (time.perf_counter() - started) / (contestant.times * contestant.operations)


def in_turn(names: list[str], number: int) -> list[str]:
    """The names in the order of this round: each goes first in its turn."""
    first = number % len(names)
    return names[first:] + names[:first]


def spread(values: list[float]) -> float:
    """The median absolute deviation."""
    middle = statistics.median(values)
    return statistics.median(abs(value - middle) for value in values)


def ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Round by round, since the two of a round met the same circumstances."""
    return [mine / other for mine, other in zip(ours, theirs, strict=True)]

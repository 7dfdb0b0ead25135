"""Two faults, large worlds and mistakes: what takes the simulation longer."""

from __future__ import annotations

import pytest

from .mutants import MUTANTS
from .worlds import ALL_FAULTS, Seen, large_for, try_small


def test_two_programs_with_two_faults() -> None:
    """Two programs on one process keep every promise whichever two things happen to them."""
    seen = Seen()
    try_small("two programs", ALL_FAULTS, 2, seen)
    assert seen.schedules > 10_000


def test_large_worlds() -> None:
    """Worlds of several programs and processes, drawn at random, keep every promise."""
    seen = Seen()
    for _ in large_for(20, 1, seen, most=400):
        pass
    assert seen.schedules > 10


@pytest.mark.parametrize("name", MUTANTS)
def test_mistakes_are_found(name: str) -> None:
    """A rule that is broken by one changed line breaks a promise in the simulation; without that nothing is broken."""
    tried, story = MUTANTS[name].find()
    assert "what happened:" in story
    print(f"{name}: found in schedule {tried}")
    MUTANTS[name].try_world(Seen(), most=tried)

"""No order of steps in a small world, with any one fault, breaks a promise."""

from __future__ import annotations

import pytest

from .worlds import ALL_FAULTS, SMALL, Seen, try_small


@pytest.mark.parametrize("name", SMALL)
def test_small_worlds_in_every_order(name: str) -> None:
    """Guards share runs, are interrupted, killed, taken for dead and cut off, and each KPI is credited once."""
    seen = Seen()
    try_small(name, ALL_FAULTS, 1, seen)
    assert seen.faults > 10

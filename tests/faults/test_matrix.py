"""The fault matrix: whole where it is asked for, else a fixed sample."""

from __future__ import annotations

import os

import pytest

from tests.faults.cases import cases, sample
from tests.faults.matrix import run_matrix, table

FULL = os.environ.get("ANYMATE_GUARD_MATRIX") == "full"


@pytest.mark.timeout(1200)
def test_matrix() -> None:
    """Whatever fails, the body's end is its own, the finish arrives or is owed, and nothing is counted twice."""
    results = run_matrix(list(cases()) if FULL else sample())
    broken = [f"{result.case}: {result.outcome}: {'; '.join(result.problems)}" for result in results if result.problems]
    assert broken == [], table(results)


def test_sample() -> None:
    """The sample has every fault at every call, and each kind of body and option."""
    chosen = sample()
    assert {(case.operation, case.fault) for case in chosen} == {(case.operation, case.fault) for case in cases()}
    for name in ("lasting", "body", "in_async", "options"):
        assert {getattr(case, name) for case in chosen} == {getattr(case, name) for case in cases()}

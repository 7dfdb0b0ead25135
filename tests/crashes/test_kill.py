"""Bots that are killed at random moments, and started again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .bots import KEYS
from .evidence import check, finishes, observe, slow_sandbox

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform can't fork")

SEED = "kill 1"
KILLS = 128


def test_kills(tmp_path: Path) -> None:
    """Bots killed with SIGKILL at any moment lose at most a second of counting, gain nothing, and end nobody's run."""
    with slow_sandbox(KEYS, hitches=20) as sandbox:
        evidence = observe(sandbox, tmp_path, "killed", SEED, KILLS)
        check(sandbox, evidence)
        assert set(finishes(sandbox, succeeded=True).values()) <= {1}
    # What makes this a test: many kills at each place, and much that was counted a second before them.
    assert len(evidence.kills) == KILLS
    moments = evidence.moments()
    assert min(moments[moment] for moment in ("entering", "body", "leaving")) >= 5, moments
    cut_off = [stay for stay in evidence.stays if stay.process in evidence.kills and not stay.left]
    assert sum(map(evidence.least, cut_off)) >= 500

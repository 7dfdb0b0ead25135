"""Many threads of many programs in the runs of a few processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .bots import PROCESSES, SHARED_KEYS, THREADS, USES
from .evidence import check, finishes, observe, slow_sandbox

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform can't fork")

SEED = "overlap 1"
KILLS = 4


def test_overlap(tmp_path: Path) -> None:
    """Each run that threads and programs share is finished once, by the last one out, with exactly what all counted."""
    with slow_sandbox(SHARED_KEYS) as sandbox:
        evidence = observe(sandbox, tmp_path, "overlapping", SEED, 0)
        check(sandbox, evidence)
        run_ids = [run["runId"] for run in sandbox.runs()]
        assert finishes(sandbox) == dict.fromkeys(run_ids, 1)
    assert evidence.kills == {}  # so the two bounds that were checked are one number
    # What makes this a test: hundreds of guards, in runs that many of them share, one after the other.
    assert len(evidence.stays) == PROCESSES * THREADS * USES
    sharing = {run_id: {stay.process for stay in evidence.stays if stay.run_id == run_id} for run_id in run_ids}
    assert len([processes for processes in sharing.values() if len(processes) > 1]) >= 10
    assert len(run_ids) >= 20


def test_overlap_with_kills(tmp_path: Path) -> None:
    """Programs that die in the midst of others' runs cost the others nothing, and no run stays open."""
    with slow_sandbox(SHARED_KEYS, hitches=10) as sandbox:
        evidence = observe(sandbox, tmp_path, "overlapping", SEED, KILLS)
        check(sandbox, evidence)
        assert set(finishes(sandbox, succeeded=True).values()) <= {1}
    assert len(evidence.kills) == KILLS

"""The benchmarks work, and many threads share one token and no more connections than they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from anymate_guard import AnymateClient, Settings, anymate_run

ROOT = Path(__file__).parents[2]
ROWS = 23
THREADS, RUNS = 64, 20


def test_quick_measures_every_row() -> None:
    """`python -m benchmarks --quick --json` measures all rows, each with a number that makes sense."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=300)
    rows = json.loads(done.stdout)["rows"]
    assert len(rows) == len({row["what"] for row in rows}) == ROWS
    for row in rows:
        assert row["at_most"] > 0
        assert row["theirs"] is None or row["theirs"]["median"] > 0, row
        assert row["theirs"] is None or row["ratio"]["median"] > 0, row


def test_threads_share_a_token_and_keep_their_connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """64 threads with 20 runs each ask for one token, and open no more connections than there are threads."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.groups import together
    from benchmarks.server import Server

    with Server() as server:
        for name, value in {**server.environ, "ANYMATE_STATE_DIR": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        with AnymateClient(Settings.from_env()) as client:

            def work(process_key: str) -> None:
                for _ in range(RUNS):
                    with anymate_run(process_key, client=client) as run:
                        run.add_entries()

            together(THREADS, work)
        counts = server.counts()
    assert counts["token_requests"] == 1
    assert 1 <= counts["connections"] <= THREADS
    assert counts["starts"] == counts["finishes"] == THREADS * RUNS

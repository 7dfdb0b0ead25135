"""The simulation of a midnight rush: nothing gets lost in it, and the docs show what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNTED = ("worked", "runintime", "runlate", "finished", "tokens", "requests", "429s")
BOTS, RATE = 600, 12  # as crowded as 10 000 bots on 200 requests a second


@pytest.fixture(name="table")
def _table(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Play a small night."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.midnight import table

    lines = table(BOTS, RATE).replace(" ", "").splitlines()
    return [line.strip("|").split("|") for line in lines]


def test_guarded_bots_all_work_and_finish(table: list[list[str]]) -> None:
    """Every guarded bot works, starts once, in time or late, and asks for one token; all but a few finish."""
    head, _, *rows = table
    guarded = [dict(zip(head, row, strict=True)) for row in rows if row[0].startswith("guard")]
    assert len(guarded) == 5
    for row in guarded:
        worked, in_time, late, finished, tokens, requests, refused = (int(row[name]) for name in COUNTED)
        assert worked == BOTS
        assert 0.98 * BOTS < finished <= in_time + late <= tokens <= BOTS
        assert requests == tokens + in_time + late + finished + refused


def test_bots_by_hand_give_up(table: list[list[str]]) -> None:
    """Without the guard most bots do no work at all, and those that retry in step cost far more requests."""
    head, _, *rows = table
    none, each_second, guard = (dict(zip(head, row, strict=True)) for row in rows[:3])
    assert int(none["worked"]) < int(each_second["worked"]) < BOTS
    assert int(each_second["requests"]) > 2 * int(guard["requests"])


def test_docs_show_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table in the docs is what the simulation prints."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.midnight import table

    assert table(10_000, 200) in (ROOT / "docs" / "midnight.md").read_text(encoding="utf-8")

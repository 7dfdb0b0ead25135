"""The row of a guard, which two threads change: its life, and the recorder."""

from __future__ import annotations

import threading

import pytest

from anymate_guard._journal.rows import Entry, Row


def test_changed_while_it_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a guard notes in its row is not undone by the recorder, which has read the row a moment before."""
    entry = Entry(Row("https://somewhere", "mate", "invoice-intake"), lambda: (3, None))
    guard = threading.Thread(target=entry.change, kwargs={"outcome": "failed"})

    def now() -> float:
        if guard.ident is None:
            guard.start()
            guard.join()
        return 0.0

    with monkeypatch.context() as patch:
        patch.setattr("time.time", now)
        entry.recorded()
    assert (entry.row.entries, entry.row.outcome) == (3, "failed")

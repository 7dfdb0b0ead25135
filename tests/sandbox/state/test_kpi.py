"""What a finished run is credited with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ..support import Bot, examples

FIELD = st.integers(0, 2**31 - 1)
SMALL = st.integers(0, 50_000)


def credited(bot: Bot, **fields: object) -> tuple[int | None, int | None]:
    """Finish a new run, and return what was credited."""
    bot.finish(bot.start(), **fields)
    run = bot.sandbox.runs()[-1]
    return run["creditedEntries"], run["creditedSecondsSaved"]


@pytest.mark.parametrize("nothing", [{}, {"overwriteEntries": None, "overwriteSecondsSaved": None}])
def test_defaults(bot: Bot, nothing: dict[str, None]) -> None:
    """Without overrides the defaults count: seconds per run, or entries times seconds per entry."""
    bot.sandbox.set_process("invoices", seconds_saved=90)
    assert credited(bot, **nothing) == (1, 90)
    bot.sandbox.set_process("invoices", entries=4, seconds_saved_per_entry=30)
    assert credited(bot, **nothing) == (4, 120)


def test_zero_is_a_value(bot: Bot) -> None:
    """An override of 0 is 0, and not the default."""
    bot.sandbox.set_process("invoices", entries=4, seconds_saved_per_entry=30)
    assert credited(bot, overwriteEntries=0) == (0, 0)
    assert credited(bot, overwriteSecondsSaved=0) == (4, 0)


@examples
@given(entries=SMALL, per_entry=SMALL, override=SMALL)
def test_entries_only(bot: Bot, entries: int, per_entry: int, override: int) -> None:
    """Overridden entries alone count with the default seconds per entry, whatever the default entries are."""
    bot.sandbox.set_process("invoices", entries=entries, seconds_saved_per_entry=per_entry)
    assert credited(bot, overwriteEntries=override) == (override, override * per_entry)


@examples
@given(seconds_saved=SMALL, override=SMALL)
def test_entries_only_in_simple_mode(bot: Bot, seconds_saved: int, override: int) -> None:
    """In simple mode overridden entries count the seconds of a run each: an assumption."""
    bot.sandbox.set_process("invoices", seconds_saved=seconds_saved)
    assert credited(bot, overwriteEntries=override) == (override, override * seconds_saved)


@examples
@given(entries=SMALL, per_entry=SMALL, override=st.none() | FIELD, seconds_saved=FIELD)
def test_seconds_win(bot: Bot, entries: int, per_entry: int, override: int | None, seconds_saved: int) -> None:
    """Overridden seconds are what is logged, whatever the entries are; the entries are logged beside them."""
    bot.sandbox.set_process("invoices", entries=entries, seconds_saved_per_entry=per_entry)
    logged = credited(bot, overwriteEntries=override, overwriteSecondsSaved=seconds_saved)
    assert logged == (entries if override is None else override, seconds_saved)


def test_defaults_are_those_of_the_finish(bot: Bot) -> None:
    """Defaults that change while a run is open are the ones it is credited by."""
    run_id = bot.start()
    bot.sandbox.set_process("invoices", seconds_saved=5)
    bot.finish(run_id)
    assert bot.sandbox.runs()[0]["creditedSecondsSaved"] == 5


def test_failure_alone_credits_nothing(bot: Bot) -> None:
    """A run that failed and was not finished has no credit."""
    bot.start()
    bot.post("/api/Failure/", {"processKey": "invoices"})
    assert bot.sandbox.runs()[0]["creditedSecondsSaved"] is None

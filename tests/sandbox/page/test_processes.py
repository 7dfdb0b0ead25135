"""The processes on the page: their order, states, sums, time lines and settings."""

from __future__ import annotations

import re

import pytest

from anymate_guard.sandbox import Sandbox

from ..support import Bot, Clock
from .support import local, markup, part, rows


def keys(browser: Bot, query: str = "") -> list[str]:
    """Return the keys of the processes in the order shown."""
    return re.findall(r'title="([^"]*)"', markup(browser, "processes", query))


def test_order(bot: Bot, browser: Bot) -> None:
    """Failed processes come first, then running ones, then the others; each by name."""
    for key in ("d", "b", "A", "c", "f", "e"):
        run_id = bot.start(key)
        if key not in "Ae":
            bot.finish(run_id)
    for key in ("f", "d"):
        bot.post("/api/Failure/", {"processKey": key, "message": "broke"})
    assert keys(browser) == ["d", "f", "A", "e", "b", "c"]


def test_filter(bot: Bot, browser: Bot) -> None:
    """The filter leaves processes and runs with these letters in their key, whatever their case."""
    for key in ("invoice-intake", "Payroll", "invoice-export"):
        bot.finish(bot.start(key))
    assert keys(browser, "?find=INVOICE") == ["invoice-export", "invoice-intake"]
    assert "Payroll" not in part(browser, "runs", "?find=invoice")
    assert "All 2 " in part(browser, "runs", "?find=invoice")
    assert part(browser, "processes", "?find=nobody") == "No process has “nobody” in its name."


def test_states(bot: Bot, browser: Bot, sandbox: Sandbox) -> None:
    """A process shows its states, its sums, and the button that changes it, on one line."""
    bot.finish(bot.start("invoices"))
    (row,) = rows(browser, "processes")
    assert row.startswith("invoices Idle Finished, ")
    assert row.endswith(" 1 1 1 min Stop invoices")
    sandbox.set_process("invoices", stopped=True, blocked_date="2026-12-24")
    bot.start("invoices")
    bot.post("/api/Failure/", {"processKey": "invoices", "message": "broke"})
    (row,) = rows(browser, "processes")
    assert row.startswith("invoices Failed Running Stopped Blocked 2026-12-24 ")
    assert row.endswith(" 2 1 1 min Resume invoices")
    bot.get("/api/OkToRun/other")
    assert rows(browser, "processes")[1] == "other Idle 0 0 0 s Stop other"


def test_tasks(bot: Bot, browser: Bot) -> None:
    """A process with tasks shows how many are ready."""
    bot.post("/api/CreateTasks/invoices", [{"a": 1}, {"a": 2}])
    assert "invoices 2 tasks" in part(browser, "processes")
    bot.get("/api/TakeNext/invoices")
    assert "invoices Running 1 task " in part(browser, "processes")


def test_settings(bot: Bot, browser: Bot, sandbox: Sandbox) -> None:
    """The chosen process shows its failure and its settings, ready to be changed."""
    sandbox.set_process("a b", seconds_saved=90)
    assert "<form" not in markup(browser, "processes")
    shown = markup(browser, "processes", "?process=a+b")
    assert 'id="settings-a%20b" data-process="a b"' in shown
    assert '<option value="simple" selected>' in shown
    assert 'name="seconds" type="number" min="0" max="2147483647" value="90"' in shown
    assert 'type="date" value=""' in shown
    assert "failed-text" not in shown
    sandbox.set_process("a b", entries=4, seconds_saved_per_entry=0, blocked_date="2026-12-24")
    bot.post("/api/Failure/", {"processKey": "a b", "message": ""})
    shown = markup(browser, "processes", "?process=a+b")
    assert '<option value="advanced" selected>' in shown
    assert 'name="entries" type="number" min="0" max="2147483647" value="4"' in shown
    assert 'name="seconds" type="number" min="0" max="2147483647" value="0"' in shown
    assert 'type="date" value="2026-12-24"' in shown
    assert "(no message)" in shown
    assert 'href="?"' in shown


def test_many_processes(bot: Bot, browser: Bot) -> None:
    """More processes than fit are counted, not shown."""
    for number in range(103):
        bot.get(f"/api/OkToRun/{number}")
    assert len(keys(browser)) == 100
    assert part(browser, "processes").endswith("And 3 more.")


def bars(browser: Bot, query: str = "") -> list[tuple[str, float, float, str]]:
    """Return the bars on the time lines: kind, start and width in percent, and their words."""
    html = markup(browser, "processes", query)
    found = re.findall(r'<rect class="(\w+)" x="([\d.]+)%" width="([\d.]+)%" [^>]*><title>([^<]*)</title>', html)
    return [(kind, float(start), float(width), words) for kind, start, width, words in found]


def test_time_line(bot: Bot, browser: Bot, clock: Clock) -> None:
    """Runs lie on a common time line by start and duration; one that runs reaches until now."""
    first = bot.start("a")
    clock.now += 50
    bot.finish(first)
    bot.start("b")
    clock.now += 50
    two, one = bars(browser)
    assert one == ("finished", 0, 50, f"Finished, {local(clock, -100)} to {local(clock, -50)}, 50 s")
    assert two == ("running", 50, 50, f"Running, {local(clock, -50)} until now")
    assert f"Time line {local(clock, -100)} {local(clock)} Runs" in part(browser, "processes")


def test_time_line_of_a_window(bot: Bot, browser: Bot, clock: Clock) -> None:
    """A shorter time line shows the end of it: older runs are left out, one that reaches into it is cut."""
    for duration, pause in ((500, 20), (100, 10), (30, 10)):
        run_id = bot.start("a")
        clock.now += duration
        bot.finish(run_id)
        clock.now += pause
    (older, newer) = bars(browser, "?window=60")
    assert older[1:3] == pytest.approx((0, 100 / 3), abs=0.001)
    assert newer[1:3] == pytest.approx((50, 50))
    assert len(bars(browser)) == 3
    clock.now += 1000  # nothing runs, so nothing moves
    assert bars(browser, "?window=60") == [older, newer]


def test_time_line_of_many_runs(bot: Bot, browser: Bot, clock: Clock) -> None:
    """Short runs stay visible; those that cannot be told apart are one bar, but not across kinds."""
    for number in range(300):
        run_id = bot.start("a")
        clock.now += 0.01
        bot.finish(run_id)
        if number == 150:
            bot.post("/api/Failure/", {"processKey": "a"})
        clock.now += 0.5 if number < 299 else 0
    drawn = bars(browser)
    assert [(kind, words.split(",")[0]) for kind, _, _, words in drawn] == [
        ("finished", "150 runs: Finished"),
        ("finished", "149 runs: Finished"),
        ("failed", "Failed"),
    ]
    assert all(width >= 0.5 and start + width <= 100.001 for _, start, width, _ in drawn)
    clock.now += 500
    bot.finish(bot.start("a"))
    assert [words.split(",")[0] for *_, words in bars(browser)] == ["299 runs: Finished", "Finished", "Failed"]


def test_short_time_line(bot: Bot, browser: Bot) -> None:
    """One short run does not fill the time line."""
    bot.finish(bot.start("a"))
    ((_, start, width, _),) = bars(browser)
    assert (start, width) == (99.5, 0.5)


def columns(browser: Bot, query: str = "") -> list[tuple[float, float, str]]:
    """Return the columns of both charts: left edge and height in percent, and their words."""
    html = markup(browser, "charts", query)
    found = re.findall(r'<rect x="([\d.]+)%" y="[\d.]+%" width="2.000%" height="([\d.]+)%"><title>([^<]*)', html)
    return [(float(left), float(height), words) for left, height, words in found]


def test_charts(bot: Bot, browser: Bot, clock: Clock) -> None:
    """Time saved and entries are drawn over time by when runs ended, for all or for what was chosen."""
    for key, seconds, entries in (("a", 30, 2), ("b", 0, 8), ("b", 60, 0)):
        run_id = bot.start(key)
        clock.now += 40
        bot.finish(run_id, overwriteEntries=entries, overwriteSecondsSaved=seconds)
    first, second, third = ((place * 3 - 120, f"{local(clock, place * 3 - 120)} to ") for place in (13, 26, 39))
    assert columns(browser) == [
        (32.5, 50, f"{first[1]}{local(clock, first[0] + 3)}: 30 s"),
        (97.5, 100, f"{third[1]}{local(clock, third[0] + 3)}: 1 min"),
        (32.5, 25, f"{first[1]}{local(clock, first[0] + 3)}: 2"),
        (65.0, 100, f"{second[1]}{local(clock, second[0] + 3)}: 8"),
    ]
    shown = part(browser, "charts")
    assert shown.startswith("Over time All 1 hour 10 minutes 1 minute Time saved 1 min 30 s at most 1 min in 3 s ")
    assert "Entries 10 at most 8 in 3 s " in shown
    assert 'aria-label="Time saved over time: 1 min 30 s"' in markup(browser, "charts")
    chosen = part(browser, "charts", "?process=a")
    assert chosen.startswith("a over time ")
    assert "Time saved 30 s at most 30 s in" in chosen
    assert "Time saved 1 min at most" in part(browser, "charts", "?find=b&window=60")


def test_charts_of_nothing(bot: Bot, browser: Bot) -> None:
    """While no run is finished, the charts are empty."""
    bot.start("a")
    assert columns(browser) == []
    assert "Entries 0 at most 0 in" in part(browser, "charts")
    assert "Entries 0 at most 0 in" in part(browser, "charts", "?find=nobody")

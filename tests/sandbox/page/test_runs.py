"""The runs on the page, and the details of one."""

from __future__ import annotations

import re

import pytest

from anymate_guard.sandbox import Sandbox

from ..support import Bot, Clock
from .support import local, markup, part, rows, text

NOT_YET = "\N{EN DASH}"


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        ({}, "2 entries default 1 min saved default"),
        ({"overwriteEntries": 3}, "3 entries override 1 min 30 s saved by entries"),
        ({"overwriteEntries": 1}, "1 entry override 30 s saved by entries"),
        ({"overwriteSecondsSaved": 7200}, "2 entries default 2 h saved override"),
        ({"overwriteEntries": 0, "overwriteSecondsSaved": 3723}, "0 entries override 1 h 02 min saved override"),
    ],
)
def test_credit(bot: Bot, browser: Bot, sandbox: Sandbox, clock: Clock, overrides: dict[str, int], shown: str) -> None:
    """A finished run shows what is credited, and whether by default, by an override, or by the entries."""
    sandbox.set_process("invoices", entries=2, seconds_saved_per_entry=30)
    run_id = bot.start("invoices")
    bot.finish(run_id, **overrides)
    assert rows(browser, "runs") == [f"invoices {run_id} Finished {local(clock)} 0 s {shown}"]


def test_credit_by_task(bot: Bot, browser: Bot, sandbox: Sandbox) -> None:
    """A run on a process with tasks is credited by task."""
    sandbox.set_process("invoices", tasks_enabled=True)
    bot.post("/api/CreateTask/invoices", {"a": 1})
    task = bot.get("/api/TakeNext/invoices").json
    bot.post("/api/Solved/", {"taskId": task["taskId"]})
    bot.finish(task["runId"])
    assert "1 entry by task 1 min saved by task" in part(browser, "runs")


def test_outcomes(bot: Bot, browser: Bot, clock: Clock) -> None:
    """A run is running, finished, or has a failure reported: the last run started before the failure came."""
    bot.post("/api/Failure/", {"processKey": "a", "message": "before any run"})
    clock.now += 1
    first = bot.start("a")
    clock.now += 75.2
    bot.finish(first)
    clock.now += 1
    bot.post("/api/Failure/", {"processKey": "a", "message": "of the first"})
    clock.now += 1
    second = bot.start("a")
    third = bot.start("b")
    clock.now += 4
    bot.post("/api/Failure/", {"processKey": "b", "message": "of the third"})
    began, later = local(clock, -81.2), local(clock, -4)
    running = f"{later} 4 s {NOT_YET} {NOT_YET}"
    assert rows(browser, "runs") == [
        f"b {third} Running Failed {running}",
        f"a {second} Running {running}",
        f"a {first} Failed {began} 1 min 15 s 1 entry default 1 min saved default",
    ]
    assert part(browser, "runs").startswith("Runs All 3 Failed 1 Running 2 Finished 0 ")
    assert rows(browser, "runs", "?state=failed") == rows(browser, "runs")[2:]
    assert rows(browser, "runs", "?state=running") == rows(browser, "runs")[:2]
    assert part(browser, "runs", "?state=finished").endswith("No such runs.")


def test_runs_of_a_process(bot: Bot, browser: Bot) -> None:
    """The chosen process has its own list of runs, and a way back to all."""
    for key in ("a", "b"):
        bot.finish(bot.start(key))
    shown = part(browser, "runs", "?process=b")
    assert shown.startswith("Runs of b All 1 Failed 0 Running 0 Finished 1 Those of all processes ")
    assert len(rows(browser, "runs", "?process=b")) == 1
    assert part(browser, "runs", "?process=c") == "Runs of c No runs yet."


def test_thousand_runs(bot: Bot, browser: Bot, clock: Clock) -> None:
    """With 1 000 runs the page stays small: the newest first, page by page, in the chosen process and state."""
    ids = []
    for number in range(1000):
        ids.append(bot.start("a" if number % 10 else "b"))
        clock.now += 1
        bot.finish(ids[-1])
        if number % 100 == 0:
            bot.post("/api/Failure/", {"processKey": "b"})
    assert len(browser.get("/").text) < 100_000

    def shown(query: str) -> list[int]:
        return [int(number) for number in re.findall(r'id="run-(\d+)"', markup(browser, "runs", query))]

    assert shown("") == ids[:-26:-1]
    assert part(browser, "runs").endswith(" 1 to 25 of 1 000 runs Older")
    assert shown("?page=2") == ids[-26:-51:-1]
    assert part(browser, "runs", "?page=2").endswith(" Newer 26 to 50 of 1 000 runs Older")
    assert shown("?page=40") == shown("?page=4000") == ids[24::-1]
    assert part(browser, "runs", "?page=40").endswith(" Newer 976 to 1 000 of 1 000 runs")
    assert shown("?process=b&page=4") == ids[::10][24::-1]
    assert shown("?find=B&state=failed") == ids[::100][::-1]


def test_details(bot: Bot, browser: Bot, sandbox: Sandbox, clock: Clock) -> None:
    """A run's details are its times, what was reported, its failures, and all requests about it."""
    bot.finish(bot.start("a"))
    clock.now += 10
    sandbox.fail_next("StartRun", 503)
    bot.get("/api/StartRun/a")
    run_id = bot.start("a")
    bot.start("b")
    clock.now += 5
    bot.finish(run_id, overwriteEntries=3, overwriteSecondsSaved=90)
    clock.now += 1
    bot.finish(run_id)
    bot.post("/api/Failure/", {"processKey": "a", "message": "broke"})
    clock.now += 10
    bot.get("/api/OkToRun/a")
    bot.start("a")
    shown = markup(browser, "runs", f"?run={run_id}").partition(f'id="run-{run_id}-details"')[2]
    facts, requests = text(shown.partition("<dl")[2].partition("</td>")[0]).split(" Requests ")
    began, ended, later = local(clock, -16), local(clock, -11), local(clock, -10)
    assert facts.partition(" ")[2] == (
        f"Run {run_id} Copy the number Started {began} Finished {ended} "
        "Reported entries 3 entries Reported time saved 1 min 30 s saved broke"
    )
    own = re.findall(r"(\d\d:\d\d:\d\d) (\w+) (?:GET|POST) \S+ (\d+)", requests)
    assert own == [
        (later, "Failure", "200"),
        (later, "FinishRun", "200"),
        (ended, "FinishRun", "200"),
        (began, "StartRun", "200"),
        (began, "StartRun", "503"),
    ]


def test_details_of_a_run_that_is_open(bot: Bot, browser: Bot, clock: Clock) -> None:
    """A run that is open has no end yet, and all its requests so far; closing the details is one link."""
    run_id = bot.start("a")
    clock.now += 5
    bot.post("/api/Failure/", {"processKey": "a", "message": ""})
    shown = part(browser, "runs", f"?run={run_id}")
    assert f"Finished {NOT_YET} Reported entries {NOT_YET} Reported time saved {NOT_YET} (no message) Requests" in shown
    assert re.findall(r"(\w+) (?:GET|POST)", shown) == ["Failure", "StartRun"]
    assert f'id="run-{run_id}-details"' in markup(browser, "runs", f"?run={run_id}")
    assert 'href="?" aria-expanded="true"' in markup(browser, "runs", f"?run={run_id}")
    assert 'aria-expanded="false"' in markup(browser, "runs", "?run=7")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0 s"),
        (0.26, "0.3 s"),
        (9, "9 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 01 s"),
        (3600, "1 h"),
        (3_600_060, "1 000 h 01 min"),
    ],
)
def test_durations(bot: Bot, browser: Bot, clock: Clock, seconds: float, shown: str) -> None:
    """A duration reads well, whatever its size."""
    bot.start("a")
    clock.now += seconds
    assert part(browser, "runs").endswith(f" {shown} {NOT_YET} {NOT_YET}")

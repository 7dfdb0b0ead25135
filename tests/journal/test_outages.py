"""An outage of Anymate costs a bot seconds, and no finish."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from anymate_guard import UnreachableError, anymate_run
from anymate_guard._guard import defaults, driver
from anymate_guard._journal import recorder
from anymate_guard._journal.journals import journal_at
from anymate_guard._journal.rows import Row
from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.proxy import Fault, FaultProxy
from tests.support.waiting import LONGEST, in_time, until

Rows = Callable[[], list[Row]]
Lines = Callable[[str], list[str]]
Calls = Callable[[], list[str]]


def settle() -> bool:
    """Send what is owed, as the command line does."""
    return driver.settle_all(defaults.shared_client())


def finishes(sandbox: Sandbox) -> list[tuple[str, int | None]]:
    """Key and entries of every run, which all have to be finished."""
    assert all(run["finished"] for run in sandbox.runs())
    return [(run["processKey"], run["overwriteEntries"]) for run in sandbox.runs()]


def outage(key: str, entries: int) -> None:
    """A whole guard while Anymate is away."""
    with anymate_run(key) as run:
        run.add_entries(entries)


@pytest.mark.parametrize(
    ("key", "order"), [("a", ["StartRun", "FinishRun"]), ("b", ["StartRun", "FinishRun", "FinishRun"])]
)
def test_kept_finish_goes_with_the_next_guard(
    sandbox: Sandbox, rows: Rows, lines: Lines, calls: Calls, key: str, order: list[str]
) -> None:
    """What is owed since an outage goes before the next StartRun of its process, or after another's FinishRun."""
    with anymate_run("a") as run:
        run.add_entries(3)
        sandbox.close()
    (row,) = rows()
    assert (row.state, row.entries, row.run_id) == ("done", 3, run.run_id)
    (line,) = lines("anymate.finish_stored")
    assert line.startswith("WARNING")
    sandbox.start()
    outage(key, 1)
    assert calls() == (["StartRun", "FinishRun", *order] if key == "a" else ["StartRun", *order])
    assert finishes(sandbox) == [("a", 3), (key, 1)]
    assert rows() == []
    assert len(lines("anymate.finish_delivered")) == 1


def test_deliver_during_an_outage(sandbox: Sandbox, rows: Rows) -> None:
    """What is owed is delivered when somebody asks for that, also while an outage is remembered."""
    with anymate_run("a"), anymate_run("b"):
        sandbox.close()
    sandbox.start()
    assert settle()
    assert finishes(sandbox) == [("a", None), ("b", None)]
    assert rows() == []


def test_outage_by_a_mocked_clock(sandbox: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage is remembered also where the bot's clock is a mock, which gives whole seconds."""
    now = int(time.time())
    monkeypatch.setattr(time, "time", lambda: now)
    sandbox.close()
    outage("a", 3)
    assert journal_at(folder).read(defaults.shared_client().settings.api_url, lambda view: view.outage)


def test_run_that_never_started_is_started_late(sandbox: Sandbox, rows: Rows, lines: Lines) -> None:
    """Anymate away at entry and back at exit: the body runs without a run, which is started and finished on leaving."""
    sandbox.close()
    with anymate_run("a") as run:
        assert run.run_id is None
        run.add_entries(2)
        sandbox.start()
    assert run.run_id is not None
    assert finishes(sandbox) == [("a", 2)]
    assert rows() == []
    assert len(lines("anymate.start_deferred")) == 1


def test_runs_that_never_started_are_delivered_one_by_one(sandbox: Sandbox, rows: Rows) -> None:
    """Guards that met an outage from end to end are each started and finished later, before the next StartRun."""
    sandbox.close()
    for entries in (1, 2, 3):
        outage("a", entries)
    assert [row.run_id for row in rows()] == [None] * 3
    sandbox.start()
    outage("a", 10)
    assert finishes(sandbox) == [("a", 1), ("a", 2), ("a", 3), ("a", 10)]
    assert rows() == []


def test_run_that_never_started_waits_for_a_live_guard(sandbox: Sandbox, rows: Rows) -> None:
    """A run without an id is not started while a guard is open on its key, as it would be started into that one."""
    sandbox.close()
    outage("a", 1)
    sandbox.start()
    sandbox.fail_next("StartRun", times=30, process_key="a")
    with anymate_run("a"):
        sandbox._world.faults.reset()
        assert not settle() or len(rows()) == 2
        assert sandbox.runs() == []
    assert settle()
    assert rows() == []
    assert sorted(str(entries) for _, entries in finishes(sandbox)) == ["1", "None"]


def test_outage_is_remembered(sandbox: Sandbox, rows: Rows) -> None:
    """While Anymate was away a moment ago, entering and leaving make one try each, however much is owed."""
    with anymate_run("a"), anymate_run("b"), anymate_run("c"):
        sandbox.close()
    outage("d", 1)
    assert len(rows()) == 4
    sandbox.start()
    sandbox.fail_next("*", hang=True, times=9)
    asked = len(sandbox.requests())
    outage("e", 1)  # one try on entering, and one on leaving
    assert len(sandbox.requests()) == asked + 2
    sandbox._world.alarm.ring()
    sandbox._world.faults.reset()
    assert settle()
    assert rows() == []
    assert len(finishes(sandbox)) == 5


def test_remembered_outage_ends_with_an_answer(sandbox: Sandbox, rows: Rows) -> None:
    """As soon as Anymate answers again, calls are tried more than once again."""
    with anymate_run("a"):
        sandbox.close()
    sandbox.start()
    outage("a", 1)
    sandbox.fail_next("StartRun", times=2)
    with anymate_run("a") as run:
        assert run.run_id is not None


def test_resumed_run_takes_what_is_owed(sandbox: Sandbox, rows: Rows, calls: Calls) -> None:
    """A finish that could not be settled before StartRun resumed its run is part of the sum that this guard sends."""
    with anymate_run("a") as run:
        run.add_entries(3)
        sandbox.fail_next("FinishRun", status=403)
    assert len(rows()) == 1
    sandbox.fail_next("FinishRun", status=403)
    with anymate_run("a") as again:
        again.add_entries(4)
    assert again.run_id == run.run_id
    assert finishes(sandbox) == [("a", 7)]
    assert rows() == []


def test_sum_is_capped(sandbox: Sandbox, rows: Rows) -> None:
    """Rows that add up to more than the field of FinishRun can hold are sent as the most that it can."""
    sandbox.fail_next("FinishRun", status=403, times=2)
    for _ in range(2):
        with anymate_run("a") as run:
            run.set_kpis(entries=2_000_000_000, seconds_saved=2_000_000_000)
    settle()
    (one,) = sandbox.runs()
    assert (one["overwriteEntries"], one["overwriteSecondsSaved"]) == (2_147_483_647, 2_147_483_647)


@pytest.mark.parametrize("status", [401, 403, 307])
def test_refusals_that_pass(sandbox: Sandbox, rows: Rows, lines: Lines, status: int) -> None:
    """A finish refused for the password, the rights or the address stays owed, with a warning."""
    headers = {"Location": "http://elsewhere.example/"} if status == 307 else {}
    with anymate_run("a") as run:
        run.add_entries(3)
        sandbox.fail_next("FinishRun", status=status, headers=headers, times=2)
    assert [row.state for row in rows()] == ["done"]
    (line,) = lines("anymate.finish_stored")
    assert line.startswith("WARNING")
    assert f"status={status}" in line
    sandbox._world.faults.reset()
    assert settle()
    assert finishes(sandbox) == [("a", 3)]


@pytest.mark.parametrize("status", [400, 405, 422])
def test_refused_for_good(sandbox: Sandbox, rows: Rows, lines: Lines, calls: Calls, status: int) -> None:
    """A finish that will never be taken is an error line with its KPIs, and stays for people to see, unsent."""
    with anymate_run("a") as run:
        run.add_entries(3)
        sandbox.fail_next("FinishRun", status=status)
    (row,) = rows()
    assert (row.state, row.entries) == ("refused", 3)
    assert f"HTTP {status}" in str(row.reason)
    (line,) = lines("anymate.finish_refused")
    assert line.startswith("ERROR")
    assert "entries=3" in line
    assert settle()
    outage("b", 1)
    assert calls() == ["StartRun", "FinishRun"] * 2
    assert rows() == [row]


@pytest.mark.parametrize("status", [400, 404, 405, 410, 422])
def test_start_refused_for_good(sandbox: Sandbox, rows: Rows, lines: Lines, status: int) -> None:
    """A run without an id whose StartRun is refused for good stays for people to see, too."""
    sandbox.close()
    outage("a", 3)
    sandbox.start()
    for route in ("StartRun", "StartOrGetRun"):
        sandbox.fail_next(route, status=status)
    assert not settle()
    assert [(row.state, row.entries) for row in rows()] == [("refused", 3)]
    (line,) = lines("anymate.finish_refused")
    assert "entries=3" in line


def test_much_is_delivered_together(sandbox: Sandbox, rows: Rows) -> None:
    """Several finishes under way at once leave none behind: not those of a process at which another one just is."""
    sandbox.close()
    for number in range(300):
        outage(f"process {number % 50}", 1)
    sandbox.start()
    assert driver.settle_all(defaults.shared_client(), 4)
    assert rows() == []
    assert sum(entries or 0 for _, entries in finishes(sandbox)) == 300


@pytest.mark.parametrize("status", [400, 404, 405, 410, 422])
def test_page_instead_of_a_start(sandbox: Sandbox, way: FaultProxy, rows: Rows, lines: Lines, status: int) -> None:
    """A gateway's page that comes for StartRun, when what is owed needs a run, leaves it owed."""
    sandbox.close()
    outage("a", 3)
    outage("b", 2)
    sandbox.start()
    way.break_next("StartRun", faults.says(status, "<html>No site here</html>"), times=4)
    assert not settle()
    assert [(row.state, row.entries) for row in rows()] == [("done", 3), ("done", 2)]
    assert lines("anymate.finish_refused") == []
    way.heal()
    assert settle()
    assert finishes(sandbox) == [("a", 3), ("b", 2)]


@pytest.mark.parametrize(
    "answer", [{"answer": {"succeeded": False, "message": "no"}}, {"status": 404}, {"status": 410}]
)
def test_not_open_though_never_sent(sandbox: Sandbox, rows: Rows, calls: Calls, answer: dict[str, Any]) -> None:
    """Where the run turns out to be closed by somebody else, what was never sent gets a run of its own, once."""
    with anymate_run("a") as run:
        run.add_entries(3)
        sandbox.fail_next("FinishRun", **answer)
    assert calls() == ["StartRun", "FinishRun", "StartRun", "FinishRun"]
    assert sandbox.runs()[-1]["overwriteEntries"] == 3
    assert rows() == []
    with anymate_run("b"):
        sandbox.fail_next("FinishRun", **answer, times=2)
    assert [row.state for row in rows()] == ["refused"]


def test_one_refusal_does_not_hold_up_the_rest(sandbox: Sandbox, rows: Rows) -> None:
    """An owed finish that is refused again and again stays owed, and those behind it are delivered."""
    with anymate_run("a"), anymate_run("b"), anymate_run("c"):
        sandbox.close()
    sandbox.start()
    sandbox.fail_next("FinishRun", status=403, process_key="a", times=3)
    assert not settle()
    assert [row.process_key for row in rows()] == ["a"]
    outage("other", 1)
    assert [row.process_key for row in rows()] == ["a"]
    sandbox._world.faults.reset()
    assert settle()
    assert rows() == []


def test_settling_takes_two_seconds(sandbox: Sandbox, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settling takes two seconds at most of however long a deadline, and stops at the first that gets no answer."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "60")
    monkeypatch.setenv("ANYMATE_TIMEOUT", "60")
    defaults.forget_client()
    with anymate_run("a"), anymate_run("b"), anymate_run("c"):
        sandbox.fail_next("FinishRun", status=403, times=3)
    for key in "abc":
        sandbox.fail_next("FinishRun", hang=True, times=5, process_key=key)
    with ExitStack() as stack:
        with in_time():
            run = stack.enter_context(anymate_run("d"))
        assert run.run_id is not None
        until(lambda: sorted(row.state for row in rows()) == ["done", "done", "done", "open"])
        sandbox._world.alarm.ring()
        sandbox._world.faults.reset()
    assert settle()
    assert len(finishes(sandbox)) == 4


def test_require_finish(sandbox: Sandbox, rows: Rows) -> None:
    """With `require_finish` a body that succeeded raises when its finish is only stored, which it is."""
    with pytest.raises(UnreachableError), anymate_run("a", require_finish=True):
        sandbox.close()
    assert len(rows()) == 1


def test_require_start_leaves_no_row(sandbox: Sandbox, rows: Rows) -> None:
    """With `require_start` an outage at entry raises, and nothing is owed for a body that did not run."""
    sandbox.close()
    with pytest.raises(UnreachableError), anymate_run("a", require_start=True):
        pytest.fail("the body ran")
    assert rows() == []


def test_finish_that_was_sent_is_not_credited_twice(sandbox: Sandbox, rows: Rows) -> None:
    """A finish whose answer was lost is sent again; that its run is not open any more means that it is finished."""
    with anymate_run("a") as run:
        run.add_entries(3)
        sandbox.fail_next("FinishRun", hang=True, after=True, times=9)
    assert [row.finish != 0 for row in rows()] == [True]
    sandbox._world.alarm.ring()
    sandbox._world.faults.reset()
    assert settle()
    assert finishes(sandbox) == [("a", 3)]
    assert rows() == []


@pytest.mark.parametrize("first", [faults.reset_before, faults.reset_after], ids=["lost", "done"])
@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("body", [b"", {"error": "no such route"}], ids=["empty", "JSON"])
def test_gateway_without_anymate(
    sandbox: Sandbox, way: FaultProxy, rows: Rows, lines: Lines, first: Fault, status: int, body: object
) -> None:
    """A finish that was sent and then meets a gateway's own no is kept, with its KPIs, and never sent twice."""
    with anymate_run("a") as run:
        run.add_entries(3)
        way.break_next("FinishRun", faults.in_turn(first, faults.says(status, body)), times=2)
    assert [(row.state, row.entries) for row in rows()] == [("refused", 3)]
    (line,) = lines("anymate.finish_refused")
    assert line.startswith("ERROR")
    assert "entries=3" in line
    assert lines("anymate.run_finished") == []
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [3 if first is faults.reset_after else None]


def test_conflict_at_a_gateway(sandbox: Sandbox, way: FaultProxy, rows: Rows, lines: Lines) -> None:
    """A 409 that says nothing of the run leaves the finish owed, and it is credited once."""
    with anymate_run("a") as run:
        run.add_entries(3)
        way.break_next("FinishRun", faults.in_turn(faults.reset_after, faults.status(409)), times=2)
    assert len(lines("anymate.finish_stored")) == 1
    assert settle()
    assert finishes(sandbox) == [("a", 3)]
    assert rows() == []


def test_recording_reaches_the_journal(sandbox: Sandbox, rows: Rows) -> None:
    """What was recorded is in the journal at most a second later, also after a burst followed by silence."""
    with anymate_run("a") as run:
        run.add_entries(2)
        run.add_seconds_saved(1.5)
        until(lambda: [(row.entries, row.nanoseconds) for row in rows()] == [(2, 1_500_000_000)])
        for _ in range(1000):
            run.add_entries()
        until(lambda: [row.entries for row in rows()] == [1002])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_recorder_that_failed(sandbox: Sandbox, rows: Rows) -> None:
    """Should what writes to the journal fail, the next guard lets it begin again."""
    failed = threading.Event()

    def fail() -> bool:
        if failed.is_set():
            return False
        failed.set()
        raise ValueError("a mistake of ours")

    with anymate_run("a") as run:
        recorder.also(fail)
        assert failed.wait(LONGEST)
        until(lambda: recorder._thread is None)
        run.add_entries(2)
        with anymate_run("b"):
            until(lambda: [row.entries for row in rows() if row.process_key == "a"] == [2])
    recorder._chores.remove(fail)


def test_two_threads_on_one_key(sandbox: Sandbox, calls: Calls) -> None:
    """A guard that enters while the run of its key is being finished waits for that, and starts a run of its own."""
    sandbox.fail_next("FinishRun", delay=0.3)
    first = threading.Thread(target=outage, args=("a", 1))
    first.start()
    until(lambda: "FinishRun" in calls())
    outage("a", 2)
    first.join()
    assert finishes(sandbox) == [("a", 1), ("a", 2)]


def test_adopted_run_of_another_id(sandbox: Sandbox, rows: Rows) -> None:
    """A guard that adopts a run by its id does not join another one of that process, and finishes just its own."""
    client = defaults.shared_client()
    adopted = client.start_run("a")
    with anymate_run("a", run_id=adopted), anymate_run("a") as joined:
        assert joined.run_id == adopted
    adopted = client.start_run("b")
    with anymate_run("a") as own, anymate_run("a", run_id=adopted) as other:
        assert (other is own, other.run_id) == (False, adopted)
    assert finishes(sandbox) == [("a", None), ("b", None), ("a", None)]
    assert rows() == []


def test_adopted_run_that_is_closed(sandbox: Sandbox, rows: Rows, lines: Lines, calls: Calls) -> None:
    """What was recorded in an adopted run that somebody else finished is refused; it never gets a run of its own."""
    client = defaults.shared_client()
    adopted = client.start_run("a")
    client.finish_run(adopted)
    with anymate_run("a", run_id=adopted) as run:
        run.add_entries(4)
    assert calls() == ["StartRun", "FinishRun", "FinishRun"]
    assert [(row.state, row.entries) for row in rows()] == [("refused", 4)]
    (line,) = lines("anymate.finish_refused")
    assert "entries=4" in line


def test_adopting_names_a_run_that_has_no_id(sandbox: Sandbox, rows: Rows) -> None:
    """A guard that adopts a run joins the open one of its key that has no id yet, which gets this one."""
    run_id = defaults.shared_client().start_run("a")
    sandbox.close()
    with anymate_run("a") as run:
        run.add_entries(1)
        with anymate_run("a", run_id=run_id) as adopted:
            assert adopted is run
            assert run.run_id == run_id
        sandbox.start()
    assert finishes(sandbox) == [("a", 1)]
    assert rows() == []

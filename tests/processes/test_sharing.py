"""Two programs in one run, and what happens when they don't agree about it."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from anymate_guard import ApiError, UnreachableError, anymate_run
from anymate_guard._guard import defaults, driver
from anymate_guard._journal.contents import history_of
from anymate_guard._journal.journals import journal_at
from anymate_guard.sandbox import Sandbox
from tests.support.waiting import until

from .bots import asked, finished, rows, run, running

BODY = """
with anymate_run("k") as run:
    run.add_entries(5)
    say("inside")
    sys.stdin.readline()
"""


def test_late_start_into_another_s_run(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that met an outage starts late into the run another program is in, and leaves the finish to that."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "4")
    sandbox.close()
    with anymate_run("k") as late:
        sandbox.start()
        with running(BODY) as bot:
            bot.until("inside")
            late.add_entries(1)
            driver.finish_all()  # as at the interpreter's exit
            assert [one["finished"] for one in sandbox.runs()] == [False]
            bot.end()
    assert finished(sandbox) == [(6, None)]


def test_settling_a_run_of_another_program(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is owed without a run is started late by settling, not while another program is on its key."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "4")
    sandbox.close()
    with anymate_run("k") as late:
        late.add_entries(1)
    assert not driver.settle_all(defaults.shared_client())
    sandbox.start()
    sandbox.fail_next("StartRun", delay=0.3)
    with running(BODY, ANYMATE_DEADLINE="20", ANYMATE_TIMEOUT="10") as bot:
        until(asked(sandbox, "StartRun"))
        driver.settle_all(defaults.shared_client())
        bot.end()
    assert sorted(finished(sandbox), key=str) == [(1, None), (5, None)]


def test_run_that_somebody_else_finished(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """What a killed bot left in a run that was finished elsewhere gets a run of its own once its process is free."""
    with running(BODY) as bot:
        bot.until("inside")
        until(lambda: [row.entries for row, _ in rows()] == [5])
        bot.kill()
        until(lambda: [alive for _, alive in rows()] == [False])
    defaults.shared_client().finish_run(sandbox.runs()[0]["runId"])
    with anymate_run("k") as again:
        again.add_entries(1)
    assert finished(sandbox) == [(None, None), (1, None), (5, None)]
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


def adopt(run_id: int | None, error: str = "") -> None:
    """Let another program adopt a run, and leave it to whoever is in it still, by an error perhaps."""
    text = f"""
        with contextlib.suppress(ValueError), anymate_run("k", run_id={run_id}, report_failure=True) as run:
            run.add_entries(5)
            if {error!r}:
                raise ValueError({error!r})
        """
    assert run(f"import contextlib\n{textwrap.dedent(text)}") == (0, "", "")


def reported(sandbox: Sandbox) -> list[str]:
    """The failures that Anymate was told of."""
    return [failure["message"] for failure in sandbox.failures()]


def test_failure_in_an_adopted_run_that_is_closed(sandbox: Sandbox) -> None:
    """Where a guard's own run is started anew, the failure of one that had adopted the closed run is reported, too."""
    with anymate_run("k") as own:
        own.add_entries(1)
        adopt(own.run_id, "of the adopter")
        defaults.shared_client().finish_run(own.run_id or 0)
    assert [one["overwriteEntries"] for one in sandbox.runs()] == [None, 1]
    assert [(row.state, row.entries) for row, _ in rows()] == [("refused", 5)]
    assert reported(sandbox) == ["ValueError: of the adopter"]


def test_required_finish_of_an_adopted_run_that_is_closed(sandbox: Sandbox) -> None:
    """Whether a finish that is required was delivered is told by the guard's own row, not by others in its run."""
    run_id = defaults.shared_client().start_run("k")
    with pytest.raises(ApiError, match=r"^FinishRun .*already finished") as caught:  # noqa: SIM117
        with anymate_run("k", run_id=run_id, require_finish=True):
            assert run('with anymate_run("k") as run: run.add_entries(5)') == (0, "", "")
            defaults.shared_client().finish_run(run_id)
    assert str(caught.value).count("FinishRun") == 1
    assert [one["overwriteEntries"] for one in sandbox.runs()] == [None, 5]
    assert [row.state for row, _ in rows()] == ["refused"]


def test_refusal_of_what_others_left(sandbox: Sandbox) -> None:
    """A finish that is required was delivered if the guard's own row was, whatever another one had adopted."""
    with anymate_run("k", require_finish=True) as own:
        adopt(own.run_id)
        defaults.shared_client().finish_run(own.run_id or 0)
    assert [row.state for row, _ in rows()] == ["refused"]


def test_failure_that_is_left_to_others(sandbox: Sandbox) -> None:
    """A guard that gives its row back, as others are in the process, leaves the report of its failure to them."""
    with ExitStack() as stack:
        own = stack.enter_context(anymate_run("k", report_failure=True))
        adopt(own.run_id)
        defaults.shared_client().finish_run(own.run_id or 0)
        with running(BODY) as bot:
            bot.until("inside")
            until(lambda: {row.run_id for row, _ in rows()} - {own.run_id, None})
            stack.__exit__(ValueError, ValueError("of its own"), None)
            assert reported(sandbox) == []
            bot.end()
    assert run('with anymate_run("k"): pass') == (0, "", "")
    assert reported(sandbox) == ["ValueError: of its own"]


def test_killed_while_finishing(sandbox: Sandbox) -> None:
    """A finish that a kill left without its answer is sent again; that its run is not open any more is no refusal."""
    sandbox.fail_next("FinishRun", delay=60, after=True)
    with running('with anymate_run("k") as run: run.add_entries(3)') as bot:
        until(asked(sandbox, "FinishRun"))
        bot.kill()
        bot.dead()
    assert run('with anymate_run("other"): pass') == (0, "", "")
    assert finished(sandbox) == [(3, None), (None, None)]


def test_program_that_takes_long_to_finish(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard waits within its deadline for another program that finishes its key's run, then goes on without."""
    sandbox.fail_next("FinishRun", hang=True)
    with running("with anymate_run('k') as run: run.add_entries(5)") as bot:
        until(asked(sandbox, "FinishRun"))
        monkeypatch.setenv("ANYMATE_DEADLINE", "0.5")
        with pytest.raises(UnreachableError, match="another program"), anymate_run("k", require_start=True):
            pytest.fail("the body ran")
        with anymate_run("k") as waiting:
            assert waiting.run_id is None
            waiting.add_entries(1)
        assert sorted(row.state for row, _ in rows()) == ["done", "finishing"]
        sandbox._world.alarm.ring()
        bot.end()
    run("with anymate_run('other'): pass", ANYMATE_DEADLINE="10")
    assert sorted(finished(sandbox), key=str) == [(1, None), (5, None), (None, None)]


def test_require_start_and_a_question_that_gets_no_answer(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `require_start` an OkToRun that can't be asked raises, and leaves no row."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "0.3")
    sandbox.fail_next("OkToRun", times=20)
    with pytest.raises(UnreachableError), anymate_run("k", check_ok_to_run=True, require_start=True):
        pytest.fail("the body ran")
    assert rows() == []


def test_exit_puts_back_what_was_given_up(sandbox: Sandbox) -> None:
    """A finish that was interrupted, and whose giving back was interrupted too, is owed when the program has exited."""
    text = """
        from anymate_guard import AnymateClient
        from anymate_guard._journal.wanted import Wanted
        def interrupted(*args, **options):
            raise KeyboardInterrupt
        give_back = Wanted.give_back
        Wanted.give_back = AnymateClient.finish_run = interrupted
        try:
            with anymate_run("k") as run:
                run.add_entries(3)
        except KeyboardInterrupt:
            Wanted.give_back = give_back
        """
    assert run(text) == (0, "", "")
    assert [(row.entries, alive) for row, alive in rows()] == [(3, False)]
    assert run("with anymate_run('other'): pass") == (0, "", "")
    assert finished(sandbox) == [(3, None), (None, None)]


@pytest.mark.skipif(sys.platform == "win32", reason="has locks of its own kind")
def test_system_with_locks_of_processes_only(sandbox: Sandbox) -> None:
    """Where only processes can hold locks, not open files, as on macOS, bots are known to be alive, or dead, too."""
    old = "import fcntl\nif hasattr(fcntl, 'F_OFD_SETLK'): del fcntl.F_OFD_SETLK\n"
    with running(old + BODY) as bot:
        bot.until("inside")
        until(lambda: [(row.entries, alive) for row, alive in rows()] == [(5, True)])
        locks = Path(os.environ["ANYMATE_STATE_DIR"], "owners.lock")
        until(lambda: time.time() - locks.stat().st_mtime > 1)  # in a newer one everybody counts as alive
        assert run(old + 'with anymate_run("k"): pass')[0] == 0
        assert [one["finished"] for one in sandbox.runs()] == [False]
        bot.kill()
        bot.dead()
    assert run(old + 'with anymate_run("k") as run: run.add_entries(1)')[0] == 0
    assert finished(sandbox) == [(6, None)]


def test_killed_while_starting(sandbox: Sandbox) -> None:
    """A bot that was killed while it started leaves nothing behind for which there would be credit."""
    sandbox.fail_next("StartRun", hang=True)
    with running('with anymate_run("k") as run: run.add_entries(3)') as bot:
        until(asked(sandbox, "StartRun"))
        bot.kill()
        bot.dead()
    until(lambda: [alive for _, alive in rows()] == [False])
    assert run('with anymate_run("k") as run: run.add_entries(1)')[0] == 0
    assert finished(sandbox) == [(1, None)]


def test_waiting_for_another_program_to_finish(sandbox: Sandbox) -> None:
    """A guard that meets another program which finishes its key's run waits for that, then has a run of its own."""
    sandbox.fail_next("FinishRun", delay=1)
    with running(BODY) as bot:
        bot.until("inside")
        bot.go_on()
        until(asked(sandbox, "FinishRun"))
        with anymate_run("k") as run:
            run.add_entries(1)
        bot.end()
    assert finished(sandbox) == [(5, None), (1, None)]


def test_late_start_after_another_program_s_finish(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that starts its run when it is left waits for another program that finishes its key's run just then."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "4")
    sandbox.close()
    with ExitStack() as stack:
        with anymate_run("k") as late:
            late.add_entries(1)
            sandbox.start()
            sandbox.fail_next("FinishRun", delay=1)
            bot = stack.enter_context(running(BODY, ANYMATE_DEADLINE="20", ANYMATE_TIMEOUT="10"))
            bot.until("inside")
            bot.go_on()
            until(asked(sandbox, "FinishRun"))
        bot.end()
    assert finished(sandbox) == [(5, None), (1, None)]


NESTED = """
import contextlib
with anymate_run("k", default_credit="never") as run:
    with contextlib.suppress(ValueError), anymate_run("k", INNER) as inner:
        DO
    run.add_seconds_saved(3)
    say("inside")
    sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("options", "body", "credited", "reported"),
    [
        ("report_failure=True, default_credit='never'", "raise ValueError('inner')", (0, 3), ["ValueError: inner"]),
        ("default_credit='succeeded'", "pass", (None, 3), []),
    ],
    ids=["failed", "succeeded"],
)
def test_killed_after_another_guard_left(
    sandbox: Sandbox, options: str, body: str, credited: tuple[int | None, int], reported: list[str]
) -> None:
    """How a body ended whose guard has left counts, too, when the program is killed in another one of the same run."""
    with running(NESTED.replace("INNER", options).replace("DO", body)) as bot:
        bot.until("inside")
        until(lambda: [row.nanoseconds for row, _ in rows()] == [3 * 10**9])
        bot.kill()
        bot.dead()
    assert run('with anymate_run("other"): pass') == (0, "", "")
    assert finished(sandbox)[0] == credited
    assert [failure["message"] for failure in sandbox.failures()] == reported
    (line,), *_ = history_of(journal_at(Path(os.environ["ANYMATE_STATE_DIR"])), process_key="k")
    assert line.outcome == ("failed" if reported else "interrupted")


def test_outcome_of_both(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """A run failed if a body in it failed, whichever program it was in; that is what the last one out logs."""
    caplog.set_level("INFO", "anymate_guard")
    with anymate_run("k") as last:
        last.add_entries(1)
        assert run('with anymate_run("k"): sys.exit(3)')[0] == 3
    assert finished(sandbox) == [(1, None)]
    (line,) = [record.message for record in caplog.records if "run_finished" in record.message]
    assert "outcome=failed" in line

"""However an interpreter exits, the run of a guard is finished."""

from __future__ import annotations

import pytest

from anymate_guard.sandbox import Sandbox
from tests.support.waiting import until

from .bots import asked, finished, rows, run, running


@pytest.mark.parametrize(
    ("code", "status", "outcome"), [("", 0, "succeeded"), ("0", 0, "succeeded"), ("3", 3, "failed")]
)
def test_exit_in_the_body(sandbox: Sandbox, code: str, status: int, outcome: str) -> None:
    """`sys.exit` in the body finishes the run, and goes on with its status."""
    text = f"""
        try:
            with anymate_run("k") as run:
                run.add_entries(1)
                sys.exit({code})
        finally:
            say(run.outcome)
        """
    assert run(text) == (status, f"{outcome}\n", "")
    assert finished(sandbox) == [(1, None)]


def test_daemon_thread_inside_a_guard(sandbox: Sandbox) -> None:
    """A guard that is open in a daemon thread when the interpreter exits is finished then, with what it recorded."""
    text = """
        def work():
            with anymate_run("k", default_credit="succeeded") as run:
                run.add_entries(4)
                wait()

        threading.Thread(target=work, daemon=True).start()
        sys.stdin.readline()
        """
    with running(text) as bot:
        bot.until("inside")
        status, _, complaint = bot.end()
    assert (status, complaint) == (0, "")
    assert finished(sandbox) == [(4, 0)]


def test_daemon_thread_that_finishes(sandbox: Sandbox) -> None:
    """The interpreter's exit waits for a daemon thread that is finishing its run."""
    sandbox.fail_next("FinishRun", delay=0.5)
    text = """
        def work():
            with anymate_run("k") as run:
                run.add_entries(4)
            say("finished")

        threading.Thread(target=work, daemon=True).start()
        sys.stdin.readline()
        """
    with running(text) as bot:
        until(asked(sandbox, "FinishRun"))
        bot.end()
    assert finished(sandbox) == [(4, None)]


def test_many_daemon_threads_in_an_outage(sandbox: Sandbox) -> None:
    """An outage at the interpreter's exit costs one deadline, however many guards are open, and keeps every finish."""
    text = """
        def work(number):
            with anymate_run(f"k{number}") as run:
                run.add_entries(number)
                ready.release()
                time.sleep(60)

        ready = threading.Semaphore(0)
        for number in range(6):
            threading.Thread(target=work, args=(number,), daemon=True).start()
        for number in range(6):
            ready.acquire()
        say("inside")
        sys.stdin.readline()
        """
    with running(text, ANYMATE_DEADLINE="4", ANYMATE_TIMEOUT="2") as bot:
        bot.until("inside")
        sandbox.fail_next("*", hang=True, times=99)
        bot.end()
    assert [request["operation"] for request in sandbox.requests()].count("FinishRun") <= 3  # each takes two seconds
    sandbox.close()
    assert sorted(row.entries or 0 for row, _ in rows()) == [0, 1, 2, 3, 4, 5]
    sandbox.start()
    sandbox._world.faults.reset()
    run("with anymate_run('other'): pass")
    assert sorted(finished(sandbox), key=str) == [*((entries, None) for entries in range(6)), (None, None)]


def test_guard_in_an_exit_handler(sandbox: Sandbox) -> None:
    """A guard entered in an exit handler that runs after ours finishes its run, without a thread."""
    text = """
        def work():
            with anymate_run("k") as run:
                run.add_entries(1)

        import atexit
        atexit._clear()
        atexit.register(work)
        from anymate_guard._guard import driver
        atexit.register(driver.finish_all)
        """
    assert run(text) == (0, "", "")
    assert finished(sandbox) == [(1, None)]


def test_exit_functions_of_the_bot(sandbox: Sandbox) -> None:
    """What the bot does at its exit comes before runs are finished by force, also if it was registered before them."""
    text = """
        import atexit, contextlib
        stack = contextlib.ExitStack()
        atexit.register(stack.close)
        run = stack.enter_context(anymate_run("k", default_credit="succeeded"))
        stack.callback(run.add_entries, 9)
        run.add_entries(1)
        """
    assert run(text) == (0, "", "")
    assert finished(sandbox) == [(10, None)]

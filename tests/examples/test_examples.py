"""What Anymate recorded of each example, as the sandbox tells it."""

from __future__ import annotations

from anymate_guard.sandbox import Sandbox

from .conftest import Example


def recorded(sandbox: Sandbox) -> list[tuple[str, int | None, int | None]]:
    """Process key and overrides of all runs; every one of them is finished."""
    runs = sandbox.runs()
    assert all(run["finished"] for run in runs)
    return [(run["processKey"], run["overwriteEntries"], run["overwriteSecondsSaved"]) for run in runs]


def test_bot_entrypoint(sandbox: Sandbox, example: Example) -> None:
    """A decorated entrypoint is one run, on the environment's process, and its return value comes out."""
    done = example("bot_entrypoint.py", "a@b.example", "nobody", "c@d.example", ANYMATE_PROCESS_KEY="mailbox")
    assert (done.returncode, done.stderr) == (1, "")
    assert recorded(sandbox) == [("mailbox", 2, 85)]
    assert sandbox.failures() == []


def test_batch_job(sandbox: Sandbox, example: Example) -> None:
    """A guarded batch records what it has done, entry by entry."""
    done = example("batch_job.py")
    assert done.returncode == 0
    assert done.stdout == "2026-002: can't post a negative amount: -1.0\nposted 2 of 3\n"
    assert recorded(sandbox) == [("invoice-intake", 2, 240)]


def test_batch_job_that_is_stopped(sandbox: Sandbox, example: Example) -> None:
    """A batch that asks first starts no run while its process is stopped."""
    sandbox.set_process("invoice-intake", stopped=True)
    done = example("batch_job.py")
    assert done.returncode == 0
    assert "the process is stopped" in done.stdout
    assert recorded(sandbox) == []


def test_retry_loop(sandbox: Sandbox, example: Example) -> None:
    """A guard around the loop is one run with the last try's entries; one inside it is a run for each try."""
    done = example("retry_loop.py")
    assert done.returncode == 0, done.stderr
    in_the_loop = [("guard-in-tenacity", 1, 0), ("guard-in-tenacity", 1, 0), ("guard-in-tenacity", 2, None)]
    assert recorded(sandbox) == [
        ("tenacity-in-the-guard", 2, None),
        ("stamina-in-the-guard", 2, None),
        *in_the_loop,
        *[(key.replace("tenacity", "stamina"), entries, seconds) for key, entries, seconds in in_the_loop],
    ]
    shown = [f"{run['processKey']}: run {run['runId']}, {run['creditedEntries']} entries" for run in sandbox.runs()]
    assert done.stdout.splitlines()[-len(shown) :] == shown  # stamina logs to stdout before


def test_restart_loop(sandbox: Sandbox, example: Example) -> None:
    """A bot that restarts itself has finished and reported the failed round before it starts the next one."""
    done = example("restart_loop.py")
    assert done.returncode == 0
    assert "has closed its window; starting afresh" in done.stderr
    assert recorded(sandbox) == [("order-intake", 1, 0), ("order-intake", 2, None)]
    assert [failure["message"] for failure in sandbox.failures()] == [
        "RuntimeError: the order system has closed its window"
    ]


def test_async_bot(sandbox: Sandbox, example: Example) -> None:
    """Two guards at the same time are two runs, and each task records on its own."""
    done = example("async_bot.py")
    assert done.returncode == 0, done.stderr
    assert sorted(recorded(sandbox)) == [("orders", 3, None), ("returns", 2, None)]
    for run in sandbox.runs():
        assert f"{run['processKey']} 1, in run {run['runId']}" in done.stdout


def test_on_premises(sandbox: Sandbox, example: Example) -> None:
    """A client of one's own goes to its own addresses, whatever the environment says."""
    elsewhere = {
        "ANYMATE_API_URL": "https://anymate.example.com",
        "ANYMATE_AUTH_URL": "https://login.example.com",
    }
    done = example("on_premises.py", sandbox.url, sandbox.url, **elsewhere)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"run {sandbox.runs()[0]['runId']} on {sandbox.url}\n"
    assert recorded(sandbox) == [("stock-count", 1200, 3600)]

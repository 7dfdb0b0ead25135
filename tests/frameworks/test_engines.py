"""Schedulers, flow engines and RPA frameworks: a run for each job, flow and task."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox

from .conftest import Page
from .support import GO_ON, INSIDE, command, done, kill_inside, python, replace, runs, started, until, wait_after

AGAIN = "from anymate_guard import anymate_run\nwith anymate_run('invoice-intake') as run: run.add_entries(1)"


@pytest.fixture(name="scheduler")
def _scheduler(page: Page) -> None:
    """The scheduler of the page, whose job comes at once, and waits once it has recorded."""
    page("schedulers.md")
    replace("apscheduler_bot.py", "seconds=3600", "seconds=0.1")
    wait_after("apscheduler_bot.py", "current_run().add_entries(3)\n")


@pytest.mark.usefixtures("scheduler")
def test_apscheduler_is_stopped(sandbox: Sandbox) -> None:
    """With the page's line for SIGTERM, the job that is running ends, its run is finished, and the status is 143."""
    with started(sys.executable, "apscheduler_bot.py") as bot:
        until(INSIDE.exists)
        bot.send_signal(signal.SIGTERM)
        GO_ON.touch()
        output = bot.communicate(timeout=60)[0]
        assert bot.returncode == 143, output
    assert set(runs(sandbox)) == {("invoice-intake", 3, None)}


@pytest.mark.usefixtures("scheduler")
def test_apscheduler_is_killed(sandbox: Sandbox) -> None:
    """What a job had recorded when its process was killed is credited by the next one."""
    with started(sys.executable, "apscheduler_bot.py"):
        kill_inside()
    python(AGAIN)
    assert runs(sandbox) == [("invoice-intake", 4, None)]


def test_cron(sandbox: Sandbox) -> None:
    """A program in another language, started as cron does, is a run with the entries that it tells."""
    done(shell=command("schedulers.md", "anymate-guard exec"))
    assert runs(sandbox) == [("invoice-intake", 3, None)]


@pytest.fixture(name="prefect")
def _prefect(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flow of the page, and a Prefect that has nothing but this test's folder."""
    page("flow-engines.md")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "0")
    monkeypatch.setenv("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "80")


@pytest.mark.usefixtures("prefect")
def test_prefect(sandbox: Sandbox) -> None:
    """A flow is one run, with what its tasks returned."""
    done(sys.executable, "prefect_bot.py")
    assert runs(sandbox) == [("invoice-intake", 2, 85)]


@pytest.fixture(name="waiting")
def _waiting(prefect: None) -> None:
    """The flow of the page, which waits once it has recorded."""
    line = "def intake(invoices: list[str]) -> None:\n"
    replace("prefect_bot.py", line, line + "    current_run().add_entries(2)\n")
    wait_after("prefect_bot.py", "    current_run().add_entries(2)\n")


@pytest.mark.usefixtures("waiting")
def test_prefect_is_stopped(sandbox: Sandbox) -> None:
    """SIGTERM unwinds a flow, and its run is finished with what was merged until then."""
    with started(sys.executable, "prefect_bot.py") as bot:
        until(INSIDE.exists)
        bot.send_signal(signal.SIGTERM)
        bot.wait(60)  # its output is open still, in the server that it started
    assert runs(sandbox) == [("invoice-intake", 2, None)]


@pytest.mark.usefixtures("waiting")
def test_prefect_is_killed(sandbox: Sandbox) -> None:
    """What was merged when a flow was killed is credited by the next guard."""
    with started(sys.executable, "prefect_bot.py"):
        kill_inside()
    python(AGAIN)
    assert runs(sandbox) == [("invoice-intake", 3, None)]


def test_robocorp(sandbox: Sandbox, page: Page) -> None:
    """Tasks are found by the names of their functions, and each is a run on its own process."""
    page("rpa.md")
    done(shell=command("rpa.md", "python"))
    assert runs(sandbox) == [("invoice-intake", 3, None)]
    done(shell=command("rpa.md", "python").replace("intake", "archive"))
    assert runs(sandbox) == [("invoice-archive", 1, None), ("invoice-intake", 3, None)]


@pytest.fixture(name="robot")
def _robot(page: Page) -> None:
    """The robot of the page, whose first task waits once it has recorded."""
    page("rpa.md")
    wait_after("tasks.py", "current_run().add_entries(3)\n")


@pytest.mark.usefixtures("robot")
def test_robocorp_is_stopped(sandbox: Sandbox) -> None:
    """SIGTERM unwinds a task, and its run is finished with what was recorded."""
    with started(shell=command("rpa.md", "python")) as bot:
        until(INSIDE.exists)
        bot.send_signal(signal.SIGTERM)
        bot.communicate(timeout=60)
    assert runs(sandbox) == [("invoice-intake", 3, None)]


@pytest.mark.usefixtures("robot")
def test_robocorp_is_killed(sandbox: Sandbox) -> None:
    """What a task had recorded when it was killed is credited when it runs again."""
    with started(shell=command("rpa.md", "python")):
        kill_inside()
    GO_ON.touch()
    done(shell=command("rpa.md", "python"))
    assert runs(sandbox) == [("invoice-intake", 6, None)]

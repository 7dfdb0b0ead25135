"""`anymate-guard journal` and `anymate-guard journal deliver`."""

from __future__ import annotations

from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox

from .support import ended, journal, recorded, started, under_way, until


def owe(sandbox: Sandbox, key: str = "jobs", entries: int = 3, **environ: str) -> None:
    """Let a finish be owed."""
    sandbox.fail_next("FinishRun", status=401, times=2)
    script = f"echo entries={entries} >> $ANYMATE_KPI_FILE; echo seconds_saved=12.5 >> $ANYMATE_KPI_FILE"
    assert ended("exec", key, "--", "sh", "-c", script, **environ).returncode == 0


def test_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """An empty journal is said to be empty, and where it is."""
    done = ended("journal")
    path = tmp_path / "state" / "journal.sqlite3"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Nothing is open and nothing is owed, says {path}.\n"
    assert journal() == []
    assert sandbox.requests() == []


def test_open_and_owed(sandbox: Sandbox) -> None:
    """Rows of live owners are open, finishes that were not delivered are owed; no credentials are needed."""
    with started("exec", "jobs", "--", "sh", "-c", "echo ready; read line") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        owe(sandbox, "mails")  # a guard that is entered later would deliver it
        rows = journal(ANYMATE_USERNAME="", ANYMATE_PASSWORD="")
        table = ended("journal").stdout.splitlines()
        process.communicate("go on\n")
    account = {"address": sandbox.url, "username": sandbox.environ["ANYMATE_USERNAME"]}
    ids = {run["processKey"]: run["runId"] for run in sandbox.runs()}
    opened = {
        "state": "open",
        "processKey": "jobs",
        "runId": ids["jobs"],
        "entries": None,
        "secondsSaved": None,
    }
    owed = {"state": "owed", "processKey": "mails", "runId": ids["mails"], "entries": 3, "secondsSaved": 12.5}
    assert rows == [{**opened, **account}, {**owed, **account}]
    assert [line.split()[:5] for line in table] == [
        ["state", "processKey", "runId", "entries", "secondsSaved"],
        ["open", "jobs", str(ids["jobs"]), "–", "–"],
        ["owed", "mails", str(ids["mails"]), "3", "12.5"],
    ]


def test_run_that_has_not_begun(sandbox: Sandbox) -> None:
    """A program that is killed while it starts a run owes nothing, as no work was done."""
    sandbox.fail_next("StartRun", hang=True)
    with started("exec", "jobs", "--", "true") as process:
        until(lambda: under_way(sandbox, "StartRun"))
        assert [row["state"] for row in journal()] == ["open"]
        process.kill()
    assert journal() == []
    assert ended("journal", "deliver").returncode == 0


def test_deliver(sandbox: Sandbox) -> None:
    """`deliver` sends what is owed now, leaves open what is in use, and exits with 0 when nothing is owed."""
    with started("exec", "jobs", "--", "sh", "-c", "echo ready; read line") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        owe(sandbox, "mails")
        done = ended("journal", "deliver")
        assert (done.returncode, done.stdout, done.stderr) == (0, "1 settled, 0 still owed\n", "")
        assert [run["finished"] for run in sandbox.runs()] == [False, True]
        process.communicate("go on\n")
    assert recorded(sandbox) == [(None, None), (3, 13)]


def test_what_cannot_be_delivered(sandbox: Sandbox) -> None:
    """What Anymate does not take now stays owed, the others are delivered, and the exit code is 1."""
    owe(sandbox, "mails")
    sandbox.fail_next("FinishRun", status=401, times=2)
    owe(sandbox, "jobs")
    sandbox.fail_next("FinishRun", status=403, times=9, process_key="mails")
    done = ended("journal", "deliver")
    owed_by = f"owed to {sandbox.url} by {sandbox.environ['ANYMATE_USERNAME']}"
    assert (done.returncode, done.stdout) == (1, f"1 settled, 1 still owed\n  {owed_by}\n")
    assert done.stderr.startswith("anymate-guard journal: finish stored: ")
    assert [row["processKey"] for row in journal()] == ["mails"]


def test_refused_for_good(sandbox: Sandbox) -> None:
    """A finish that is refused for good is not owed any more; it is told with its KPIs."""
    owe(sandbox)
    sandbox.fail_next("FinishRun", status=400)
    done = ended("journal", "deliver")
    assert (done.returncode, done.stdout) == (0, "1 settled, 0 still owed\n")
    assert "finish refused" in done.stderr
    assert "entries=3" in done.stderr


def test_somebody_elses(sandbox: Sandbox) -> None:
    """What another user owes is not sent with this one's credentials: it is named, and the exit code is 1."""
    sandbox.close()
    ended("exec", "jobs", "--", "true", ANYMATE_USERNAME="another@sandbox", ANYMATE_DEADLINE="1")
    sandbox.start()
    done = ended("journal", "deliver")
    assert (done.returncode, done.stdout) == (
        1,
        f"0 settled, 1 still owed\n  owed to {sandbox.url} by another@sandbox\n",
    )


def test_deliver_while_disabled(sandbox: Sandbox) -> None:
    """With ANYMATE_DISABLED nothing is sent."""
    owe(sandbox)
    before = len(sandbox.requests())
    assert ended("journal", "deliver", ANYMATE_DISABLED="1").returncode == 1
    assert len(sandbox.requests()) == before


@pytest.mark.parametrize("arguments", [["journal"], ["journal", "--json"], ["journal", "deliver"]])
def test_wrong_settings(sandbox: Sandbox, arguments: list[str]) -> None:
    """A wrong setting is said in one line, with exit code 2."""
    done = ended(*arguments, ANYMATE_DEADLINE="soon")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("anymate-guard journal: ANYMATE_DEADLINE: must be a number")


@pytest.mark.parametrize("arguments", [["journal"], ["journal", "--json"], ["journal", "deliver"]])
def test_journal_that_cannot_be_used(sandbox: Sandbox, tmp_path: Path, arguments: list[str]) -> None:
    """A journal that can't be used is told, with its path and what to do, and not taken for an empty one."""
    file = tmp_path / "file"
    file.write_text("")
    done = ended(*arguments, ANYMATE_STATE_DIR=str(file))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert str(file) in done.stderr
    assert "ANYMATE_STATE_DIR" in done.stderr
    assert "Nothing is open" not in done.stdout

"""`anymate-guard journal`, `journal deliver` and `journal drop`."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox
from tests.support.proxy import Exchange, FaultProxy
from tests.support.waiting import LONGEST, until

from .support import COMMAND, ended, journal, needs_sh, recorded, repeated, started, under_way

pytestmark = needs_sh


def owe(sandbox: Sandbox, key: str = "jobs", entries: int = 3, **environ: str) -> None:
    """Let a finish be owed."""
    sandbox.fail_next("FinishRun", status=401, times=2)
    script = f"echo entries={entries} >> $ANYMATE_KPI_FILE; echo seconds_saved=12.5 >> $ANYMATE_KPI_FILE"
    assert ended("exec", key, "--", "sh", "-c", script, **environ).returncode == 0


def shown(text: str) -> list[str]:
    """Lines, with one space between columns, and A for an age and ID and N for numbers that differ each time."""
    text = re.sub(r"(?m)^[0-9a-f]{7}\b", "ID", text)
    text = re.sub(r"\b\d{5,}\b", "N", re.sub(r"(?m) \d+ (s|min)$", " A", text))
    return [" ".join(line.split()) for line in text.splitlines()]


def account(sandbox: Sandbox, user: str = "mate@sandbox") -> str:
    """The heading above what an account owes."""
    return re.sub(r"\d{5,}", "N", f"{user} at {sandbox.url}")


HEAD = "ID STATE PROCESS RUN ENTRIES TIME SAVED AGE"


def test_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    """An empty journal is said to be empty, and where it is."""
    done = ended("journal")
    path = tmp_path / "state" / "journal.sqlite3"
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Nothing is open and nothing is owed in {path}.\n"
    assert journal() == []
    assert sandbox.requests() == []


def test_open_and_owed(sandbox: Sandbox) -> None:
    """What live programs are in is open, what was not delivered is owed, with age and reason; without credentials."""
    with started("exec", "jobs", "--", "sh", "-c", "echo ready; read line") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        until(lambda: [row["runId"] is not None for row in journal()] == [True])  # at the next look
        owe(sandbox, "mails")  # a guard that is entered later would deliver it
        rows = journal(ANYMATE_USERNAME="", ANYMATE_PASSWORD="")
        table = ended("journal").stdout
        process.communicate("go on\n")
    assert all(0 < row.pop("ageSeconds") < 60 for row in rows)
    assert all(re.fullmatch(r"[0-9a-f]{14}", row.pop("id")) for row in rows)
    place = {"address": sandbox.url, "username": sandbox.environ["ANYMATE_USERNAME"]}
    ids = {run["processKey"]: run["runId"] for run in sandbox.runs()}
    refused = "FinishRun was refused by Anymate (HTTP 401): a fresh token was refused, too: The sandbox was asked to"
    opened = {"state": "open", "processKey": "jobs", "entries": None, "secondsSaved": None, "reason": None}
    owed = {"state": "owed", "processKey": "mails", "entries": 3, "secondsSaved": 12.5}
    assert rows[0] == {**opened, "runId": ids["jobs"], **place}
    assert rows[1] == {**owed, "runId": ids["mails"], "reason": f"{refused} answer 401.", **place}
    assert max(map(len, table.splitlines())) <= 80
    lines = shown(table)
    assert lines[:4] == [account(sandbox), HEAD, "ID open jobs N – – A", "ID owed mails N 3 12.5 s A"]
    assert " ".join(lines[4:]) == f"{refused} answer 401."


def test_run_that_has_not_begun(sandbox: Sandbox) -> None:
    """A program that is killed while it starts a run owes nothing, as no work was done; the run may be open."""
    sandbox.fail_next("StartRun", hang=True)
    with started("exec", "jobs", "--", "true") as process:
        until(lambda: under_way(sandbox, "StartRun"))
        assert [row["state"] for row in journal()] == ["open"]
        process.kill()
    assert [row["state"] for row in journal()] == ["maybe open"]
    done = ended("journal", "deliver")
    assert (done.returncode, done.stdout) == (0, "0 delivered, 0 still owed\n")


def test_deliver(sandbox: Sandbox) -> None:
    """`deliver` sends what is owed now, leaves open what is in use, and exits with 0 when nothing is owed."""
    with started("exec", "jobs", "--", "sh", "-c", "echo ready; read line") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        owe(sandbox, "mails")
        done = ended("journal", "deliver")
        assert (done.returncode, done.stdout, done.stderr) == (0, "1 delivered, 0 still owed\n", "")
        assert [run["finished"] for run in sandbox.runs()] == [False, True]
        process.communicate("go on\n")
    assert recorded(sandbox) == [(None, None), (3, 13)]


def test_deliver_after_an_outage(sandbox: Sandbox) -> None:
    """`deliver` tries at once when a person asks, however short ago Anymate was unreachable."""
    sandbox.close()
    assert ended("exec", "jobs", "true", ANYMATE_DEADLINE="5").returncode == 0
    sandbox.start()
    done = ended("journal", "deliver")
    assert (done.returncode, done.stdout) == (0, "1 delivered, 0 still owed\n")
    assert recorded(sandbox) == [(None, None)]


def test_what_cannot_be_delivered(sandbox: Sandbox) -> None:
    """What Anymate does not take now stays owed, the others are delivered, and the exit code is 1."""
    owe(sandbox, "mails")
    sandbox.fail_next("FinishRun", status=401, times=2)
    owe(sandbox, "jobs")
    sandbox.fail_next("FinishRun", status=403, times=9, process_key="mails")
    done = ended("journal", "deliver")
    assert done.returncode == 1
    assert shown(done.stdout)[:4] == [
        "1 delivered, 1 still owed",
        account(sandbox),
        HEAD,
        "ID owed mails N 3 12.5 s A",
    ]
    assert done.stderr.startswith("anymate-guard journal: finish stored: ")
    assert [row["processKey"] for row in journal()] == ["mails"]


def test_refused_for_good(sandbox: Sandbox) -> None:
    """A finish that is refused for good is kept with the reason, for people to see; the exit code is 1, once."""
    owe(sandbox)
    sandbox.fail_next("FinishRun", status=400)
    done = ended("journal", "deliver")
    assert done.returncode == 1
    assert "finish refused" in done.stderr
    assert "entries=3" in done.stderr
    assert shown(done.stdout) == [
        "0 delivered, 0 still owed, 1 refused",
        account(sandbox),
        HEAD,
        "ID refused jobs N 3 12.5 s A",
        "FinishRun was refused by Anymate (HTTP 400): The sandbox was asked to",
        "answer 400.",
    ]
    assert [row["state"] for row in journal()] == ["refused"]
    assert ended("journal", "deliver").returncode == 0


def test_deliver_as_json(sandbox: Sandbox) -> None:
    """`deliver --json` tells programs what was delivered, what is owed still, and what was refused."""
    owe(sandbox, "mails")
    sandbox.fail_next("FinishRun", status=400, process_key="mails")
    done = ended("journal", "deliver", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["delivered"], answer["owed"]) == (1, 0, [])
    assert [(row["processKey"], row["state"], row["entries"]) for row in answer["refused"]] == [("mails", "refused", 3)]
    done = ended("journal", "--json", "deliver")
    assert json.loads(done.stdout) == {"delivered": 0, "owed": [], "refused": []}


def test_somebody_elses(sandbox: Sandbox) -> None:
    """What another user owes is not sent with this one's credentials: it is named, and the exit code is 1."""
    sandbox.close()
    ended("exec", "jobs", "--", "true", ANYMATE_USERNAME="another@sandbox", ANYMATE_DEADLINE="5")
    sandbox.start()
    done = ended("journal", "deliver")
    assert done.returncode == 1
    assert shown(done.stdout)[:2] == ["0 delivered, 1 still owed", account(sandbox, "another@sandbox")]


def test_deliver_while_disabled(sandbox: Sandbox) -> None:
    """With ANYMATE_DISABLED nothing is sent."""
    owe(sandbox)
    before = len(sandbox.requests())
    assert ended("journal", "deliver", ANYMATE_DISABLED="1").returncode == 1
    assert len(sandbox.requests()) == before


def test_deliver_by_a_proxy_that_cannot_be_used(sandbox: Sandbox) -> None:
    """A proxy that `deliver` can't use is a wrong setting, said in one line."""
    owe(sandbox)
    done = ended("journal", "deliver", ALL_PROXY="socks5://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "anymate-guard journal: HTTP_PROXY or ALL_PROXY: 'socks5://127.0.0.1:1' can't be used"
    )
    assert len(done.stderr.splitlines()) == 1


def test_drop(sandbox: Sandbox) -> None:
    """`drop --yes` gives up what is owed to an Anymate that is gone, by the ids that the list shows."""
    sandbox.close()
    for key in ("jobs", "mails"):
        ended("exec", key, "true", ANYMATE_DEADLINE="5")
    shown_ids = {row["processKey"]: row["id"][:7] for row in journal()}
    done = ended("journal", "drop", "--yes", shown_ids["jobs"], shown_ids["jobs"].upper())
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 dropped\n", "")
    assert [row["processKey"] for row in journal()] == ["mails"]


def test_drop_asks(sandbox: Sandbox) -> None:
    """Where nobody can be asked, `drop` drops nothing without --yes."""
    owe(sandbox)
    (row,) = journal()
    done = ended("journal", "drop", row["id"])
    assert done.returncode == 1
    assert done.stderr == "anymate-guard journal: nothing was dropped: say --yes where nobody can be asked\n"
    assert len(journal()) == 1


def test_drop_without_stdin(sandbox: Sandbox) -> None:
    """Where stdin is closed, as some schedulers have it, nobody can be asked either."""
    owe(sandbox)
    (row,) = journal()
    command = [*COMMAND, "journal", "drop", row["id"]]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command], capture_output=True, text=True, timeout=LONGEST, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "anymate-guard journal: nothing was dropped: say --yes where nobody can be asked\n"


def test_drop_while_locked(sandbox: Sandbox, tmp_path: Path) -> None:
    """While another program holds the journal, `drop` drops nothing, and says so."""
    owe(sandbox)
    (row,) = journal()
    with closing(sqlite3.connect(tmp_path / "state" / "journal.sqlite3")) as other:
        other.execute("BEGIN IMMEDIATE")
        done = ended("journal", "drop", "--yes", row["id"])
        other.rollback()
    assert (done.returncode, done.stdout) == (1, "")
    assert "database is locked; close the program that holds it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert len(journal()) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
@pytest.mark.parametrize(("answer", "left"), [("n\n", 1), ("\n", 1), ("\4", 1), ("y\n", 0)])
def test_drop_in_a_terminal(sandbox: Sandbox, answer: str, left: int) -> None:
    """In a terminal it shows what is to be dropped, and asks; only a yes drops it."""
    from tests.support.screen import screen

    owe(sandbox)
    (row,) = journal()
    with screen("journal", "drop", row["id"]) as terminal:
        terminal.until("Drop this? Its KPIs will never be credited. [y/N]")
        assert any(line.startswith(row["id"][:7]) for line in terminal.lines)
        terminal.type(answer)
        assert terminal.ended() == left
    assert len(journal()) == left


def test_what_cannot_be_dropped(sandbox: Sandbox) -> None:
    """An id that is none or several, or a run that a program is in, is refused; nothing is dropped then."""
    with started("exec", "jobs", "--", "sh", "-c", "echo ready; read line") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        owe(sandbox, "mails")
        ids = {row["processKey"]: row["id"] for row in journal()}
        for name, code, says in (
            ("xyz", 2, "there is no such id"),
            ("", 2, "there is no such id"),
            (ids["jobs"], 1, "a program is in this run; it can't be dropped"),
        ):
            done = ended("journal", "drop", "--yes", ids["mails"], name)
            assert (done.returncode, done.stdout) == (code, "")
            assert done.stderr == f"anymate-guard journal: '{name}': {says}\n"
        assert len(journal()) == 2
        process.communicate("go on\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_terminal(sandbox: Sandbox) -> None:
    """In a terminal of 80 columns a long process key is cut, and states have colours."""
    from tests.support.screen import screen

    owe(sandbox, "the-process-with-the-longest-name-that-anybody-has-seen")
    with screen("journal") as terminal:
        assert terminal.ended() == 0
    assert "brown" in terminal.colours
    assert any("the-process-with-" in line and "...  " in line and line.endswith(" s") for line in terminal.lines)


def test_long_journal(sandbox: Sandbox) -> None:
    """Of a long journal the list shows a hundred rows, open and refused ones first, and how many more there are."""
    owe(sandbox)
    with started("exec", "work", "--", "sh", "-c", "echo ready; read line") as process:
        assert process.stdout is not None
        process.stdout.readline()
        owe(sandbox, "mails")
        repeated("rows", "mails", 1000, "id", lambda number: number)
        first, *rest = [item["state"] for item in journal()]
        assert (first, rest) == ("open", ["owed"] * 1000)
        done = ended("journal")
        table = [line.split()[1] for line in shown(done.stdout) if line.startswith("ID ")]
        assert table == ["STATE", "open", *["owed"] * 99]
        assert done.stdout.endswith("… and 901 more; anymate-guard journal --json lists all\n")
        assert "1 open, 1000 owed" in ended("check").stdout
        assert ended("journal", "drop", "--yes", f"{7:014x}").stdout == "1 dropped\n"
        assert "1 open, 999 owed" in ended("check").stdout
        process.communicate("go on\n")


ACTIONS = [
    *(["journal"], ["journal", "--json"], ["journal", "deliver"], ["journal", "deliver", "--json"]),
    *(["journal", "drop", "0"], ["history"]),
]


@pytest.mark.parametrize("arguments", ACTIONS)
def test_wrong_settings(sandbox: Sandbox, arguments: list[str]) -> None:
    """A wrong setting is said in one line, with exit code 2."""
    done = ended(*arguments, ANYMATE_DEADLINE="soon")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"anymate-guard {arguments[0]}: ANYMATE_DEADLINE: must be a number")


@pytest.mark.parametrize("arguments", ACTIONS)
def test_journal_that_cannot_be_used(sandbox: Sandbox, tmp_path: Path, arguments: list[str]) -> None:
    """A journal that can't be used is told, with its path and what to do, and not taken for an empty one."""
    file = tmp_path / "file"
    file.write_text("")
    done = ended(*arguments, ANYMATE_STATE_DIR=str(file))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert str(file) in done.stderr
    assert "ANYMATE_STATE_DIR" in done.stderr
    assert done.stdout == ""


def test_rows_that_make_no_sense(sandbox: Sandbox, tmp_path: Path) -> None:
    """Rows that make no sense are said to be set aside, and not taken for what is owed."""
    outage(sandbox, 2)
    file = tmp_path / "state" / "journal.sqlite3"
    for harmed, says in (("jobs-0", "1 row makes"), ("jobs-1", "2 rows make")):
        with closing(sqlite3.connect(file)) as other, other:
            other.execute("UPDATE rows SET entries = 'many' WHERE process_key = ?", (harmed,))
        told = f"{file}: {says} no sense; nothing is sent for what is set aside"
        done = ended("journal")
        assert (done.returncode, done.stderr) == (0, f"anymate-guard journal: {told}\n")
        assert harmed not in done.stdout
        assert f"{told.partition(': ')[2]}\n" in ended("check").stdout
    done = ended("journal", "deliver")
    assert (done.returncode, done.stdout) == (0, "0 delivered, 0 still owed\n")


OUTAGE = """
import logging, sys
logging.disable()
from anymate_guard import anymate_run
for number in range(int(sys.argv[1])):
    with anymate_run(f"jobs-{number}") as run:
        run.add_entries()
"""


def outage(sandbox: Sandbox, count: int, **environ: str) -> None:
    """Let many finishes be owed, each of another process."""
    sandbox.close()
    command = [sys.executable, "-c", OUTAGE, str(count)]
    subprocess.run(command, env={**os.environ, **environ, "ANYMATE_DEADLINE": "1"}, check=True, timeout=60)
    sandbox.start()


@pytest.fixture(name="slow")
def _slow(sandbox: Sandbox) -> Iterator[FaultProxy]:
    with FaultProxy(sandbox.url) as proxy:
        yield proxy


def via(proxy: FaultProxy) -> dict[str, str]:
    """The variables that lead through a proxy, and give up soon."""
    return {"ANYMATE_API_URL": proxy.url, "ANYMATE_AUTH_URL": proxy.url, "ANYMATE_DEADLINE": "10"}


def credited(sandbox: Sandbox) -> list[int | None]:
    """The entries of every run that is finished."""
    return [run["overwriteEntries"] for run in sandbox.runs() if run["finished"]]


@pytest.mark.parametrize("owed", [5, 130])
def test_several_are_delivered_at_once(sandbox: Sandbox, slow: FaultProxy, owed: int) -> None:
    """Of a backlog, four finishes are under way at once; each is delivered once."""
    outage(sandbox, owed, **via(slow))
    together = threading.Barrier(4)

    def meet(exchange: Exchange) -> None:
        together.wait(20)
        exchange.answer(*exchange.forward())

    slow.break_next("FinishRun", meet, times=4)
    done = ended("journal", "deliver", **via(slow))
    assert (done.stdout, done.returncode) == (f"{owed} delivered, 0 still owed\n", 0)
    assert not together.broken
    assert credited(sandbox) == [1] * owed


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after(sandbox: Sandbox, status: int) -> None:
    """A delivery waits as long as Anymate asks for before it tries a finish again."""
    owe(sandbox)
    sandbox.fail_next("FinishRun", status=status, retry_after=2)
    assert ended("journal", "deliver").stdout == "1 delivered, 0 still owed\n"
    refused, tried_again = [request for request in sandbox.requests() if request["operation"] == "FinishRun"][-2:]
    assert refused["status"] == status
    waited = datetime.fromisoformat(tried_again["at"]) - datetime.fromisoformat(refused["at"])
    assert waited >= timedelta(seconds=2)
    assert recorded(sandbox) == [(3, 13)]


def test_what_is_put_off_holds_up_nobody(sandbox: Sandbox) -> None:
    """What has been owed longest and can't be delivered yet, however much it is, does not keep the rest from it."""
    outage(sandbox, 40)
    owe(sandbox, "mails")
    for number in range(40):
        sandbox.fail_next("FinishRun", status=403, process_key=f"jobs-{number}", times=9)
    done = ended("journal", "deliver")
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "1 delivered, 40 still owed")
    assert credited(sandbox) == [3]


def test_long_backlog_that_stays(sandbox: Sandbox) -> None:
    """Of a long backlog that stays owed, a hundred are shown and the others counted; JSON has all of them."""
    outage(sandbox, 1)
    repeated("rows", "jobs-0", 130, "id", lambda number: number)
    sandbox.close()
    done = ended("journal", "deliver", ANYMATE_DEADLINE="1")
    assert done.returncode == 1
    assert done.stdout.startswith("0 delivered, 130 still owed\n")
    assert len([line for line in shown(done.stdout) if line.startswith("ID owed ")]) == 100
    assert done.stdout.endswith("… and 30 more; anymate-guard journal --json lists all\n")
    done = ended("journal", "deliver", "--json", ANYMATE_DEADLINE="1")
    assert len(json.loads(done.stdout)["owed"]) == 130


def held_at(proxy: FaultProxy, number: int) -> threading.Event:
    """Let the finish of this number wait for the event that comes back."""
    go_on, numbers = threading.Event(), itertools.count(1)

    def hold(exchange: Exchange) -> None:
        if next(numbers) == number:
            go_on.wait(60)
        exchange.answer(*exchange.forward())

    proxy.break_next("FinishRun", hold, times=math.inf)
    return go_on


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_progress(sandbox: Sandbox, slow: FaultProxy) -> None:
    """On a terminal a line says how many finishes are left and when it will be done; it is gone at the end."""
    from tests.support.screen import screen

    outage(sandbox, 3, **via(slow))
    go_on = held_at(slow, 3)
    patient = {**via(slow), "ANYMATE_TIMEOUT": "60", "ANYMATE_DEADLINE": "60"}
    with screen("journal", "deliver", **patient) as terminal:
        terminal.until(" 1 left, done in ")
        go_on.set()
        assert terminal.ended() == 0
        assert terminal.lines == ["3 delivered, 0 still owed"]


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C reaches a whole console there")
def test_interrupted(sandbox: Sandbox, slow: FaultProxy) -> None:
    """A delivery that is interrupted loses nothing, and delivers nothing twice: the next one sends the rest."""
    outage(sandbox, 40, **via(slow))
    go_on = held_at(slow, 5)
    with started("journal", "deliver", **via(slow)) as process:
        until(lambda: len(credited(sandbox)) >= 4)
        process.send_signal(signal.SIGINT)
        go_on.set()
        process.wait(30)
    assert process.returncode != 0
    assert len(credited(sandbox)) < 40
    assert ended("journal", "deliver", **via(slow)).returncode == 0
    assert credited(sandbox) == [1] * 40

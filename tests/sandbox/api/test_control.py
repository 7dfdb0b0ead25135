"""The control side, over HTTP and from Python."""

from __future__ import annotations

from datetime import date
from typing import Any
from urllib.parse import urlsplit

import pytest

from anymate_guard.sandbox import JournalRow, Sandbox

from ..support import Bot


@pytest.mark.parametrize("name", ["runs", "failures", "requests", "processes", "faults"])
def test_lists(sandbox: Sandbox, bot: Bot, name: str) -> None:
    """Each list over HTTP is the list that Python gives, and needs no token."""
    bot.start()
    bot.post("/api/Failure/", {"processKey": "invoices"})
    sandbox.fail_next("StartRun")
    bot.headers.clear()
    expected = getattr(sandbox, name)()
    assert expected
    assert bot.get(f"/sandbox/{name}").json == expected
    assert bot.get(f"/sandbox/{name}/").json == expected


def test_lists_are_copies(sandbox: Sandbox, bot: Bot) -> None:
    """What Python gives can be changed without changing the sandbox."""
    bot.start()
    bot.post("/api/Failure/", {"processKey": "invoices"})
    sandbox.runs()[0]["finished"] = True
    sandbox.failures()[0]["message"] = "changed"
    sandbox.requests()[0]["path"] = "changed"
    assert sandbox.runs()[0]["finished"] is False
    assert sandbox.failures()[0]["message"] == ""
    assert sandbox.requests()[0]["path"] == "/connect/token"


def test_requests(sandbox: Sandbox, bot: Bot) -> None:
    """A request is listed with what was asked and what was answered; requests to the control side are not."""
    run_id = bot.start()
    bot.finish(run_id, User_Agent="none of the fields")
    bot.get("/sandbox/runs")
    assert [request["operation"] for request in sandbox.requests()] == ["token", "StartRun", "FinishRun"]
    assert sandbox.requests()[1] == {
        "operation": "StartRun",
        "method": "GET",
        "path": "/api/StartRun/invoices",
        "processKey": "invoices",
        "body": "",
        "status": 200,
        "answer": f'{{"processKey": "invoices", "runId": {run_id}}}',
        "connection": 1,
        "at": "2025-12-24T12:00:00.250000+00:00",
        "userAgent": "",
    }
    assert str(run_id) in sandbox.requests()[2]["body"]


def test_user_agent(sandbox: Sandbox, bot: Bot) -> None:
    """The list says who asked."""
    bot.get("/api/OkToRun/invoices", User_Agent="my-bot/1.0")
    assert sandbox.requests()[-1]["userAgent"] == "my-bot/1.0"


def test_status_of_refusals(sandbox: Sandbox, stranger: Bot) -> None:
    """The list says what was answered, refusals included."""
    stranger.get("/api/StartRun/invoices")
    stranger.get("/api/FinishRun/")
    assert [request["status"] for request in sandbox.requests()] == [401, 405]


def test_long_bodies_are_cut(sandbox: Sandbox, bot: Bot) -> None:
    """The list keeps the beginning of a long body."""
    bot.post("/api/Failure/", {"processKey": "invoices", "message": "x" * 10_000})
    assert len(sandbox.requests()[-1]["body"]) == 4_000
    assert len(sandbox.failures()[0]["message"]) == 10_000


def test_set_process(bot: Bot) -> None:
    """A process can be set up before anybody mentions it; what is not given stays as it is."""
    answer = bot.send("PUT", "/sandbox/processes/a%2Fb", {"stopped": True, "blockedDate": "2026-01-01"})
    assert answer.json == {
        "processKey": "a/b",
        "stopped": True,
        "blockedDate": "2026-01-01",
        "secondsSaved": 60,
        "entries": None,
        "secondsSavedPerEntry": None,
        "tasksEnabled": False,
        "readyTasks": 0,
        "failure": None,
        "runId": None,
    }
    changed = bot.send("PUT", "/sandbox/processes/a%2Fb", {"entries": 3, "secondsSavedPerEntry": 20}).json
    assert changed == {**answer.json, "secondsSaved": None, "entries": 3, "secondsSavedPerEntry": 20}
    changed = bot.send("PUT", "/sandbox/processes/a%2Fb", {"blockedDate": None, "entries": 5}).json
    assert (changed["blockedDate"], changed["entries"], changed["secondsSavedPerEntry"]) == (None, 5, 20)
    changed = bot.send("PUT", "/sandbox/processes/a%2Fb", {"secondsSavedPerEntry": 7}).json
    assert (changed["stopped"], changed["entries"], changed["secondsSavedPerEntry"]) == (True, 5, 7)


def test_set_process_from_python(sandbox: Sandbox) -> None:
    """Python sets up a process by the same rules, with dates as dates."""
    sandbox.set_process("a", stopped=True, blocked_date=date(2026, 1, 1), tasks_enabled=True)
    view = sandbox.set_process("a", entries=1, seconds_saved_per_entry=2)
    assert (view["stopped"], view["blockedDate"], view["tasksEnabled"]) == (True, "2026-01-01", True)
    assert (view["entries"], view["secondsSavedPerEntry"], view["secondsSaved"]) == (1, 2, None)
    assert sandbox.set_process("a", blocked_date="")["blockedDate"] is None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"stopped": "yes"}, "stopped"),
        ({"stopped": None}, "stopped"),
        ({"tasksEnabled": 1}, "tasksEnabled"),
        ({"blockedDate": "tomorrow"}, "blockedDate"),
        ({"blockedDate": 20260101}, "blockedDate"),
        ({"secondsSaved": -1}, "secondsSaved"),
        ({"secondsSaved": None}, "secondsSaved"),
        ({"secondsSaved": 2**31}, "secondsSaved"),
        ({"secondsSaved": 1, "entries": 1}, "secondsSaved"),
        ({"entries": 1}, "secondsSavedPerEntry"),
        ({"entries": 1.5, "secondsSavedPerEntry": 1}, "entries"),
        ({"entries": 1, "secondsSavedPerEntry": "x" * 100}, "secondsSavedPerEntry"),
        ({"stoped": True}, "stoped"),
    ],
)
def test_bad_process(sandbox: Sandbox, bot: Bot, fields: dict[str, Any], named: str) -> None:
    """A bad setting is answered 400 with a short message that names the field, and nothing changes."""
    before = sandbox.set_process("a")
    answer = bot.send("PUT", "/sandbox/processes/a", fields)
    assert answer.status == 400
    assert named in answer.json["message"]
    assert len(answer.json["message"]) < 200
    assert sandbox.processes() == [before]


def test_bad_process_from_python(sandbox: Sandbox) -> None:
    """From Python a bad setting is a ValueError that names the field."""
    with pytest.raises(ValueError, match="secondsSaved"):
        sandbox.set_process("a", seconds_saved=-1)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/sandbox/runs", "GET"),
        ("GET", "/sandbox/reset", "POST"),
        ("PUT", "/sandbox/faults", "GET, POST, DELETE"),
        ("GET", "/sandbox/processes/a", "PUT"),
    ],
)
def test_wrong_verbs(bot: Bot, method: str, path: str, allow: str) -> None:
    """A control route with the wrong verb is answered 405, naming the right ones."""
    answer = bot.send(method, path)
    assert (answer.status, answer.headers["Allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["/sandbox", "/sandbox/", "/sandbox/nonsense", "/sandbox/processes/a/b"])
def test_unknown_routes(bot: Bot, path: str) -> None:
    """An unknown control route is answered 404 with a list of those there are."""
    answer = bot.get(path)
    assert answer.status == 404
    assert "faults" in answer.json["message"]


def test_blank_process(bot: Bot) -> None:
    """A process cannot be blank."""
    assert bot.send("PUT", "/sandbox/processes/%20", {}).status == 404


def test_environ(sandbox: Sandbox) -> None:
    """The environment names credentials and both addresses, under the names a bot reads."""
    environ = sandbox.environ
    assert set(environ) == {
        f"ANYMATE_{name}" for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD", "API_URL", "AUTH_URL")
    }
    assert environ["ANYMATE_API_URL"] == environ["ANYMATE_AUTH_URL"] == sandbox.url
    assert urlsplit(sandbox.url).hostname == "127.0.0.1"


class Owing:
    """A journal that owes one finish until it is delivered."""

    def __init__(self) -> None:
        """Begin with the finish."""
        self.owed: list[JournalRow] = [
            {
                "processKey": "invoices",
                "runId": 7,
                "state": "owed",
                "entries": 3,
                "secondsSaved": 1.5,
                "age": 61.0,
                "reason": "Anymate was not there",
            }
        ]

    def rows(self, most: int) -> tuple[list[JournalRow], int]:
        """What is owed."""
        return self.owed[:most], len(self.owed[most:])

    def deliver(self) -> str:
        """Owe nothing any more."""
        self.owed = []
        return "1 delivered."


def test_journal(sandbox: Sandbox, bot: Bot) -> None:
    """A journal that was handed in is listed and can be delivered; without one there is no such route."""
    assert bot.get("/sandbox/journal").status == 404
    assert bot.post("/sandbox/journal", {}).status == 404
    journal = Owing()
    sandbox.show_journal(journal)
    assert bot.get("/sandbox/journal").json == journal.owed
    assert bot.post("/sandbox/journal", {}).json == {"message": "1 delivered."}
    assert bot.get("/sandbox/journal").json == []

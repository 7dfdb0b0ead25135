"""The life of a run."""

from __future__ import annotations

from contextlib import closing

import pytest

from anymate_guard.sandbox import Sandbox

from ..support import Bot, Clock


@pytest.mark.parametrize("route", ["StartRun", "StartOrGetRun"])
def test_start(bot: Bot, route: str) -> None:
    """Both routes start a run, name the process, and must not be cached."""
    answer = bot.get(f"/api/{route}/invoices")
    assert answer.status == 200
    assert answer.json == {"processKey": "invoices", "runId": bot.sandbox.runs()[0]["runId"]}
    assert answer.json["runId"] > 1000
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"].startswith("application/json")


def test_resume(bot: Bot) -> None:
    """Starting again resumes the ongoing run, by either route."""
    run_id = bot.start()
    assert bot.start() == run_id
    assert bot.get("/api/StartOrGetRun/invoices").json["runId"] == run_id
    assert len(bot.sandbox.runs()) == 1


def test_processes_are_strangers(bot: Bot) -> None:
    """Each process has a run of its own."""
    assert bot.start("a") != bot.start("b")


def test_numbers_grow(bot: Bot) -> None:
    """After a finish the next run gets a higher number, also after a reset."""
    first = bot.start()
    bot.finish(first)
    second = bot.start()
    bot.sandbox.reset()
    assert first < second < bot.start()


def test_finish(bot: Bot, clock: Clock) -> None:
    """A finish ends the run, and says so in the list of runs, with times in UTC."""
    run_id = bot.start()
    clock.now += 90
    answer = bot.finish(run_id)
    assert (answer.status, answer.json) == (200, {"succeeded": True, "message": ""})
    assert bot.sandbox.runs() == [
        {
            "processKey": "invoices",
            "runId": run_id,
            "finished": True,
            "overwriteEntries": None,
            "overwriteSecondsSaved": None,
            "creditedEntries": 1,
            "creditedSecondsSaved": 60,
            "startedAt": "2025-12-24T12:00:00.250000+00:00",
            "finishedAt": "2025-12-24T12:01:30.250000+00:00",
        }
    ]


def test_open_run(bot: Bot) -> None:
    """An open run has no credit and no end."""
    bot.start()
    (run,) = bot.sandbox.runs()
    assert run["finished"] is False
    assert (run["creditedEntries"], run["creditedSecondsSaved"], run["finishedAt"]) == (None, None, None)


def test_finish_twice(bot: Bot) -> None:
    """Finishing a finished run is answered 200 with succeeded false, and changes nothing."""
    run_id = bot.start()
    bot.finish(run_id, overwriteEntries=3)
    answer = bot.finish(run_id, overwriteEntries=9)
    assert (answer.status, answer.json["succeeded"]) == (200, False)
    assert str(run_id) in answer.json["message"]
    assert bot.sandbox.runs()[0]["creditedEntries"] == 3


def test_finish_unknown(bot: Bot) -> None:
    """Finishing a run that never was is answered 200 with succeeded false and a message."""
    answer = bot.finish(12)
    assert (answer.status, answer.json) == (200, {"succeeded": False, "message": "Run 12 was not found."})


@pytest.mark.parametrize("run_id", [None, 0, -1, True, 1.0, "x", "", []])
def test_finish_needs_a_run_id(bot: Bot, run_id: object) -> None:
    """A FinishRun whose runId is null or no integer from 1 on is answered 400, by name."""
    answer = bot.post("/api/FinishRun/", {"runId": run_id})
    assert answer.status == 400
    assert "runId" in answer.json["message"]


def test_finish_without_a_run_id(bot: Bot) -> None:
    """A FinishRun without a runId is answered 400, by name."""
    answer = bot.post("/api/FinishRun/", {"overwriteEntries": 1})
    assert answer.status == 400
    assert "runId" in answer.json["message"]


@pytest.mark.parametrize("field", ["overwriteEntries", "overwriteSecondsSaved"])
@pytest.mark.parametrize("value", [-1, 2**31, 1.5, 1.0, True, "many", "-1", "1.5", [], {}])
def test_bad_kpis(bot: Bot, field: str, value: object) -> None:
    """A KPI that is no integer from 0 to 2 147 483 647 is answered 400, and the run stays open."""
    run_id = bot.start()
    answer = bot.finish(run_id, **{field: value})
    assert answer.status == 400
    assert field in answer.json["message"]
    assert bot.sandbox.runs()[0]["finished"] is False


def test_names_in_any_case(bot: Bot) -> None:
    """Names are read in any case, numbers also as digit strings; what is unknown is ignored."""
    run_id = bot.start()
    body = {
        "RunId": str(run_id),
        "OVERWRITEENTRIES": "5",
        "overwriteSecondsSaved": None,
        "AnymateEndpoint": 4,
    }
    assert bot.post("/api/FinishRun", body).json["succeeded"] is True
    (run,) = bot.sandbox.runs()
    assert (run["overwriteEntries"], run["overwriteSecondsSaved"]) == (5, None)


def test_wrong_verbs(bot: Bot) -> None:
    """A known route with the wrong verb is answered 405, naming the right one."""
    for method, path, right in [
        ("POST", "/api/StartRun/invoices", "GET"),
        ("HEAD", "/api/StartRun/invoices", "GET"),
        ("GET", "/api/FinishRun/", "POST"),
        ("GET", "/connect/token", "POST"),
    ]:
        answer = bot.send(method, path, b"" if method == "POST" else None)
        assert (answer.status, answer.headers["Allow"]) == (405, right)
    assert bot.sandbox.runs() == []


def test_create_task_does_not_finish(bot: Bot) -> None:
    """CreateTask with a runId in its body, the slip of the documentation, finishes nothing."""
    run_id = bot.start()
    bot.post("/api/CreateTask/invoices", {"runId": run_id})
    assert bot.sandbox.runs()[0]["finished"] is False


def test_failure(bot: Bot) -> None:
    """Failure notifies, puts the process into failure, and leaves its run open."""
    bot.start()
    answer = bot.post("/api/Failure/", {"processKey": "invoices", "message": "printer on fire"})
    assert (answer.status, answer.json) == (200, {"succeeded": True, "message": ""})
    expected = {
        "processKey": "invoices",
        "message": "printer on fire",
        "at": "2025-12-24T12:00:00.250000+00:00",
    }
    assert bot.sandbox.failures() == [expected]
    assert bot.sandbox.processes()[0]["failure"] == "printer on fire"
    assert bot.sandbox.runs()[0]["finished"] is False


def test_failure_without_a_message(bot: Bot) -> None:
    """The message of a failure is optional."""
    assert bot.post("/api/Failure", {"ProcessKey": "invoices", "Message": None}).json["succeeded"] is True
    assert bot.sandbox.failures()[0]["message"] == ""


@pytest.mark.parametrize("fields", [{}, {"processKey": " "}, {"processKey": 5}, {"processKey": "x", "message": 5}])
def test_bad_failure(bot: Bot, fields: dict[str, object]) -> None:
    """A failure without a process key, or with a message that is no text, is answered 400."""
    assert bot.post("/api/Failure/", fields).status == 400
    assert bot.sandbox.failures() == []


def test_what_clears_a_failure(bot: Bot) -> None:
    """StartRun, TakeNext and FinishRun clear a failure; OkToRun and a refused FinishRun do not."""

    def failed_after(method: str, path: str, body: object = None) -> bool:
        bot.post("/api/Failure/", {"processKey": "invoices"})
        bot.send(method, path, body)
        return bot.sandbox.processes()[0]["failure"] is not None

    run_id = bot.start()
    assert failed_after("GET", "/api/OkToRun/invoices")
    assert failed_after("POST", "/api/FinishRun/", {"runId": 1})
    assert not failed_after("GET", "/api/StartRun/invoices")
    assert not failed_after("POST", "/api/FinishRun/", {"runId": run_id})
    assert not failed_after("GET", "/api/TakeNext/invoices")


def test_ok_to_run(bot: Bot) -> None:
    """A process that nobody stopped is ok to run, and asking starts nothing."""
    answer = bot.get("/api/OkToRun/invoices")
    assert answer.json == {"gateOpen": True, "tasksAvailable": False, "notBlockedDate": True, "okToRun": True}
    assert bot.sandbox.runs() == []


def test_stopped(bot: Bot) -> None:
    """A stopped process is not ok to run until it is let go on; StartRun starts it all the same."""
    bot.sandbox.set_process("invoices", stopped=True)
    answer = bot.get("/api/OkToRun/invoices").json
    assert answer == {"gateOpen": False, "tasksAvailable": False, "notBlockedDate": True, "okToRun": False}
    assert bot.start() == bot.sandbox.runs()[0]["runId"]
    bot.sandbox.set_process("invoices", stopped=False)
    assert bot.get("/api/OkToRun/invoices").json["okToRun"] is True


def test_blocked(bot: Bot, clock: Clock) -> None:
    """A process is not ok to run on its blocked date, and is again on the next day."""
    bot.sandbox.set_process("invoices", blocked_date="2025-12-24")
    answer = bot.get("/api/OkToRun/invoices").json
    assert answer == {"gateOpen": True, "tasksAvailable": False, "notBlockedDate": False, "okToRun": False}
    assert bot.start()
    clock.now += 86_400
    assert bot.login().get("/api/OkToRun/invoices").json["okToRun"] is True


def test_reset(sandbox: Sandbox, bot: Bot) -> None:
    """A reset forgets runs, processes, failures, requests and faults; a token from before stays good."""
    bot.start()
    bot.post("/api/Failure/", {"processKey": "invoices"})
    sandbox.fail_next("StartRun")
    sandbox.set_tokens(lifetime=1)
    assert bot.post("/sandbox/reset", None).status == 200
    lists = [sandbox.runs(), sandbox.processes(), sandbox.failures(), sandbox.requests(), sandbox.faults()]
    assert lists == [[], [], [], [], []]
    assert bot.get("/api/StartRun/invoices").status == 200
    assert bot.ask_token().json["expires_in"] == 3600


def test_numbers_of_the_next_sandbox() -> None:
    """A sandbox gives no number that an earlier one gave, nor one that JavaScript can't count to."""
    numbers = []
    for _ in range(2):
        with Sandbox() as sandbox, closing(Bot(sandbox)) as bot:
            bot.login()
            for _ in range(50):
                numbers.append(bot.start())
                bot.finish(numbers[-1])
            numbers += bot.post("/api/CreateTasks/tasks", [{}, {}]).json["taskIds"]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] < 2**53

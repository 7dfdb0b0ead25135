"""Tasks, as far as the life of a run needs them."""

from __future__ import annotations

import pytest

from ..support import Bot, Clock


def create(bot: Bot, **fields: object) -> int:
    """Create a task."""
    task_id: int = bot.post("/api/CreateTask/invoices", fields).json["taskId"]
    return task_id


def take(bot: Bot) -> dict[str, object]:
    """Take the next task."""
    task: dict[str, object] = bot.get("/api/TakeNext/invoices").json
    return task


def test_take_next(bot: Bot) -> None:
    """TakeNext gives the oldest task with its own fields, and starts a run that the next one resumes."""
    first, second = create(bot, invoiceNo="A1", comment="hurry"), create(bot, invoiceNo="A2")
    task = take(bot)
    assert task == {
        "taskId": first,
        "reason": "",
        "runId": task["runId"],
        "processKey": "invoices",
        "invoiceNo": "A1",
    }
    assert (take(bot)["taskId"], len(bot.sandbox.runs())) == (second, 1)


def test_empty_queue(bot: Bot) -> None:
    """TakeNext on an empty queue gives the dummy task -1 and finishes the ongoing run."""
    run_id = bot.start()
    assert take(bot) == {"taskId": -1, "reason": "", "runId": run_id, "processKey": "invoices"}
    assert bot.sandbox.runs()[0]["finished"] is True
    assert bot.finish(run_id).json["succeeded"] is False


def test_empty_queue_without_a_run(bot: Bot) -> None:
    """TakeNext on an empty queue starts no run."""
    assert take(bot)["taskId"] == -1
    assert bot.sandbox.runs() == []


@pytest.mark.parametrize("setting", [{"stopped": True}, {"blockedDate": "2025-12-24"}])
def test_closed_gate(bot: Bot, setting: dict[str, object]) -> None:
    """A stopped process or a blocked date behaves like an empty queue."""
    create(bot)
    bot.send("PUT", "/sandbox/processes/invoices", setting)
    assert take(bot)["taskId"] == -1


def test_credit_per_task(bot: Bot) -> None:
    """With tasks each solved one is credited, with its own overrides; those of the run are ignored."""
    bot.sandbox.set_process("invoices", entries=2, seconds_saved_per_entry=10)
    ends: list[tuple[str, dict[str, object]]] = [
        ("Solved", {}),
        ("Solved", {"overwriteSecondsSaved": 7}),
        ("Manual", {}),
        ("Error", {"reason": "odd"}),
    ]
    for _ in ends:
        create(bot)
    for action, fields in ends:
        task = take(bot)
        assert bot.post(f"/api/{action}/", {"taskId": task["taskId"], **fields}).json["succeeded"] is True
    bot.finish(bot.start(), overwriteEntries=99, overwriteSecondsSaved=99)
    (run,) = bot.sandbox.runs()
    assert (run["creditedEntries"], run["creditedSecondsSaved"]) == (4, 27)


def test_tasks_enabled(bot: Bot) -> None:
    """A process that was set up for tasks credits nothing for a run without a solved one."""
    bot.sandbox.set_process("invoices", tasks_enabled=True)
    bot.finish(bot.start())
    (run,) = bot.sandbox.runs()
    assert (run["creditedEntries"], run["creditedSecondsSaved"]) == (0, 0)


def test_ok_to_run_counts_tasks(bot: Bot) -> None:
    """With tasks a process is ok to run only while one is ready."""
    bot.sandbox.set_process("invoices", tasks_enabled=True)
    assert bot.get("/api/OkToRun/invoices").json["okToRun"] is False
    create(bot)
    assert bot.get("/api/OkToRun/invoices").json == {
        "gateOpen": True,
        "tasksAvailable": True,
        "notBlockedDate": True,
        "okToRun": True,
    }
    take(bot)
    assert bot.get("/api/OkToRun/invoices").json["tasksAvailable"] is False


def test_create_tasks(bot: Bot) -> None:
    """CreateTasks takes an array and answers with as many numbers, in order."""
    answer = bot.post("/api/CreateTasks/invoices/", [{"n": 1}, {"n": 2}]).json
    assert answer["succeeded"] is True
    assert [take(bot)["n"], take(bot)["n"]] == [1, 2]
    assert len(answer["taskIds"]) == 2


def test_activation_date(bot: Bot, clock: Clock) -> None:
    """A task waits for its activation date, with an offset, in UTC or a day; the oldest comes first."""
    late = create(bot, activationDate="2025-12-24T14:00:00+01:00")
    later = create(bot, ActivationDate="2025-12-24T13:00:01Z")
    old = create(bot, activationDate="2021-01-01")
    assert [take(bot)["taskId"], take(bot)["taskId"]] == [old, -1]
    clock.now += 3_601
    bot.login()
    assert [take(bot)["taskId"], take(bot)["taskId"]] == [late, later]


def test_retry(bot: Bot, clock: Clock) -> None:
    """A task to be retried goes to the bottom of the queue, with its reason, or waits for its date."""
    first, second = create(bot), create(bot)
    take(bot)
    bot.post("/api/Retry/", {"taskId": first, "reason": "busy"})
    assert take(bot)["taskId"] == second
    again = take(bot)
    assert (again["taskId"], again["reason"]) == (first, "busy")
    bot.post("/api/Retry/", {"TaskId": str(first), "activationDate": "2025-12-25"})
    assert take(bot)["taskId"] == -1
    clock.now += 86_400
    bot.login()
    assert take(bot)["taskId"] == first


def test_give_back_what_was_not_taken(bot: Bot) -> None:
    """A task that is unknown, not taken, or given back already is refused with succeeded false."""
    task_id = create(bot)
    for unwanted in (task_id, 5):
        answer = bot.post("/api/Solved/", {"taskId": unwanted})
        assert (answer.status, answer.json["succeeded"]) == (200, False)
    take(bot)
    ends = [bot.post("/api/Solved/", {"taskId": task_id}).json["succeeded"] for _ in range(2)]
    assert ends == [True, False]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/CreateTask/invoices", []),
        ("/api/CreateTasks/invoices", {}),
        ("/api/CreateTasks/invoices", [1]),
        ("/api/CreateTask/invoices", {"activationDate": "soon"}),
        ("/api/CreateTask/invoices", {"activationDate": 5}),
        ("/api/Solved/", {}),
        ("/api/Solved/", {"taskId": 0}),
        ("/api/Solved/", {"taskId": 1, "overwriteEntries": -1}),
        ("/api/Retry/", {"taskId": 1, "activationDate": "soon"}),
        ("/api/Manual/", {"taskId": 1, "reason": 1}),
    ],
)
def test_bad_task_calls(bot: Bot, path: str, body: object) -> None:
    """A task call whose body makes no sense is answered 400 with a message."""
    answer = bot.post(path, body)
    assert answer.status == 400
    assert answer.json["message"]

"""The official Python SDK, unchanged, in on-premises mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from anymate_guard.sandbox import Sandbox

anymate = pytest.importorskip("anymate", reason="the official SDK is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc.*:DeprecationWarning"),
]


@pytest.fixture(name="sandbox")
def _sandbox() -> Iterator[Sandbox]:
    """Serve by the real clock, as the SDK goes by it too."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(name="sdk")
def _sdk(sandbox: Sandbox) -> Any:
    environ = sandbox.environ
    names = ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD")
    client = anymate.client(*(environ[f"ANYMATE_{name}"] for name in names))
    client.set_on_premises_mode(environ["ANYMATE_API_URL"], environ["ANYMATE_AUTH_URL"])
    return client


def test_start_and_resume(sandbox: Sandbox, sdk: Any) -> None:
    """The SDK starts a run, and resumes it, with one login for both."""
    run = sdk.start_or_get_run("invoices")
    assert run.processKey == "invoices"
    assert sdk.start_or_get_run("invoices").runId == run.runId == sandbox.runs()[0]["runId"]
    assert [request["operation"] for request in sandbox.requests()] == [
        "token",
        "StartOrGetRun",
        "StartOrGetRun",
    ]


@pytest.mark.parametrize(
    ("overrides", "credited"),
    [
        ({}, (2, 60)),
        ({"overwriteEntries": None, "overwriteSecondsSaved": None}, (2, 60)),
        ({"overwriteEntries": 5}, (5, 150)),
        ({"overwriteSecondsSaved": 7}, (2, 7)),
        ({"overwriteEntries": 5, "overwriteSecondsSaved": 7}, (5, 7)),
        ({"overwriteEntries": 0, "overwriteSecondsSaved": 0}, (0, 0)),
    ],
)
def test_finish(sandbox: Sandbox, sdk: Any, overrides: dict[str, Any], credited: tuple[int, int]) -> None:
    """The SDK finishes a run with each combination of KPIs."""
    sandbox.set_process("invoices", entries=2, seconds_saved_per_entry=30)
    run_id = sdk.start_or_get_run("invoices").runId
    assert sdk.finish_run({"runId": run_id, **overrides}).succeeded is True
    (run,) = sandbox.runs()
    assert (run["creditedEntries"], run["creditedSecondsSaved"]) == credited
    assert sdk.finish_run({"runId": run_id}).succeeded is False


def test_failure(sandbox: Sandbox, sdk: Any) -> None:
    """The SDK reports a failure."""
    assert sdk.failure({"processKey": "invoices", "message": "no paper"}).succeeded is True
    assert sandbox.failures()[0]["message"] == "no paper"


def test_ok_to_run(sandbox: Sandbox, sdk: Any) -> None:
    """The SDK asks whether it may run."""
    assert sdk.ok_to_run("invoices").okToRun is True
    sandbox.set_process("invoices", stopped=True)
    answer = sdk.ok_to_run("invoices")
    assert (answer.okToRun, answer.gateOpen) == (False, False)


def test_tasks(sandbox: Sandbox, sdk: Any) -> None:
    """The SDK works a queue off until it is empty, which finishes the run."""
    assert sdk.create_task("invoices", {"invoiceNo": "A1"}).taskId > 0
    assert len(sdk.create_tasks("invoices", [{"invoiceNo": "A2"}, {"invoiceNo": "A3"}]).taskIds) == 2
    ends = iter([sdk.solved, sdk.manual, sdk.retry, sdk.error])
    seen = []
    while (task := sdk.take_next("invoices"))["taskId"] > 0:
        seen.append(task["invoiceNo"])
        assert next(ends)({"taskId": task["taskId"], "reason": "done"}).succeeded is True
    assert seen == ["A1", "A2", "A3", "A3"]
    (run,) = sandbox.runs()
    assert (run["finished"], run["creditedEntries"], run["creditedSecondsSaved"]) == (True, 1, 60)


def test_short_lifetime(sandbox: Sandbox, sdk: Any) -> None:
    """A lifetime below the margin of the SDK makes it log in for each call."""
    sandbox.set_tokens(lifetime=200)
    for _ in range(2):
        sdk.ok_to_run("invoices")
    assert [request["operation"] for request in sandbox.requests()] == ["token", "OkToRun"] * 2

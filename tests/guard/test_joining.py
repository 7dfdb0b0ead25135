"""Several guards in one run: each keeps its own options for its own body, and the last one out finishes."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from anymate_guard import (
    AnymateClient,
    AuthenticationError,
    NoCurrentRun,
    Settings,
    UnreachableError,
    anymate_run,
    current_run,
)
from anymate_guard._guard import defaults, driver
from anymate_guard._journal import recorder
from anymate_guard.sandbox import Sandbox
from tests.support.clients import client_of
from tests.support.waiting import LONGEST, in_time, until


def operations(sandbox: Sandbox) -> list[str]:
    """What was called, but for the token."""
    return [str(request["operation"]) for request in sandbox.requests() if request["operation"] != "token"]


@contextlib.contextmanager
def failing(**options: Any) -> Iterator[None]:
    """A guard whose body fails, on the process key of all tests here."""
    with contextlib.suppress(ValueError), anymate_run("invoice-intake", **options):
        yield
        raise ValueError("flawed")


def test_same_run(sandbox: Sandbox) -> None:
    """A guard on a process key that is open already joins its run: same Run, one StartRun, one FinishRun."""
    with anymate_run("invoice-intake") as outer:
        with anymate_run("invoice-intake", check_ok_to_run=True) as inner:
            assert inner is outer
            inner.add_entries(1)
        outer.add_entries(1)
    assert operations(sandbox) == ["StartRun", "FinishRun"]
    assert sandbox.runs()[0]["overwriteEntries"] == 2


def test_left_in_the_order_of_entering(sandbox: Sandbox) -> None:
    """The guard that was entered first may be left first; the run stays open until the last one is out."""
    first, second = anymate_run("invoice-intake"), anymate_run("invoice-intake")
    first.__enter__()
    run = second.__enter__()
    first.__exit__(None, None, None)
    assert (run.outcome, sandbox.runs()[0]["finished"]) == (None, False)
    run.add_entries(5)
    second.__exit__(None, None, None)
    assert (run.outcome, sandbox.runs()[0]["overwriteEntries"]) == ("succeeded", 5)


def _leave(guard: Any, error: BaseException | None, *_: object) -> None:
    guard.__exit__(type(error), error, None)


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [
        ([None, None], "succeeded"),
        ([KeyboardInterrupt, None], "interrupted"),
        ([None, ValueError], "failed"),
        ([ValueError, KeyboardInterrupt], "failed"),
        ([KeyboardInterrupt, ValueError], "failed"),
    ],
)
def test_worst_outcome_counts(sandbox: Sandbox, errors: list[type[BaseException] | None], outcome: str) -> None:
    """The run failed if any of its guards failed, else was interrupted if any was."""
    with contextlib.ExitStack() as stack:
        guards = [anymate_run("invoice-intake") for _ in errors]
        runs = [guard.__enter__() for guard in guards]
        for guard, error in zip(guards, errors, strict=True):
            stack.push(functools.partial(_leave, guard, error() if error else None))
    assert runs[0].outcome == outcome


def test_zeros_only_if_every_guard_wants_them(sandbox: Sandbox) -> None:
    """Zeros are sent only when every guard in the run failed or was interrupted, and asked for that."""
    with failing(default_credit="succeeded"), failing(default_credit="succeeded"):
        pass
    with failing(default_credit="succeeded"), failing():
        pass
    with anymate_run("invoice-intake", default_credit="succeeded"), failing(default_credit="succeeded"):
        pass
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [0, None, None]


def test_failure_of_an_inner_guard(sandbox: Sandbox) -> None:
    """A guard that failed and asked for it has its failure reported, after the last one out has finished the run."""
    with anymate_run("invoice-intake"):
        with failing(report_failure=True):
            pass
        assert sandbox.failures() == []
    assert operations(sandbox) == ["StartRun", "FinishRun", "Failure"]


def test_failure_that_nobody_asked_to_report(sandbox: Sandbox) -> None:
    """A guard that asked for reports but did not fail reports no failure of another one."""
    with anymate_run("invoice-intake", report_failure=True), failing():
        pass
    assert sandbox.failures() == []


def test_required_finish_binds_the_last_one(sandbox: Sandbox) -> None:
    """require_finish binds the guard that is the last one out; one that leaves others behind has nothing to deliver."""
    with anymate_run("invoice-intake"), anymate_run("invoice-intake", require_finish=True):
        sandbox.fail_next("FinishRun", status=403)
    assert not sandbox.runs()[0]["finished"]


def test_joining_a_run_without_an_id(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that requires a start refuses to join a run that Anymate does not know yet; others join it."""
    monkeypatch.setenv("ANYMATE_DEADLINE", "4")
    sandbox.close()
    with anymate_run("invoice-intake") as run:
        with anymate_run("invoice-intake") as joined:
            assert joined is run
        with (
            pytest.raises(UnreachableError, match="not started yet"),
            anymate_run("invoice-intake", require_start=True),
        ):
            pytest.fail("the body ran")
        sandbox.start()
    assert sandbox.runs()[0]["finished"]


def test_other_address_is_another_run(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards of another address, or disabled ones, never join, even on the same process key."""
    with AnymateClient(Settings.from_env()) as client:
        monkeypatch.setenv("ANYMATE_DISABLED", "1")
        with anymate_run("invoice-intake") as mine, anymate_run("invoice-intake", client=client) as other:
            assert mine is not other
        monkeypatch.setenv("ANYMATE_API_URL", "https://elsewhere.example")
        with (
            AnymateClient(Settings.from_env()) as elsewhere,
            anymate_run("invoice-intake") as mine,
            anymate_run("invoice-intake", client=elsewhere) as other,
        ):
            assert mine is not other


def test_other_user_is_in_the_same_run(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards of two users on one process of an address share its run, as Anymate has but one."""
    with AnymateClient(Settings.from_env()) as client, anymate_run("invoice-intake") as mine:
        mine.add_entries(10)
        monkeypatch.setenv("ANYMATE_USERNAME", "another")
        with AnymateClient(Settings.from_env()) as another, anymate_run("invoice-intake", client=another) as other:
            other.add_entries(1)
            assert other is mine
        assert client is not another
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [11]


def test_last_one_out_is_another_user(sandbox: Sandbox) -> None:
    """Whoever is last out, a run is finished, and what its user is owed is sent, with the credentials of that user."""
    with client_of(sandbox) as client, client_of(sandbox, username="whom nobody knows") as other:
        first, second = anymate_run("a", client=client), anymate_run("a", client=other)
        first.__enter__()
        second.__enter__()
        sandbox.fail_next("FinishRun", status=403)
        with anymate_run("b", client=client):
            pass
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
    assert [run["finished"] for run in sandbox.runs()] == [True, True]


def test_last_one_out_is_as_patient_as_its_own_client(sandbox: Sandbox) -> None:
    """Leaving takes no longer than the settings of who leaves allow, whoever began the run."""
    with (
        client_of(sandbox, timeout=120, deadline=120) as patient,
        client_of(sandbox, timeout=1, deadline=1) as other,
    ):
        first, second = anymate_run("a", client=patient), anymate_run("a", client=other)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        sandbox.fail_next("FinishRun", hang=True, times=99)
        with in_time():
            second.__exit__(None, None, None)


def test_run_that_was_not_left_by_another_user(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that could not be left is finished with the credentials of its own user, whoever finds it."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(recorder, "_chores", [])  # it is not the recorder that finds it
    with client_of(sandbox) as client, client_of(sandbox, username="whom nobody knows") as other:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), anymate_run("a", client=client) as run:
            run.add_entries(3)
            patch.setattr(driver.program, "leave", interrupted)
        with pytest.raises(AuthenticationError), anymate_run("a", client=other):
            pytest.fail("the body ran")
        assert [run["overwriteEntries"] for run in sandbox.runs()] == [3]


def test_other_journal_is_the_same_run(sandbox: Sandbox, tmp_path: Path) -> None:
    """Guards with different state directories share a run, and the last one out finishes it."""
    with client_of(sandbox) as client, client_of(sandbox, state_dir=tmp_path / "other") as other:
        first, second = anymate_run("a", client=client), anymate_run("a", client=other)
        first.__enter__().add_entries(3)
        second.__enter__().add_entries(1)
        first.__exit__(None, None, None)
        assert not sandbox.runs()[0]["finished"]
        second.__exit__(None, None, None)
    assert [run["overwriteEntries"] for run in sandbox.runs()] == [4]


def test_adopting_the_open_run(sandbox: Sandbox) -> None:
    """Adopting the run that this program has open joins it; adopting another one is a run of its own."""
    with anymate_run("invoice-intake") as run:
        assert run.run_id is not None
        with anymate_run("invoice-intake", run_id=run.run_id) as same:
            assert same is run
        with anymate_run("invoice-intake", run_id=run.run_id + 1) as another:
            assert another is not run
    assert operations(sandbox) == ["StartRun", "FinishRun", "FinishRun"]


def test_entering_waits_for_a_run_being_finished(sandbox: Sandbox) -> None:
    """A guard entered while the last one out finishes waits for that, and starts a run of its own."""
    sandbox.fail_next("FinishRun", delay=0.2)
    entered = threading.Event()

    def second() -> None:
        until(lambda: "FinishRun" in operations(sandbox))
        with anymate_run("invoice-intake"):
            entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    with anymate_run("invoice-intake"):
        pass
    thread.join(LONGEST)
    assert entered.is_set()
    assert [run["finished"] for run in sandbox.runs()] == [True, True]


def test_waiting_guards_start_themselves(sandbox: Sandbox) -> None:
    """When the guard that starts a run is refused, one that waited for it starts the run itself."""
    sandbox.fail_next("StartRun", delay=0.2)
    sandbox.fail_next("StartRun", status=403)
    results: list[object] = []

    def work() -> None:
        try:
            with anymate_run("invoice-intake") as run:
                results.append(run.outcome)
        except Exception as error:  # noqa: BLE001
            results.append(type(error).__name__)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST)
    assert len(results) == 3
    assert all(run["finished"] for run in sandbox.runs())


def test_context_with_two_inside(sandbox: Sandbox) -> None:
    """The outermost of three guards may be left first; the innermost one's run stays the current one."""
    guards = [anymate_run(key) for key in ("first", "second", "third")]
    runs = [guard.__enter__() for guard in guards]
    guards[0].__exit__(None, None, None)
    assert current_run() is runs[2]
    guards[2].__exit__(None, None, None)
    assert current_run() is runs[1]
    guards[1].__exit__(None, None, None)
    with pytest.raises(NoCurrentRun):
        current_run()
    assert all(run["finished"] for run in sandbox.runs())


def test_context_after_any_order(sandbox: Sandbox) -> None:
    """Guards left in the order they were entered put current run and log context back as they were before."""
    before = structlog.contextvars.get_contextvars()
    first, second = anymate_run("first"), anymate_run("second")
    first.__enter__()
    run = second.__enter__()
    first.__exit__(None, None, None)
    assert current_run() is run
    assert structlog.contextvars.get_contextvars()["process_key"] == "second"
    second.__exit__(None, None, None)
    with pytest.raises(NoCurrentRun):
        current_run()
    assert structlog.contextvars.get_contextvars() == before


def test_no_time_to_wait_for_another_thread(sandbox: Sandbox) -> None:
    """A guard whose deadline ends while another thread still starts the run of its key goes on without a run."""
    sandbox.fail_next("StartRun", hang=True)
    thread = threading.Thread(target=anymate_run("invoice-intake")(lambda: None))
    thread.start()
    until(lambda: "StartRun" in operations(sandbox))
    with client_of(sandbox, deadline=0.5) as client, anymate_run("invoice-intake", client=client) as run:
        run.add_entries(2)
        assert run.run_id is None
        sandbox._world.alarm.ring()
        thread.join()
    driver.settle_all(defaults.shared_client())
    assert sorted(run["overwriteEntries"] or 0 for run in sandbox.runs()) == [0, 2]

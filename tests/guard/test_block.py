"""A guard around a block: what is sent, and what comes out."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import threading
import types
from collections.abc import Generator
from typing import Any

import pytest

from anymate_guard import (
    AnymateClient,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    Kpis,
    NoCurrentRun,
    NotOkToRun,
    Settings,
    UnreachableError,
    anymate_run,
    current_run,
)
from anymate_guard.sandbox import Sandbox
from tests.support.clients import client_of
from tests.support.waiting import until


def only_run(sandbox: Sandbox) -> Any:
    """The one run that the sandbox has seen."""
    (run,) = sandbox.runs()
    return run


def calls(sandbox: Sandbox) -> list[str]:
    """The operations that were called, but for the token."""
    return [str(request["operation"]) for request in sandbox.requests() if request["operation"] != "token"]


@pytest.fixture(name="hasty")
def _hasty(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox) -> Sandbox:
    """The sandbox, for guards that give up soon."""
    monkeypatch.setenv("ANYMATE_TIMEOUT", "2")
    monkeypatch.setenv("ANYMATE_DEADLINE", "4")
    return sandbox


def test_start_and_finish(sandbox: Sandbox) -> None:
    """A block is one run: StartRun on entry, FinishRun with what was recorded on exit."""
    with anymate_run("invoice-intake") as run:
        assert only_run(sandbox)["runId"] == run.run_id
        assert not only_run(sandbox)["finished"]
        assert run.outcome is None
        run.add_entries(3)
        run.add_seconds_saved(42.5)
    assert only_run(sandbox)["finished"]
    assert (only_run(sandbox)["overwriteEntries"], only_run(sandbox)["overwriteSecondsSaved"]) == (3, 43)
    assert calls(sandbox) == ["StartRun", "FinishRun"]
    assert run.outcome == "succeeded"


def test_unrecorded_kpis_are_not_sent(sandbox: Sandbox) -> None:
    """What was never recorded is not sent, so that Anymate's defaults apply; a recorded 0 is sent as 0."""
    with anymate_run("invoice-intake"):
        pass
    with anymate_run("mail-sorting") as run:
        run.add_entries(0)
        run.add_seconds_saved(0)
    bodies = [request["body"] for request in sandbox.requests() if request["operation"] == "FinishRun"]
    assert "overwrite" not in str(bodies[0])
    assert [sandbox.runs()[1][name] for name in ("overwriteEntries", "overwriteSecondsSaved")] == [0, 0]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("flawed"), "failed"),
        (SystemExit(3), "failed"),
        (SystemExit("flawed"), "failed"),
        (SystemExit(0), "succeeded"),
        (SystemExit(None), "succeeded"),
        (KeyboardInterrupt(), "interrupted"),
        (GeneratorExit(), "interrupted"),
        (BaseException("odd"), "interrupted"),
    ],
)
def test_any_end_finishes_the_run(sandbox: Sandbox, error: BaseException, outcome: str) -> None:
    """Whatever ends the body, the run is finished, and the very same exception comes out with no context of ours."""
    guard = anymate_run("invoice-intake")
    with pytest.raises(type(error)) as caught, guard as run:
        run.add_entries(2)
        raise error
    assert caught.value is error
    assert (error.__context__, error.__cause__) == (None, None)
    assert (only_run(sandbox)["finished"], only_run(sandbox)["overwriteEntries"], run.outcome) == (
        True,
        2,
        outcome,
    )


def test_while_asyncio_is_imported(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that fails while another thread is importing asyncio keeps its exception."""
    monkeypatch.setitem(sys.modules, "asyncio", types.ModuleType("asyncio"))
    with pytest.raises(ValueError, match="flawed"), anymate_run("invoice-intake") as run:
        raise ValueError("flawed")
    assert run.outcome == "failed"


def test_broken_off_generator(sandbox: Sandbox) -> None:
    """A generator with a guard inside that is left early finishes its run as interrupted."""
    runs = []

    def pages() -> Generator[int, None, None]:
        with anymate_run("invoice-intake") as run:
            runs.append(run)
            yield 1

    generator = pages()
    next(generator)
    generator.close()
    assert (only_run(sandbox)["finished"], runs[0].outcome) == (True, "interrupted")


@pytest.mark.parametrize("recorded", [Kpis(), Kpis(5)])
def test_no_credit_for_a_failed_run(sandbox: Sandbox, recorded: Kpis) -> None:
    """default_credit="succeeded" sends 0 for each KPI that a failed run did not record."""
    with contextlib.suppress(ValueError), anymate_run("invoice-intake", default_credit="succeeded") as run:
        run.merge(recorded)
        raise ValueError
    run_at_server = only_run(sandbox)
    assert (run_at_server["overwriteEntries"], run_at_server["overwriteSecondsSaved"]) == (
        recorded.entries or 0,
        0,
    )


def test_credit_for_a_run_that_succeeded(sandbox: Sandbox) -> None:
    """default_credit="succeeded" changes nothing for a run that succeeded."""
    with anymate_run("invoice-intake", default_credit="succeeded"):
        pass
    assert only_run(sandbox)["overwriteEntries"] is None


def test_failure_is_reported_after_the_finish(sandbox: Sandbox) -> None:
    """report_failure calls Failure after FinishRun, with the exception in a short message."""
    with contextlib.suppress(ValueError), anymate_run("invoice-intake", report_failure=True):
        raise ValueError("no VAT number")
    assert calls(sandbox) == ["StartRun", "FinishRun", "Failure"]
    assert [failure["message"] for failure in sandbox.failures()] == ["ValueError: no VAT number"]


@pytest.mark.parametrize("trouble", [RuntimeError, KeyboardInterrupt])
def test_failure_without_a_text(sandbox: Sandbox, trouble: type[BaseException]) -> None:
    """An exception whose text can't be had is reported by its name, and comes out all the same."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise trouble

    with pytest.raises(Mute), anymate_run("invoice-intake", report_failure=True):
        raise Mute
    assert [failure["message"] for failure in sandbox.failures()] == ["Mute"]


@pytest.mark.parametrize("options", [{}, {"report_failure": True}])
def test_text_that_nobody_asked_for(sandbox: Sandbox, options: dict[str, Any]) -> None:
    """The text of an exception, which may take its time, is made only when it is reported: once, for a failure."""
    texts = []

    class Story:
        def __str__(self) -> str:
            texts.append("made")
            return "a long story"

    class Slow(Story, Exception):
        pass

    class Stop(Story, KeyboardInterrupt):
        pass

    for kind in (Slow, Stop):
        with pytest.raises(kind), anymate_run("invoice-intake", **options):
            raise kind
    assert [failure["message"] for failure in sandbox.failures()] == ["Slow: a long story"] * len(options)
    assert len(texts) == len(options)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), SystemExit(0)])
def test_only_failures_are_reported(sandbox: Sandbox, error: BaseException | None) -> None:
    """report_failure says nothing of a run that succeeded or was interrupted."""
    with (
        contextlib.suppress(KeyboardInterrupt, SystemExit),
        anymate_run("invoice-intake", report_failure=True),
    ):
        if error:
            raise error
    assert sandbox.failures() == []


def test_failure_that_can_not_be_reported(hasty: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """A Failure that Anymate refuses is a warning, and the body's exception comes out."""
    hasty.fail_next("Failure", status=403, body="not yours")
    with pytest.raises(ValueError, match="flawed"), anymate_run("invoice-intake", report_failure=True):
        raise ValueError("flawed")
    assert "anymate.failure_unreported" in caplog.text
    assert "not yours" in caplog.text


def test_ok_to_run(sandbox: Sandbox) -> None:
    """check_ok_to_run asks first, and starts when the answer is yes."""
    with anymate_run("invoice-intake", check_ok_to_run=True):
        pass
    assert calls(sandbox) == ["OkToRun", "StartRun", "FinishRun"]


def test_not_ok_to_run(sandbox: Sandbox) -> None:
    """A process that was stopped raises NotOkToRun with the facts; nothing is started, the body does not run."""
    sandbox.set_process("invoice-intake", stopped=True)
    with (
        pytest.raises(NotOkToRun, match="'invoice-intake' is not OK to run: the process is stopped") as caught,
        anymate_run("invoice-intake", check_ok_to_run=True),
    ):
        pytest.fail("the body ran")
    assert (caught.value.gate_open, caught.value.tasks_available, caught.value.not_blocked_date) == (
        False,
        False,
        True,
    )
    assert calls(sandbox) == ["OkToRun"]


@pytest.mark.parametrize("fault", [{"status": 404}, {"answer": {"okToRun": "maybe"}}, {"status": 503, "times": 9}])
def test_ok_to_run_can_not_be_asked(hasty: Sandbox, caplog: pytest.LogCaptureFixture, fault: dict[str, Any]) -> None:
    """When OkToRun gives no answer, the guard warns and goes on."""
    hasty.fail_next("OkToRun", **fault)
    with anymate_run("invoice-intake", check_ok_to_run=True):
        pass
    assert only_run(hasty)["finished"]
    assert "anymate.start_unchecked" in caplog.text


def test_ok_to_run_is_required(hasty: Sandbox) -> None:
    """With require_start, an OkToRun that gives no answer raises, and nothing is started."""
    hasty.fail_next("OkToRun", status=404)
    with (
        pytest.raises(ApiError, match="OkToRun was refused"),
        anymate_run("invoice-intake", check_ok_to_run=True, require_start=True),
    ):
        pytest.fail("the body ran")
    assert hasty.runs() == []


def test_adopted_run(sandbox: Sandbox) -> None:
    """run_id adopts a run that is open already: no StartRun, but FinishRun on exit."""
    client = AnymateClient(Settings.from_env())
    run_id = client.start_run("invoice-intake")
    with anymate_run("invoice-intake", run_id=run_id) as run:
        assert run.run_id == run_id
        run.add_entries(1)
    assert calls(sandbox) == ["StartRun", "FinishRun"]
    assert only_run(sandbox)["overwriteEntries"] == 1


@pytest.mark.parametrize(
    ("run_id", "kind"), [(0, ValueError), (-5, ValueError), (2**63, ValueError), (True, TypeError), ("7", TypeError)]
)
def test_run_id_that_can_not_be_one(run_id: Any, kind: type[Exception]) -> None:
    """A run_id that is no whole number from 1 to the largest one of 64 bits is refused by name."""
    with pytest.raises(kind, match=f"run_id must be .*{run_id!r}"):
        anymate_run("invoice-intake", run_id=run_id)


def test_exit_stack(sandbox: Sandbox) -> None:
    """A guard that an ExitStack holds is left by it as by `with`."""
    with pytest.raises(ValueError, match="flawed"), contextlib.ExitStack() as stack:
        run = stack.enter_context(anymate_run("invoice-intake"))
        run.add_entries(3)
        raise ValueError("flawed")
    assert run.outcome == "failed"
    assert only_run(sandbox)["overwriteEntries"] == 3


@pytest.mark.parametrize("value", ["sometimes", True, None])
def test_default_credit_that_can_not_be_one(value: Any) -> None:
    """Another default_credit than the three there are is refused by name, and they are named."""
    with pytest.raises(ValueError, match=f"one of 'always', 'succeeded', 'never', got {value!r}"):
        anymate_run("invoice-intake", default_credit=value)


def test_own_client(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """A guard with a client of its own needs no environment, and takes the process key from the client's settings."""
    environ = {**sandbox.environ, "ANYMATE_PROCESS_KEY": "invoice-intake", "ANYMATE_STATE_DIR": str(tmp_path)}
    for name in sandbox.environ:
        monkeypatch.delenv(name)
    with AnymateClient(Settings.from_env(environ)) as client, anymate_run(client=client) as run:
        assert run.process_key == "invoice-intake"
    assert only_run(sandbox)["finished"]


def test_client_that_is_none(sandbox: Sandbox) -> None:
    """Something else than a client is refused at once, by name."""
    with pytest.raises(TypeError, match="client must be an AnymateClient, got Settings"):
        anymate_run("invoice-intake", client=Settings.from_env())  # type: ignore[call-overload]


def test_process_key_of_the_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that names no process key takes ANYMATE_PROCESS_KEY at entry, not when it is made."""
    guard = anymate_run()
    with pytest.raises(ConfigurationError, match="ANYMATE_PROCESS_KEY: is missing"), guard:
        pytest.fail("the body ran")
    monkeypatch.setenv("ANYMATE_PROCESS_KEY", "mail-sorting")
    with guard as run:
        assert run.process_key == "mail-sorting"
    assert only_run(sandbox)["processKey"] == "mail-sorting"


@pytest.mark.parametrize("key", ["", " \t", "a\nb", "a\x00", ".", "..", 5, "\ud800"])
def test_process_key_that_can_not_be_one(key: Any) -> None:
    """A process key that can't be one segment of a path is refused when the guard is made."""
    with pytest.raises(ConfigurationError, match="process_key: "):
        anymate_run(key)


def test_settings_missing(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings, entering lists every missing variable at once and the body does not run."""
    for name in sandbox.environ:
        monkeypatch.delenv(name)
    listed = r"(?s)CLIENT_ID.*CLIENT_SECRET.*USERNAME.*PASSWORD"
    with pytest.raises(ConfigurationError, match=listed), anymate_run("invoice-intake"):
        pytest.fail("the body ran")


def test_refused_start(hasty: Sandbox) -> None:
    """A StartRun that Anymate refuses raises, the body does not run, and there is nothing to finish."""
    hasty.fail_next("StartRun", status=404)
    hasty.fail_next("StartOrGetRun", status=404)
    with pytest.raises(ApiError, match="no process 'invoice-intake'"), anymate_run("invoice-intake"):
        pytest.fail("the body ran")
    with anymate_run("invoice-intake"):
        pass
    assert only_run(hasty)["finished"]


def test_refused_credentials(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong credentials raise AuthenticationError, naming the variables to check, and the body does not run."""
    monkeypatch.setenv("ANYMATE_PASSWORD", "wrong")
    with (
        pytest.raises(AuthenticationError, match="ANYMATE_PASSWORD") as caught,
        anymate_run("invoice-intake"),
    ):
        pytest.fail("the body ran")
    assert "wrong" not in str(caught.value)


def test_unreachable_start(hasty: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """When Anymate is unreachable, the body runs without a run, with one warning; on leaving the run is made up for."""
    hasty.fail_next("StartRun", status=503, body="down for maintenance", times=9)
    with anymate_run("invoice-intake") as run:
        assert run.run_id is None
        assert caplog.text.count("anymate.start_deferred") == 1
        assert "down for maintenance" in caplog.text
        run.add_entries(4)
        hasty.reset()
    assert (only_run(hasty)["finished"], only_run(hasty)["overwriteEntries"]) == (True, 4)
    assert run.run_id == only_run(hasty)["runId"]


def test_required_start(hasty: Sandbox) -> None:
    """With require_start, an unreachable Anymate raises and the body does not run."""
    hasty.close()
    with (
        pytest.raises(UnreachableError, match=r"token got no usable answer.*refused"),
        anymate_run("invoice-intake", require_start=True),
    ):
        pytest.fail("the body ran")


def test_undelivered_finish(hasty: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """A finish that can't be delivered is logged and kept; the next guard delivers it before its own start."""
    with anymate_run("invoice-intake") as run:
        run.add_entries(4)
        hasty.close()
    assert "anymate.finish_stored" in caplog.text
    hasty.start()
    assert not only_run(hasty)["finished"]
    with anymate_run("invoice-intake"):
        assert (hasty.runs()[0]["finished"], hasty.runs()[0]["overwriteEntries"]) == (True, 4)
    assert calls(hasty) == ["StartRun", "FinishRun", "StartRun", "FinishRun"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"status": 503, "times": 9}, UnreachableError),
        ({"status": 403}, ApiError),
        ({"status": 400}, ApiError),
        ({"answer": {"succeeded": False, "message": "too late"}, "times": 2}, ApiError),
    ],
)
def test_required_finish(hasty: Sandbox, fault: dict[str, Any], kind: type[Exception]) -> None:
    """With require_finish, a finish that can't be delivered raises, if the body had succeeded."""
    with pytest.raises(kind), anymate_run("invoice-intake", require_finish=True):
        hasty.fail_next("FinishRun", **fault)


def test_required_finish_of_a_failed_body(hasty: Sandbox) -> None:
    """With require_finish, a body that failed keeps its own exception."""
    error = ValueError("flawed")
    with (
        pytest.raises(ValueError, match="flawed") as caught,
        anymate_run("invoice-intake", require_finish=True),
    ):
        hasty.fail_next("FinishRun", status=403)
        raise error
    assert caught.value is error
    assert error.__context__ is None


def test_disabled(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """ANYMATE_DISABLED=1 records and logs, calls nothing, and needs no credentials."""
    for name in sandbox.environ:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ANYMATE_DISABLED", "1")
    with (
        caplog.at_level(logging.INFO),
        anymate_run("invoice-intake", run_id=7, require_start=True) as run,
        anymate_run("invoice-intake", require_start=True) as inner,
    ):
        inner.add_entries(2)
    assert (run.run_id, run.kpis, run.outcome) == (7, Kpis(2), "succeeded")
    assert sandbox.requests() == []
    assert "anymate.run_finished process_key=invoice-intake" in caplog.text


def test_disabled_body_that_fails(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disabled guard lets the body's exception through, too."""
    monkeypatch.setenv("ANYMATE_DISABLED", "1")
    with pytest.raises(ValueError, match="flawed"), anymate_run("invoice-intake", report_failure=True):
        raise ValueError("flawed")
    assert sandbox.requests() == []


def test_one_guard_entered_twice(sandbox: Sandbox) -> None:
    """Entering one guard object twice at the same time is refused; using it again afterwards is fine."""
    guard = anymate_run("invoice-intake")
    with (
        guard,
        pytest.raises(RuntimeError, match=r"anymate_run\('invoice-intake'\).* is entered already"),
        guard,
    ):
        pytest.fail("the body ran")
    with guard:
        pass
    assert [run["finished"] for run in sandbox.runs()] == [True, True]


@pytest.mark.usefixtures("no_garbage_collector")
def test_generator_in_a_cycle_of_garbage(sandbox: Sandbox) -> None:
    """A generator that refers to itself is closed as any other: it sees GeneratorExit, and its run is finished."""
    seen: list[BaseException] = []

    def work(itself: list[object]) -> Generator[None, None, None]:
        try:
            with anymate_run("invoice-intake"):
                yield
        except BaseException as error:
            assert itself
            seen.append(error)
            raise

    itself: list[object] = []
    generator = work(itself)
    itself.append(generator)
    gc.collect(0)  # what is younger comes first: what `with` holds, before the generator
    next(generator)
    del generator, itself
    gc.collect()
    assert [type(error) for error in seen] == [GeneratorExit]
    with pytest.raises(NoCurrentRun):
        current_run()
    until(lambda: only_run(sandbox)["finished"])


def test_left_but_not_entered() -> None:
    """Leaving a guard that was not entered is refused."""
    with pytest.raises(RuntimeError, match="was not entered"):
        anymate_run("invoice-intake").__exit__(None, None, None)


def test_log_context(sandbox: Sandbox) -> None:
    """In the body process_key and run_id are bound for the bot's own lines; afterwards things are as before."""
    import structlog

    with structlog.contextvars.bound_contextvars(process_key="mine", other="kept"):
        with contextlib.suppress(ValueError), anymate_run("invoice-intake") as run:
            bound = structlog.contextvars.get_contextvars()
            assert bound == {"process_key": "invoice-intake", "run_id": run.run_id, "other": "kept"}
            raise ValueError
        assert structlog.contextvars.get_contextvars() == {"process_key": "mine", "other": "kept"}


def test_current_run_follows_the_block(sandbox: Sandbox) -> None:
    """current_run gives the innermost guard's run; a new thread has none unless it runs in a copy of the context."""
    seen: list[str] = []

    def look() -> None:
        try:
            seen.append(current_run().process_key)
        except LookupError:
            seen.append("none")

    with anymate_run("outer") as outer:
        with anymate_run("inner") as inner:
            assert current_run() is inner
        assert current_run() is outer
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == ["none"]


@pytest.mark.parametrize(("adopted", "sent"), [(False, (0, 0)), (True, (None, None))])
def test_interrupted_before_the_body(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, adopted: bool, sent: tuple[int | None, int | None]
) -> None:
    """Ctrl-C when the run is open and the body has not begun finishes it with zeros, unless somebody else began it."""

    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    with client_of(sandbox) as other:
        run_id = other.start_run("invoice-intake") if adopted else None
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("structlog.contextvars.bind_contextvars", interrupt)
        with anymate_run("invoice-intake", run_id=run_id):
            pytest.fail("it was interrupted before")
    until(lambda: [run["finished"] for run in sandbox.runs()] == [True])
    assert [(run["overwriteEntries"], run["overwriteSecondsSaved"]) for run in sandbox.runs()] == [sent]


def test_thread_that_passes_for_the_main_one(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python itself takes signals in another thread than `threading` says, a guard leaves them alone."""

    def work() -> None:
        with monkeypatch.context() as patch:
            patch.setattr("threading.main_thread", threading.current_thread)
            with anymate_run("invoice-intake") as run:
                run.add_entries(2)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert only_run(sandbox)["overwriteEntries"] == 2

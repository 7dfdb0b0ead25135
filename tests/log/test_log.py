"""Log lines go where the program's own go, and stop nothing."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from structlog.contextvars import bound_contextvars, get_contextvars
from structlog.testing import capture_logs

from anymate_guard import ApiError, NoCurrentRun, UnreachableError, anymate_run, current_run
from anymate_guard._log import emit
from anymate_guard.sandbox import Sandbox
from tests.support.bots import run_bot
from tests.support.clients import client_of


@pytest.fixture(autouse=True)
def _unconfigured() -> Iterator[None]:
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_bot_that_configured_nothing(sandbox: Sandbox) -> None:
    """A bot that configured no logging has nothing on stdout, and on stderr only what was put off or refused."""
    done = run_bot("""
        from anymate_guard import anymate_run
        with anymate_run("invoice-intake") as run:
            run.add_entries()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sandbox.runs()[0]["finished"]


def test_trouble_of_a_bot_that_configured_nothing(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bot that configured no logging still hears on stderr that its finish was put off."""
    sandbox.fail_next("FinishRun", status=503, times=99)
    monkeypatch.setenv("ANYMATE_DEADLINE", "5")
    done = run_bot("""
        from anymate_guard import anymate_run
        with anymate_run("invoice-intake") as run:
            run.add_entries()
    """)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("anymate.finish_stored process_key=invoice-intake run_id=")
    assert done.stderr.count("\n") == 1


def test_bot_that_configures_logging_late(sandbox: Sandbox) -> None:
    """A `dictConfig` after our import, which disables all loggers that it does not name, silences no line of ours."""
    done = run_bot("""
        import logging.config
        from anymate_guard import anymate_run
        with anymate_run("invoice-intake"):
            pass
        logging.config.dictConfig({
            "version": 1,
            "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}},
            "root": {"level": "INFO", "handlers": ["stdout"]},
        })
        with anymate_run("invoice-intake"):
            pass
    """)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["anymate.run_started", "anymate.run_finished"]


def test_bot_on_structlog(sandbox: Sandbox) -> None:
    """A bot that configured structlog for JSON gets every line in it, and its own lines carry the run."""
    sandbox.fail_next("StartRun", status=503)
    done = run_bot("""
        import structlog
        structlog.configure(processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.JSONRenderer(),
        ])
        from anymate_guard import anymate_run
        with anymate_run("invoice-intake") as run:
            structlog.get_logger().info("bot.booked", invoice=7)
            run.add_entries(3)
            run.add_seconds_saved(1.5)
        structlog.get_logger().info("bot.done")
    """)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["event"] for line in lines] == [
        "anymate.request_retried",
        "anymate.run_started",
        "bot.booked",
        "anymate.run_finished",
        "bot.done",
    ]
    run_id = sandbox.runs()[0]["runId"]
    run = {"process_key": "invoice-intake", "run_id": run_id}
    assert lines[0]["level"] == "info"
    assert lines[1] == {**run, "event": "anymate.run_started", "level": "info"}
    assert lines[2] == {**run, "event": "bot.booked", "level": "info", "invoice": 7}
    duration = lines[3].pop("duration_s")
    assert isinstance(duration, float)
    assert lines[3] == {
        **run,
        "event": "anymate.run_finished",
        "level": "info",
        "outcome": "succeeded",
        "entries": 3,
        "seconds_saved": 1.5,
    }
    assert lines[4] == {"event": "bot.done", "level": "info"}


def test_bot_on_the_standard_library(sandbox: Sandbox) -> None:
    """A bot on the standard library's logging gets the lines from the logger anymate_guard, as key=value."""
    sandbox.fail_next("StartRun", status=503)
    done = run_bot("""
        import logging, sys
        logging.basicConfig(stream=sys.stdout, level="INFO", format="%(levelname)s %(name)s %(message)s")
        from anymate_guard import anymate_run
        with anymate_run("invoice intake") as run:
            run.add_entries(3)
    """)
    run_id = sandbox.runs()[0]["runId"]
    retried, started, finished = done.stdout.splitlines()
    assert retried.startswith(
        'INFO anymate_guard anymate.request_retried process_key="invoice intake" operation=StartRun status=503 '
    )
    assert started == f'INFO anymate_guard anymate.run_started process_key="invoice intake" run_id={run_id}'
    assert finished.startswith(f'INFO anymate_guard anymate.run_finished process_key="invoice intake" run_id={run_id} ')
    assert " entries=3" in finished


def test_cheap_import() -> None:
    """Importing the package imports none of the slow libraries below it."""
    done = run_bot("""
        import sys
        import anymate_guard
        slow = {"requests", "urllib3", "structlog", "rich", "asyncio", "werkzeug"}
        print(sorted(slow & set(sys.modules)))
    """)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_cheap_run(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bot with one guarded run imports nothing that it can do without: most bots are a process for one run."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):  # requests is asked what they mean
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # which imports more
    for _ in range(2):  # the first one makes the journal
        done = run_bot("""
            import sys
            from anymate_guard import anymate_run
            with anymate_run("invoice-intake"):
                pass
            needless = {
                "argcomplete", "asyncio", "attr", "certifi", "charset_normalizer", "concurrent.futures", "html",
                "http.cookiejar", "idna", "importlib.metadata", "multiprocessing", "platformdirs", "requests", "rich",
                "structlog", "tempfile", "urllib.request", "urllib3", "werkzeug",
            }
            print(sorted(needless & set(sys.modules)))
        """)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_structlog_in_the_body(sandbox: Sandbox) -> None:
    """A bot that configures structlog in the body has its lines carry the run from the next guard on."""
    done = run_bot("""
        from anymate_guard import anymate_run
        for number in (1, 2):
            with anymate_run(f"process-{number}"):
                import structlog
                if number == 1:
                    structlog.configure(processors=[
                        structlog.contextvars.merge_contextvars,
                        structlog.processors.JSONRenderer(),
                    ])
                structlog.get_logger().info("bot.at_work")
    """)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    numbers = [run["runId"] for run in sandbox.runs()]
    at_work = [line for line in lines if line["event"] == "bot.at_work"]
    assert at_work == [
        {"event": "bot.at_work"},
        {"event": "bot.at_work", "process_key": "process-2", "run_id": numbers[1]},
    ]
    finished = [line["process_key"] for line in lines if line["event"] == "anymate.run_finished"]
    assert finished == ["process-1", "process-2"]


def test_levels(caplog: pytest.LogCaptureFixture) -> None:
    """The program decides by the logger's level what it hears."""
    with caplog.at_level("WARNING", "anymate_guard"):
        emit("info", "anymate.run_started", process_key="a")
        emit("warning", "anymate.start_deferred", process_key="a")
        emit("error", "anymate.finish_refused", process_key="a")
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("anymate_guard", "WARNING"),
        ("anymate_guard", "ERROR"),
    ]


def test_one_line_each(caplog: pytest.LogCaptureFixture) -> None:
    """A value with a line break, quotes or = in it stays one line with one field."""
    with caplog.at_level("INFO", "anymate_guard"):
        emit("info", "anymate.request_retried", error='two\nlines, "quoted" a=b', attempt=1, status=None)
    assert caplog.messages == ['anymate.request_retried error="two\\nlines, \\"quoted\\" a=b" attempt=1']


def test_name_of_the_logger() -> None:
    """A program whose structlog ends in the standard library finds the lines under the logger's name."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))
    logger = logging.getLogger("anymate_guard")
    logger.addHandler(handler)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    try:
        emit("warning", "anymate.start_deferred", process_key="a")
    finally:
        logger.removeHandler(handler)
    assert stream.getvalue() == "anymate_guard WARNING anymate.start_deferred\n"


def test_factory_without_a_name() -> None:
    """A program whose logger factory takes no name hears the lines, too."""
    stream = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()], logger_factory=lambda: structlog.PrintLogger(stream)
    )
    emit("info", "anymate.run_started", process_key="a", run_id=7)
    assert json.loads(stream.getvalue()) == {"event": "anymate.run_started", "process_key": "a", "run_id": 7}


def test_line_about_another_run() -> None:
    """A line about a run that has no number yet does not borrow one that is bound in the context."""
    lines: list[MutableMapping[str, Any]] = []

    def keep(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        lines.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep])
    with bound_contextvars(process_key="outer", run_id=1, batch="b"):
        emit("warning", "anymate.start_deferred", process_key="inner")
        emit("warning", "anymate.journal_unavailable", path="p")
    assert lines == [
        {"event": "anymate.start_deferred", "process_key": "inner", "run_id": None, "batch": "b"},
        {"event": "anymate.journal_unavailable", "path": "p", "process_key": "outer", "run_id": 1, "batch": "b"},
    ]


class Broken(logging.Handler):
    """A handler that raises."""

    def emit(self, _: logging.LogRecord) -> None:
        """Fail."""
        raise OSError("no space left on device")


def test_handler_that_raises(sandbox: Sandbox) -> None:
    """A handler that raises stops neither the body nor FinishRun."""
    logger = logging.getLogger("anymate_guard")
    handler = Broken()
    logger.addHandler(handler)
    logger.setLevel("DEBUG")
    try:
        with anymate_run("invoice-intake") as run:
            run.add_entries()
    finally:
        logger.removeHandler(handler)
        logger.setLevel("NOTSET")
    assert sandbox.runs()[0]["creditedEntries"] == 1


@pytest.mark.parametrize("error", [OSError, KeyError, RecursionError, TypeError])
def test_processor_that_raises(sandbox: Sandbox, error: type[Exception]) -> None:
    """A processor that raises stops neither the body nor FinishRun."""
    calls: list[str] = []

    def broken(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        calls.append(event["event"])
        raise error("broken")

    structlog.configure(processors=[broken])
    sandbox.fail_next("FinishRun", status=503)
    with anymate_run("invoice-intake") as run:
        run.add_entries()
    assert calls == ["anymate.run_started", "anymate.request_retried", "anymate.run_finished"]
    assert sandbox.runs()[0]["creditedEntries"] == 1


def test_context(sandbox: Sandbox) -> None:
    """In the body process_key and run_id are bound, and what the program had bound before is back afterwards."""
    with bound_contextvars(process_key="mine", batch="b"):
        with anymate_run("invoice-intake") as run:
            assert get_contextvars() == {"process_key": "invoice-intake", "run_id": run.run_id, "batch": "b"}
            with anymate_run("other") as inner:
                assert get_contextvars() == {"process_key": "other", "run_id": inner.run_id, "batch": "b"}
            assert get_contextvars() == {"process_key": "invoice-intake", "run_id": run.run_id, "batch": "b"}
        assert get_contextvars() == {"process_key": "mine", "batch": "b"}
    assert get_contextvars() == {}


def test_context_after_a_refused_start(sandbox: Sandbox) -> None:
    """A guard that can't be entered leaves the context as it was."""
    sandbox.fail_next("StartRun", status=403)
    with bound_contextvars(process_key="mine"):
        with pytest.raises(ApiError), anymate_run("invoice-intake"):
            raise AssertionError
        assert get_contextvars() == {"process_key": "mine"}
    with pytest.raises(NoCurrentRun):
        current_run()


def test_insecure_address(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """An http address elsewhere is warned of once per process, at the first call that sends something there."""
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", sandbox.url)  # so that nothing is looked up or sent elsewhere
    monkeypatch.setattr("anymate_guard._api.calls._called", set())
    with capture_logs() as lines:
        client = client_of(sandbox, "http://anymate.example:8080", deadline=0.2)
        assert lines == []
        for _ in range(2):
            with pytest.raises((ApiError, UnreachableError)):
                client.start_run("invoice-intake")
    assert [line for line in lines if line["event"] != "anymate.request_retried"] == [
        {
            "event": "anymate.insecure_address",
            "log_level": "warning",
            "address": "http://anymate.example:8080",
            "error": "http sends the password and the token in the clear; use https",
        }
    ]


@pytest.mark.parametrize(
    ("address", "warned"),
    [
        ("http://127.0.0.1:1", False),
        ("http://127.8.9.1:1", False),
        ("http://[::1]:1", False),
        ("http://localhost:1", False),
        ("http://LOCALHOST:1", False),
        ("http://me.localhost:1", False),
        ("https://10.0.0.1:1", False),
        ("http://10.0.0.1:1", True),
        ("http://localhost.example:1", True),
        ("HTTP://notlocalhost:1", True),
    ],
)
def test_loopback(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, address: str, warned: bool) -> None:
    """Loopback and https are not warned of."""
    monkeypatch.setattr("anymate_guard._api.calls._called", set())
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [])
    with capture_logs() as lines, pytest.raises(UnreachableError):
        client_of(sandbox, address, deadline=0.05).start_run("invoice-intake")
    assert [line["event"] for line in lines].count("anymate.insecure_address") == warned


def test_at_the_end_of_the_interpreter(sandbox: Sandbox) -> None:
    """A bot that closed its own streams is finished all the same."""
    done = run_bot("""
        import logging, sys
        logging.basicConfig(stream=sys.stdout, level="INFO")
        from anymate_guard import anymate_run
        with anymate_run("invoice-intake") as run:
            run.add_entries()
            sys.stdout.close()
    """)
    assert sandbox.runs()[0]["creditedEntries"] == 1
    assert done.returncode in {0, 120}  # 120: the interpreter could not flush stdout

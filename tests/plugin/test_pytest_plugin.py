"""The pytest plugin, as the projects of bot developers use it."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

import anymate_guard._guard.driver
import anymate_guard._guard.guard
import anymate_guard._http.transport
import anymate_guard._journal.contents
import anymate_guard._lifecycle.entering
import anymate_guard.sandbox
from tests.support.waiting import LONGEST

pytest_plugins = ["pytester"]

PLUGIN = "anymate_guard.pytest_plugin"
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "testing.md"
BOT = """
    import pytest
    from anymate_guard import NoCurrentRun, anymate_run, current_run

    @anymate_run("invoice-intake", report_failure=True)
    def bot(*amounts):
        for amount in amounts:
            if amount < 0:
                raise ValueError(f"negative: {amount}")
            current_run().add_entries()
            current_run().add_seconds_saved(amount)
"""
# Loaded here, because pytester forgets what is imported inside, and would load it for each test.
PRELOADED = (
    anymate_guard._guard.driver,
    anymate_guard._guard.guard,
    anymate_guard._http.transport,
    anymate_guard._journal.contents,
    anymate_guard._lifecycle.entering,
    anymate_guard.sandbox,
    structlog,
)

Tests = Callable[[str], pytest.RunResult]


class Without:
    """An importer for which a module does not exist."""

    def __init__(self, name: str) -> None:
        """Take the module's name."""
        self.name = name

    def find_spec(self, name: str, *_: object) -> None:
        """Raise if it is the module."""
        if name == self.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture(name="tests")
def _tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Tests:
    """Run tests written by a user, with the plugin loaded afresh, warnings being errors."""

    def run(source: str) -> pytest.RunResult:
        monkeypatch.delitem(sys.modules, PLUGIN, raising=False)
        pytester.makepyfile(bot=textwrap.dedent(BOT), test_bot=f"from bot import *\n{textwrap.dedent(source)}")
        return pytester.runpytest_inprocess("-p", PLUGIN, "-p", "no:hypothesispytest", "-W", "error")

    return run


def test_runs(tests: Tests) -> None:
    """A test sees each run with what was reported, what is credited, and nothing of the test before."""
    result = tests("""
        import datetime as dt

        def test_one(anymate_sandbox):
            bot(40, 2.4)
            run, = anymate_sandbox.runs
            assert run.process_key == "invoice-intake"
            assert run.run_id >= 1
            assert run.finished
            assert (run.entries, run.seconds_saved) == (2, 42)
            assert (run.credited_entries, run.credited_seconds_saved) == (2, 42)
            assert run.started_at <= run.finished_at <= dt.datetime.now(dt.timezone.utc)

        def test_two(anymate_sandbox):
            assert anymate_sandbox.runs == []
            with anymate_run("k"):
                run, = anymate_sandbox.runs
                assert not run.finished
                assert run.finished_at is run.entries is run.credited_entries is None
            assert anymate_sandbox.runs[0].credited_entries == 1
    """)
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("proxy", "excepted", "then"),
    [
        ("http://127.0.0.1:9", "intranet", "intranet,127.0.0.1"),
        ("http://127.0.0.1:9", "*", "*"),
        (None, "here", "here"),
    ],
)
def test_behind_a_proxy(
    tests: Tests, monkeypatch: pytest.MonkeyPatch, proxy: str | None, excepted: str, then: str
) -> None:
    """The local Anymate is reached without the proxy that the machine has for all else, which stays as it is."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("no_proxy", excepted)
    if proxy is not None:
        monkeypatch.setenv("http_proxy", proxy)
    result = tests(f"""
        import os

        def test_it(anymate_sandbox):
            bot(1)
            assert [run.entries for run in anymate_sandbox.runs] == [1]
            assert os.environ["no_proxy"] == {then!r}
    """)
    result.assert_outcomes(passed=1)


def test_failures_and_requests(tests: Tests) -> None:
    """A test sees the failures that were reported and every request with its answer."""
    result = tests("""
        def test_it(anymate_sandbox):
            with pytest.raises(ValueError):
                bot(1, -1)
            assert [(f.process_key, f.message) for f in anymate_sandbox.failures] == [
                ("invoice-intake", "ValueError: negative: -1")
            ]
            assert [(r.operation, r.method, r.status) for r in anymate_sandbox.requests] == [
                ("token", "POST", 200),
                ("StartRun", "GET", 200),
                ("FinishRun", "POST", 200),
                ("Failure", "POST", 200),
            ]
            assert anymate_sandbox.requests[1].path == "/api/StartRun/invoice-intake"
            assert '"overwriteEntries": 1' in anymate_sandbox.requests[2].body
    """)
    result.assert_outcomes(passed=1)


def test_faults_and_processes(tests: Tests) -> None:
    """A test can make the next call fail, and set up a process."""
    result = tests("""
        from anymate_guard import NotOkToRun

        def test_fault(anymate_sandbox):
            anymate_sandbox.fail_next("FinishRun", status=503)
            bot(1)
            assert [r.status for r in anymate_sandbox.requests if r.operation == "FinishRun"] == [503, 200]
            assert anymate_sandbox.runs[0].finished

        def test_stopped(anymate_sandbox):
            anymate_sandbox.set_process("k", stopped=True)
            with pytest.raises(NotOkToRun), anymate_run("k", check_ok_to_run=True):
                pass
            assert anymate_sandbox.runs == []

        def test_after_both(anymate_sandbox):
            anymate_sandbox.fail_next("FinishRun", status=503)

        def test_nothing_is_left_of_them(anymate_sandbox):
            with anymate_run("k", check_ok_to_run=True):
                pass
            assert [r.status for r in anymate_sandbox.requests] == [200] * 4
    """)
    result.assert_outcomes(passed=4)


def test_outage_ends_with_its_test(tests: Tests) -> None:
    """An outage in one test, and what is owed after it, are nothing to the next test."""
    result = tests("""
        def test_outage(anymate_sandbox, monkeypatch):
            monkeypatch.setenv("ANYMATE_DEADLINE", "0.3")
            anymate_sandbox.server.close()
            bot(1)
            assert anymate_sandbox.runs == []

        def test_lost_finish(anymate_sandbox, monkeypatch):
            monkeypatch.setenv("ANYMATE_DEADLINE", "0.3")
            anymate_sandbox.fail_next("FinishRun", status=503, times=1000)
            bot(1)
            assert not anymate_sandbox.runs[0].finished

        def test_next(anymate_sandbox):
            anymate_sandbox.fail_next("StartRun", status=503, times=2)  # one would do if an outage were known
            bot(2)
            assert [(r.operation, r.status) for r in anymate_sandbox.requests] == [
                ("token", 200), ("StartRun", 503), ("StartRun", 503), ("StartRun", 200), ("FinishRun", 200)
            ]
    """)
    result.assert_outcomes(passed=3)


def test_environment(tests: Tests, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials, addresses, journal and off switch of the outside are out of reach, and back afterwards."""
    password = tmp_path / "password"
    password.write_text("real")
    outside = {
        "ANYMATE_CLIENT_ID": "real",
        "ANYMATE_PASSWORD_FILE": str(password),
        "ANYMATE_API_URL": "http://127.0.0.1:1",
        "ANYMATE_STATE_DIR": str(tmp_path / "real"),
        "ANYMATE_DISABLED": "1",
        "ANYMATE_PROCESS_KEY": "stays",
    }
    for name, value in outside.items():
        monkeypatch.setenv(name, value)
    result = tests(f"""
        import os
        outside = {outside!r}

        def test_inside(anymate_sandbox, monkeypatch):
            with anymate_run():
                assert os.environ["ANYMATE_API_URL"] == anymate_sandbox.environ["ANYMATE_API_URL"]
                assert os.environ["ANYMATE_CLIENT_ID"] != "real"
            assert [run.process_key for run in anymate_sandbox.runs] == ["stays"]

        def test_outside():
            assert outside.items() <= os.environ.items()
            with anymate_run("k") as run:  # disabled again: nobody remembers the sandbox's client
                assert run.run_id is None
            assert not os.path.exists(outside["ANYMATE_STATE_DIR"])
    """)
    result.assert_outcomes(passed=2)


def test_disabled(tests: Tests, monkeypatch: pytest.MonkeyPatch) -> None:
    """`anymate_disabled`, for one test or all, makes guards call nothing; `anymate_sandbox` wins over it."""
    for name in ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"ANYMATE_{name}", raising=False)
    result = tests("""
        from anymate_guard import ConfigurationError

        pytestmark = pytest.mark.usefixtures("anymate_disabled")

        def test_off():
            with anymate_run("k") as run:
                run.add_entries(2)
            assert (run.entries, run.run_id, run.outcome) == (2, None, "succeeded")

        def test_sandbox(anymate_sandbox):
            bot(1)
            assert anymate_sandbox.runs[0].finished
    """)
    result.assert_outcomes(passed=2)
    result = tests("""
        from anymate_guard import ConfigurationError

        def test_off(anymate_disabled):
            bot(1)

        def test_on_again():
            with pytest.raises(ConfigurationError):
                bot(1)
    """)
    result.assert_outcomes(passed=2)


def test_message_of_a_failed_test(tests: Tests) -> None:
    """A test that fails shows the values in its assertion, and below what the sandbox saw."""
    result = tests("""
        def test_it(anymate_sandbox):
            for _ in range(33):
                anymate_sandbox.server.set_process("k")
                bot(1)
            anymate_sandbox.fail_next("FinishRun", status=400)
            with pytest.raises(ValueError):
                bot(-1)
            assert anymate_sandbox.runs[-1].finished, anymate_sandbox
    """)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*AssertionError: <anymate_sandbox: 34 runs, 1 of them open, 1 failures, * requests>",
            "E*where False = SandboxRun(process_key='invoice-intake', run_id=*, finished=False, *",
            "*- Anymate sandbox -*",
            "runs:",
            "  (4 before these)",
            "  SandboxRun(process_key='invoice-intake', run_id=*, finished=True, entries=1, *",
            "failures:",
            "  SandboxFailure(process_key='invoice-intake', message='ValueError: negative: -1')",
            "requests:",
            "  (* before these)",
            "  SandboxRequest(operation='FinishRun', status=400, method='POST', path='/api/FinishRun/', *",
            "  SandboxRequest(operation='Failure', status=200, *",
        ]
    )


def test_message_without_anything(tests: Tests) -> None:
    """A test that fails before the bot did anything says so; one without the sandbox says nothing of it."""
    result = tests("def test_it(anymate_sandbox): assert anymate_sandbox.runs")
    result.stdout.fnmatch_lines(["*where [] = <anymate_sandbox: 0 runs,*", "runs:", "  none", "failures:", "  none"])
    result = tests("def test_it(): assert not bot")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*Anymate sandbox*")


def test_guard_left_open(tests: Tests) -> None:
    """A guard still open at the end of a test is an error that names it, and nothing to the next test."""
    result = tests("""
        import threading
        guards = [anymate_run("left-open"), anymate_run("and-another")]
        go = threading.Event()

        def work():
            with anymate_run("in-a-thread"):
                inside.set()
                go.wait(10)

        def test_one(anymate_sandbox):
            guards[0].__enter__()

        def test_current_run_and_no_joining(anymate_sandbox):
            with pytest.raises(NoCurrentRun):
                current_run()
            with anymate_run("left-open"):
                assert len(anymate_sandbox.runs) == 1
            guards[0].__exit__(None, None, None)

        inside = threading.Event()
        thread = threading.Thread(target=work)

        def test_two(anymate_sandbox):
            guards[1].__enter__()
            thread.start()
            assert inside.wait(10)

        def test_thread_ends(anymate_sandbox):
            guards[1].__exit__(None, None, None)
            go.set()
            thread.join(10)
            assert anymate_sandbox.requests == []
    """)
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at teardown of test_one*",
            "1 guard is still open at the end of this test:",
            "  - 'left-open', run *",
            "Leave each guard inside the test: *",
            "*ERROR at teardown of test_two*",
            "2 guards are still open at the end of this test:",
            "  - 'and-another', run *",
            "  - 'in-a-thread', run *",
        ]
    )
    result.stdout.no_fnmatch_line("*Traceback*")


def test_guard_being_left(tests: Tests) -> None:
    """A guard that another thread is just leaving when the test ends is waited for, not reported."""
    result = tests("""
        import threading

        def test_it(anymate_sandbox, monkeypatch):
            anymate_sandbox.fail_next("FinishRun", delay=0.3)
            thread = threading.Thread(target=bot, args=[1])
            thread.start()
            while [r.operation for r in anymate_sandbox.requests][-1:] != ["FinishRun"]:
                thread.join(0.01)

        def test_next(anymate_sandbox):
            bot(1)
            assert [r.status for r in anymate_sandbox.requests] == [200] * 3
    """)
    result.assert_outcomes(passed=2)


def test_guard_that_never_gets_in(tests: Tests) -> None:
    """A guard that hangs in StartRun when the test ends is reported after a while."""
    result = tests("""
        import threading
        from anymate_guard import pytest_plugin

        pytest_plugin._LEAVING = 0.2

        def test_it(anymate_sandbox, monkeypatch):
            monkeypatch.setenv("ANYMATE_DEADLINE", "1")
            anymate_sandbox.fail_next("StartRun", hang=True)
            thread = threading.Thread(target=bot, args=[1])
            thread.start()
            while not anymate_sandbox.requests:
                thread.join(0.01)
    """)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["1 guard is still open *", "  - 'invoice-intake', run None"])


def test_without_the_extra(tests: Tests, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without werkzeug the fixture says what to install; other import errors are shown as they are."""
    for name in [name for name in sys.modules if name.startswith(("anymate_guard.sandbox", "werkzeug", "markupsafe"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Without("werkzeug"), *sys.meta_path])
    user = "def test_it(anymate_sandbox): pass"
    result = tests(user)
    result.assert_outcomes(errors=1)
    missing = "the fixture anymate_sandbox needs the sandbox (No module named 'werkzeug')"
    result.stdout.fnmatch_lines([f"{missing}: pip install 'anymate-guard[[]sandbox]'"])
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*another exception*")
    monkeypatch.setattr(sys, "meta_path", [Without("markupsafe"), *sys.meta_path[1:]])
    result = tests(user)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E*No module named 'markupsafe'*"])


def test_cheap_to_load() -> None:
    """Until a fixture is asked for, the plugin imports pytest and small modules that pytest uses itself."""
    tree = ast.parse(Path(anymate_guard.__file__).with_name("pytest_plugin.py").read_text(encoding="utf-8"))
    modules = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert modules == {"__future__", "dataclasses", "datetime", "pytest", "time", "typing"}


def test_documentation(pytester: pytest.Pytester) -> None:
    """The page on testing a bot works: its first block is the bot, the others are its tests."""
    page = PAGE.read_text(encoding="utf-8")
    bot, *blocks = [part.split("\n```")[0] for part in page.split("```python\n")[1:]]
    pytester.makepyfile(invoice_bot=bot, test_invoice_bot="\n\n".join(blocks))
    result = pytester.runpytest_subprocess("-p", PLUGIN, "-W", "error")
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()["passed"] == "\n".join(blocks).count("def test_")


def test_costs_nothing() -> None:
    """Loaded by pytest in a project that does not use it, the plugin brings in nothing but itself."""
    code = (
        "import sys, dataclasses, datetime, typing, pytest; before = set(sys.modules); "
        f"import {PLUGIN}; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=LONGEST)
    assert done.stdout == "['anymate_guard', 'anymate_guard.pytest_plugin']\n"

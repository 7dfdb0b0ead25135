"""`anymate-guard sandbox`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from anymate_guard import AnymateClient, Settings, anymate_run
from anymate_guard._commands import sandbox
from anymate_guard._commands.sandbox import DEFAULT_PORT
from anymate_guard.errors import UnreachableError
from anymate_guard.sandbox import Sandbox, shell_lines
from tests.support.waiting import LONGEST, until

from .support import COMMAND, ended, needs_sh, started


def exports(lines: list[str], shell: str = "sh") -> dict[str, str]:
    """The variables that a shell sets when these lines are pasted into it."""
    script = "".join(lines) + "env"
    clean = {"PATH": os.environ["PATH"]}
    done = subprocess.run([shell, "-c", script], env=clean, capture_output=True, text=True, timeout=LONGEST, check=True)
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines())
    return {name: value for name, value in variables.items() if name.startswith("ANYMATE_")}


@needs_sh
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_stopped(number: signal.Signals, tmp_path: Path) -> None:
    """The lines on stdout point a bot at the sandbox; Ctrl-C and SIGTERM end it with exit code 0."""
    with started("sandbox", "--port", "0") as process:
        assert process.stdout is not None
        settings = exports([process.stdout.readline() for _ in range(6)])
        assert len(settings) == 6
        checked = ended("check", "invoice-intake", **settings, ANYMATE_STATE_DIR=str(tmp_path))
        assert checked.returncode == 0, checked.stdout
        process.send_signal(number)
        out, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, out) == (0, "")
    where = settings["ANYMATE_API_URL"]
    first = [line for line in err.splitlines() if line.startswith("anymate-guard")][-1]
    assert (
        first
        == f"anymate-guard sandbox: serves a local Anymate on {where} until Ctrl-C or SIGTERM; its page is there too"
    )


def test_port() -> None:
    """A port of one's own is taken; one that is taken already is said in one line, with exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = ended("sandbox", "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        rf"anymate-guard sandbox: can't serve on port {port}: [^()]+; take another with --port\n", done.stderr
    )
    with started("sandbox", "--port", port) as process:
        assert process.stdout is not None
        assert f"http://127.0.0.1:{port}" in "".join(process.stdout.readline() for _ in range(6))


@contextlib.contextmanager
def serving(*options: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Start a sandbox, and end it as a person would."""
    with started("sandbox", *options, **environ) as process:
        yield process
        process.terminate()
        process.communicate(timeout=LONGEST)


def line_about(process: subprocess.Popen[str], words: str) -> str:
    """Read what the command says on stderr up to the line that has these words."""
    assert process.stderr is not None
    return next(line for line in process.stderr if words in line)


def test_default_port() -> None:
    """Without a port it is always the same one; while that is taken it is the next one that is free, which is said."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # then a program of somebody else has taken it, which is as good
            stack.enter_context(socket.create_server(("127.0.0.1", DEFAULT_PORT)))
        second = stack.enter_context(serving())
        assert line_about(second, str(DEFAULT_PORT)).endswith("; trying the next one\n")
        assert int(address(second).rpartition(":")[2]) > DEFAULT_PORT
    assert "(default: 8642, or the next that is free)" in " ".join(ended("sandbox", "--help").stdout.split())
    assert DEFAULT_PORT == 8642


def test_no_free_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all ports from the default one on are taken, it says so, and ends with 2."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(sandbox, "DEFAULT_PORT", other.getsockname()[1])
        monkeypatch.setattr(sandbox, "_PORTS_TRIED", 1)
        assert sandbox.sandbox(None) == 2


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish() -> None:
    """The lines set the variables in fish, too."""
    with Sandbox() as server:
        lines = shell_lines(server.environ, "linux")["Linux and macOS"]
        assert exports([f"{lines}\n"], "fish") == server.environ


def test_windows_lines() -> None:
    """On Windows the lines are in the syntax of PowerShell and of the Command Prompt."""
    assert shell_lines({"A": "b", "C": "d"}, "win32") == {
        "PowerShell": '$env:A = "b"\n$env:C = "d"',
        "Command Prompt": "set A=b\nset C=d",
    }


def ask(url: str, path: str, method: str = "GET") -> Any:
    """Ask the sandbox."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=LONGEST)
    with contextlib.closing(connection):
        connection.request(method, path)
        return json.loads(connection.getresponse().read())


def address(process: subprocess.Popen[str]) -> str:
    """Where a sandbox serves that was just started."""
    return line_about(process, "serves").split()[7]


def test_access_log() -> None:
    """Each request is a line as uvicorn prints it, without colours on a pipe; those of the page's script are not."""
    with serving("--port", "0") as process:
        url = address(process)
        ask(url, "/page/parts")
        ask(url, "/api/nonsense")
        line = line_about(process, "INFO")
        assert re.fullmatch(r'INFO:     127\.0\.0\.1:\d+ - "GET /api/nonsense HTTP/1\.1" 404 Not Found\n', line)
        ask(url, "/sandbox/runs")
        assert line_about(process, "INFO").endswith('"GET /sandbox/runs HTTP/1.1" 200 OK\n')
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=LONGEST) as stranger:
            stranger.sendall(b"GET /\x1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert r'"GET /\x1b[31m HTTP/1.1" 404' in line_about(process, "INFO")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.parametrize(("environ", "coloured"), [({"TERM": "xterm"}, True), ({"NO_COLOR": "1"}, False)])
def test_colours(environ: dict[str, str], *, coloured: bool) -> None:
    """On a terminal the access log is coloured as uvicorn's is, unless NO_COLOR is set."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*COMMAND, "sandbox", "--port", "0"],
        env={name: value for name, value in os.environ.items() if name != "NO_COLOR"} | environ,
        stdout=subprocess.PIPE,
        stderr=theirs,
        encoding="utf-8",
        start_new_session=True,
    )
    os.close(theirs)
    with process, os.fdopen(ours, encoding="utf-8") as terminal:
        try:
            url = next(line for line in terminal if "serves" in line).split()[7]
            ask(url, "/sandbox/faults")
            line = next(line for line in terminal if "GET" in line)
        finally:
            process.terminate()
            process.wait(LONGEST)
    request, answer = "GET /sandbox/faults HTTP/1.1", "200 OK"
    if coloured:
        assert line.startswith("\033[32mINFO\033[0m:     127.0.0.1:")
        assert f'"\033[1m{request}\033[0m" \033[32m{answer}\033[0m' in line
    else:
        assert line.startswith("INFO:     127.0.0.1:")
        assert f'"{request}" {answer}' in line


def test_no_answer_is_logged() -> None:
    """A request that gets no answer is a line too, which says so."""
    with serving("--port", "0") as process:
        with Sandbox() as model:
            environ = model.environ
        url = address(process)
        settings = Settings.from_env(
            {**environ, "ANYMATE_API_URL": url, "ANYMATE_AUTH_URL": url, "ANYMATE_DEADLINE": "1"}
        )
        fault = {"operation": "token", "reset": "before", "times": 100}
        connection = HTTPConnection(urlsplit(url).netloc, timeout=LONGEST)
        with contextlib.closing(connection), AnymateClient(settings) as client:
            connection.request("POST", "/sandbox/faults", json.dumps(fault))
            assert connection.getresponse().status == 200
            with pytest.raises(UnreachableError):
                client.start_run("invoice-intake")
        assert line_about(process, "/connect/token").endswith('"POST /connect/token HTTP/1.1" no answer\n')


@needs_sh
def test_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's journal is the one of this machine: what is owed to the sandbox is listed and delivered."""
    with serving("--port", "0", ANYMATE_STATE_DIR=str(tmp_path)) as process:
        assert process.stdout is not None
        settings = exports([process.stdout.readline() for _ in range(6)])
        url = settings["ANYMATE_API_URL"]
        for name, value in {**settings, "ANYMATE_STATE_DIR": str(tmp_path), "ANYMATE_DEADLINE": "1"}.items():
            monkeypatch.setenv(name, value)
        with anymate_run("invoice-intake", client=AnymateClient(Settings.from_env())) as run:
            run.add_entries(3)
            (opened,) = until(lambda: [row for row in ask(url, "/sandbox/journal") if row["runId"]])
            connection = HTTPConnection(urlsplit(url).netloc, timeout=LONGEST)
            with contextlib.closing(connection):
                fault = {"operation": "FinishRun", "status": 503, "times": 1000}
                connection.request("POST", "/sandbox/faults", json.dumps(fault))
                assert connection.getresponse().status == 200
        assert (opened["processKey"], opened["runId"], opened["state"]) == ("invoice-intake", run.run_id, "open")
        (owed,) = ask(url, "/sandbox/journal")
        assert (owed["state"], owed["entries"], owed["secondsSaved"]) == ("owed", 3, None)
        assert owed["reason"].startswith("FinishRun got no usable answer from Anymate in time: HTTP 503")
        assert 0 <= owed["age"] < LONGEST
        ask(url, "/sandbox/faults", "DELETE")
        assert ask(url, "/sandbox/journal", "POST") == {"message": "1 delivered, 0 still owed."}
        assert ask(url, "/sandbox/journal") == []
        assert [view["creditedEntries"] for view in ask(url, "/sandbox/runs")] == [3]


def test_what_cannot_be_delivered(tmp_path: Path) -> None:
    """The page's journal also tells what was refused for good, why, and what is owed to an Anymate elsewhere."""
    state = {"ANYMATE_STATE_DIR": str(tmp_path), "ANYMATE_DEADLINE": "1"}
    with serving("--port", "0", **state) as process, Sandbox() as gone:
        url = address(process)
        here = {**gone.environ, "ANYMATE_API_URL": url, "ANYMATE_AUTH_URL": url, **state}
        connection = HTTPConnection(urlsplit(url).netloc, timeout=LONGEST)
        with contextlib.closing(connection):
            connection.request("POST", "/sandbox/faults", json.dumps({"operation": "FinishRun", "status": 400}))
            assert connection.getresponse().status == 200
        with anymate_run("refused", client=AnymateClient(Settings.from_env(here))):
            pass
        with anymate_run("elsewhere", client=AnymateClient(Settings.from_env({**gone.environ, **state}))):
            gone.close()
        rows = {row["processKey"]: (row["state"], row["reason"]) for row in ask(url, "/sandbox/journal")}
        assert rows["refused"][0] == "refused"
        assert "400" in rows["refused"][1]
        assert rows["elsewhere"][0] == "owed"
        assert rows["elsewhere"][1].startswith(f"for {gone.url}; ")
        assert ask(url, "/sandbox/journal", "POST") == {"message": "0 delivered, 1 still owed."}


def test_journal_that_can_not_be_used(tmp_path: Path) -> None:
    """Where the journal can't be used, the page lists nothing, and says why when it is asked to deliver."""
    folder = tmp_path / "state"
    folder.write_text("in the way")
    with serving("--port", "0", ANYMATE_STATE_DIR=str(folder)) as process:
        url = address(process)
        assert ask(url, "/sandbox/journal") == []
        assert ask(url, "/sandbox/journal", "POST")["message"].startswith("The journal can't be used: ")


@pytest.mark.parametrize("port", ["-1", "65536", "http", "1.5", "9" * 5000])
def test_wrong_port(port: str) -> None:
    """What can't be a port is refused, by its value."""
    done = ended("sandbox", f"--port={port}")
    assert done.returncode == 2
    assert f"must be a whole number from 0 to 65535, got '{port}'" in done.stderr


def test_wrong_state_dir() -> None:
    """A folder for the journal that can't be one is said in one line, and nothing is served."""
    done = ended("sandbox", "--port", "0", ANYMATE_STATE_DIR="~nobody-of-that-name/state")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("anymate-guard sandbox: ANYMATE_STATE_DIR: ")
    assert len(done.stderr.splitlines()) == 1


def test_without_the_extra() -> None:
    """Without the extra it says what to install, and exits with 2."""
    program = (
        "import sys\nsys.modules['werkzeug'] = None\n"
        "from anymate_guard.__main__ import main\nsys.exit(main(['sandbox']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONGEST, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'anymate-guard[sandbox]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1

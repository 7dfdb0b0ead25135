"""A guard while a test tool records requests, answers them itself, or forbids them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox

OURS_FIRST = "from anymate_guard import anymate_run\nwith anymate_run('first', require_start=True): pass\n"
GUARDED = """
    from anymate_guard import anymate_run
    with anymate_run("invoice-intake", require_start=True, require_finish=True) as run:
        run.add_entries()
        requests.get(URL)
"""
VCR = f"""
import requests, vcr
URL = "{{sandbox}}/sandbox/runs"
with vcr.use_cassette("cassette"):
    {GUARDED}
"""
RESPONSES = f"""
import requests, responses
URL = "http://bot.example/"
with responses.RequestsMock() as tool:
    tool.add("GET", URL, json=dict())
    {GUARDED}
"""
REQUESTS_MOCK = f"""
import requests, requests_mock
URL = "http://bot.example/"
with requests_mock.Mocker() as tool:
    tool.get(URL, json=dict())
    {GUARDED}
"""
HTTPRETTY = f"""
import httpretty, requests
URL = "http://bot.example/"
with httpretty.enabled():
    httpretty.register_uri("GET", URL, body="")
    {GUARDED}
"""
HTTPRETTY_RECORD = f"""
import httpretty, requests
URL = "{{sandbox}}/sandbox/runs"
with httpretty.httpretty.record("cassette"):
    {GUARDED}
"""


class Bot:
    """Runs programs that use a guard and a test tool."""

    def __init__(self, sandbox: Sandbox, folder: Path) -> None:
        self._sandbox = sandbox
        self._folder = folder

    def run(self, program: str) -> str:
        """Run a program, and give what it said on stderr."""
        environ = {**os.environ, "ANYMATE_STATE_DIR": str(self._folder), "ANYMATE_DEADLINE": "60"}
        done = subprocess.run(
            [sys.executable, "-c", program.replace("{sandbox}", self._sandbox.url)],
            cwd=self._folder,
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,  # less than the deadline: what can't work has to be told at once
            check=False,
        )
        return done.stderr

    @property
    def runs(self) -> list[tuple[str, bool, int | None]]:
        """The runs that the sandbox saw: process key, whether finished, entries."""
        return [(run["processKey"], run["finished"], run["overwriteEntries"]) for run in self._sandbox.runs()]


@pytest.fixture(name="bot")
def _bot(sandbox: Sandbox, tmp_path: Path) -> Bot:
    return Bot(sandbox, tmp_path)


@pytest.mark.parametrize("ours_first", [False, True], ids=["tool first", "ours first"])
@pytest.mark.parametrize("program", [VCR, RESPONSES, REQUESTS_MOCK, HTTPRETTY, HTTPRETTY_RECORD])
def test_guard_beside_a_tool(bot: Bot, program: str, ours_first: bool) -> None:
    """A guard works while a tool records or answers the bot's own requests, whichever was imported first."""
    said = bot.run(OURS_FIRST * ours_first + program)
    assert "Traceback" not in said, said
    assert bot.runs == [("first", True, None)] * ours_first + [("invoice-intake", True, 1)]


@pytest.mark.parametrize("ours_first", [False, True], ids=["tool first", "ours first"])
@pytest.mark.parametrize("program", [VCR, HTTPRETTY_RECORD], ids=["vcrpy", "httpretty"])
def test_cassette(bot: Bot, sandbox: Sandbox, tmp_path: Path, program: str, ours_first: bool) -> None:
    """A cassette holds what the bot asked, and nothing of ours: no password, no secret, no token."""
    bot.run(OURS_FIRST * ours_first + program)
    cassette = (tmp_path / "cassette").read_text()
    assert "/sandbox/runs" in cassette
    for ours in ("connect/token", "StartRun", "Bearer", sandbox.environ["ANYMATE_PASSWORD"]):
        assert ours not in cassette


@pytest.mark.parametrize("ours_first", [False, True], ids=["tool first", "ours first"])
def test_replayed_cassette(bot: Bot, ours_first: bool) -> None:
    """A cassette that is played back leaves the guard alone: its run is a real one again."""
    for _ in range(2):
        assert "Traceback" not in bot.run(OURS_FIRST * ours_first + VCR)
    assert [run for run in bot.runs if run[0] == "invoice-intake"] == [("invoice-intake", True, 1)] * 2


FORBIDDEN = {
    "pytest-socket": (
        "import pytest_socket; pytest_socket.disable_socket()",
        "SocketBlockedError: A test tried to use socket.getaddrinfo.",
    ),
    "pytest-socket, other hosts": (
        "import pytest_socket; pytest_socket.socket_allow_hosts(['192.0.2.1'])",
        'SocketConnectBlockedError: A test tried to use socket.socket.connect() with host "127.0.0.1"',
    ),
    "httpretty": (
        "import httpretty; httpretty.enable(allow_net_connect=False)",
        "UnmockedError: Failed to socket.connect()",
    ),
    "httpretty, mocked": (
        (
            "import os; from httpretty import register_uri, enable; enable()\n"
            "register_uri('POST', 'http://anymate.example/connect/token')\n"
            "os.environ.update(ANYMATE_API_URL='http://anymate.example', ANYMATE_AUTH_URL='http://anymate.example')"
        ),
        "OSError: [Errno ",
    ),
}


@pytest.mark.parametrize("ours_first", [False, True], ids=["tool first", "ours first"])
@pytest.mark.parametrize(("tool", "reason"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_forbidden_connections(bot: Bot, tool: str, reason: str, ours_first: bool) -> None:
    """Where a tool forbids connections, or makes them up, a guard fails at once with one clear line."""
    said = bot.run(
        f"{'import anymate_guard._http.transport' * ours_first}\n{tool}\n"
        "from anymate_guard import anymate_run\nwith anymate_run('invoice-intake', require_start=True): pass"
    )
    error = said.splitlines()[-1]
    assert error.startswith("anymate_guard.errors.UnreachableError: token got no usable answer from Anymate")
    assert reason in error
    assert "request_retried" not in said
    assert bot.runs == []


@pytest.mark.parametrize("ours_first", [False, True], ids=["tool first", "ours first"])
def test_tls_that_a_tool_makes_up(bot: Bot, monkeypatch: pytest.MonkeyPatch, ours_first: bool) -> None:
    """Where a tool puts nothing in the place of TLS, a guard fails at once, and no password is sent in the clear."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name in ("ANYMATE_API_URL", "ANYMATE_AUTH_URL"):
            monkeypatch.setenv(name, "https://127.0.0.1:{1}".format(*server.getsockname()))
        said = bot.run(
            f"{'import anymate_guard._http.transport' * ours_first}\nimport httpretty\nhttpretty.enable()\n"
            "from anymate_guard import anymate_run\nwith anymate_run('invoice-intake', require_start=True): pass"
        )
        with server.accept()[0] as connection:
            assert connection.recv(1) == b""
    assert "this connection is not encrypted" in said.splitlines()[-1]
    assert "request_retried" not in said


def test_allowed_again(bot: Bot) -> None:
    """A guard that was forbidden to connect works once that is allowed."""
    said = bot.run(
        "import pytest_socket; pytest_socket.disable_socket()\n"
        "from anymate_guard import anymate_run\n"
        "with anymate_run('invoice-intake') as run: run.add_entries()\n"
        "pytest_socket.enable_socket()\n"
        "with anymate_run('invoice-intake') as run: run.add_entries()\n"
    )
    assert "Traceback" not in said, said
    assert sum(run[2] or 0 for run in bot.runs) == 2

"""Bots on Windows: how they are ended, what their texts and folders are called, and the programs that `exec` starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox
from tests.support.clients import client_of
from tests.support.forward import ForwardProxy
from tests.support.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="this is about Windows")

LIMIT = 60
NAMES = ("CLIENT_ID", "CLIENT_SECRET", "USERNAME", "PASSWORD", "API_URL", "AUTH_URL")
COMMAND = (sys.executable, "-m", "anymate_guard")
BOT = """
import pathlib, sys, time
from anymate_guard import anymate_run

with anymate_run("Bücher 日本") as run:
    run.add_entries(3)
    pathlib.Path("inside").touch()
    while not pathlib.Path("go-on").exists():
        time.sleep(0.02)
"""
# Programs on one console get its Ctrl-C all at once, so this one makes a console for the bot and itself.
CONSOLE = """
import os, pathlib, signal, subprocess, sys, time

with subprocess.Popen([sys.executable, "bot.py"], stderr=subprocess.DEVNULL) as bot:
    while not pathlib.Path("inside").exists():
        time.sleep(0.02)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.kill(0, signal.CTRL_C_EVENT)
    sys.exit(0 if bot.wait(30) else "the bot did not mind")
"""
# `exec`, to which Ctrl-C comes at the moment at which it starts the command.
EARLY = """
import signal, subprocess, sys

class Late(subprocess.Popen):
    def __init__(self, *args, **more):
        signal.raise_signal(signal.SIGINT)
        super().__init__(*args, **more)

subprocess.Popen = Late
from anymate_guard.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def _folder(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder whose name is in no code page, with the journal in it."""
    folder = tmp_path / "Bücher 日本"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ANYMATE_STATE_DIR", str(folder / "Tagebücher"))


def _write(name: str, text: str) -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def _done(*words: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end."""
    return subprocess.run(
        words,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )


def _exec(*words: str) -> subprocess.CompletedProcess[bytes]:
    return _done(*COMMAND, "exec", "k", "--", *words)


def _finished(sandbox: Sandbox) -> list[tuple[str, int | None]]:
    """Process and entries of every run; all of them have to be finished."""
    assert all(run["finished"] for run in sandbox.runs())
    return [(run["processKey"], run["overwriteEntries"]) for run in sandbox.runs()]


def test_terminate_process(sandbox: Sandbox) -> None:
    """A bot that Task Scheduler ends, which is TerminateProcess, is credited by the next one what it had recorded."""
    with subprocess.Popen([sys.executable, _write("bot.py", BOT)]) as bot:
        until(Path("inside").exists)
        until(lambda: b'"entries": 3' in _done(*COMMAND, "journal", "--json").stdout)
        bot.terminate()
    assert [run["finished"] for run in sandbox.runs()] == [False]
    Path("go-on").touch()
    assert _done(sys.executable, "bot.py").returncode == 0
    assert _finished(sandbox) == [("Bücher 日本", 6)]


def test_overlap(sandbox: Sandbox) -> None:
    """Bots that overlap in their process share its run, and the last one out finishes it with the sum."""
    _write("bot.py", BOT.replace('Path("inside")', "Path(sys.argv[1])"))
    bots = [subprocess.Popen([sys.executable, "bot.py", f"inside-{number}"]) for number in range(3)]
    until(lambda: all(Path(f"inside-{number}").exists() for number in range(3)))
    Path("go-on").touch()
    assert [bot.wait(LIMIT) for bot in bots] == [0, 0, 0]
    assert _finished(sandbox) == [("Bücher 日本", 9)]


def test_ctrl_c(sandbox: Sandbox) -> None:
    """Ctrl-C on the bot's console unwinds it, and its run is finished with what was recorded."""
    _write("bot.py", BOT)
    command = [sys.executable, _write("console.py", CONSOLE)]
    flags = getattr(subprocess, "CREATE_NEW_CONSOLE", 0)  # which mypy knows on Windows only
    assert subprocess.run(command, creationflags=flags, timeout=LIMIT, check=False).returncode == 0
    assert _finished(sandbox) == [("Bücher 日本", 3)]


def test_ctrl_c_before_the_command(sandbox: Sandbox) -> None:
    """Ctrl-C that comes when the run is started and the command is not yet, ends the command and finishes the run."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    done = _done(sys.executable, _write("early.py", EARLY), "exec", "k", "--", *command)
    assert (done.returncode, done.stderr) == (1, b"")
    assert _finished(sandbox) == [("k", None)]


@pytest.mark.parametrize("code_page", ["cp1252", "cp437", "cp932", "utf-8"])
def test_code_pages(sandbox: Sandbox, code_page: str) -> None:
    """Texts that the console's code page lacks stop neither the bot's own log nor the commands."""
    text = f"import logging\nlogging.basicConfig(level='INFO')\n{BOT}"
    Path("go-on").touch()
    sandbox.fail_next("FinishRun", status=403)
    bot = _done(sys.executable, _write("bot.py", text), PYTHONIOENCODING=code_page)
    assert bot.returncode == 0
    assert b"anymate.finish_stored" in bot.stderr
    for words in (["journal"], ["check", "Bücher 日本"], ["journal", "deliver"]):
        done = _done(*COMMAND, *words, PYTHONIOENCODING=code_page)
        assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert _finished(sandbox) == [("Bücher 日本", 3)]


def test_quoting(sandbox: Sandbox) -> None:
    """A command gets its arguments as they were typed, with spaces, quotes, percent signs and other letters."""
    words = ["a b", 'say "so"', "100%", "Bücher 日本", "", "C:\\", "^&|"]
    _write("show.py", "import json, pathlib, sys; pathlib.Path('words.json').write_text(json.dumps(sys.argv[1:]))")
    assert _exec(sys.executable, "show.py", *words).returncode == 0
    assert json.loads(Path("words.json").read_text(encoding="ascii")) == words
    assert _finished(sandbox) == [("k", None)]


def test_cmd(sandbox: Sandbox) -> None:
    """A line for cmd works as there, and appends to the KPI file."""
    assert _exec("cmd", "/c", "echo entries=3>>%ANYMATE_KPI_FILE%").returncode == 0
    assert _finished(sandbox) == [("k", 3)]


def test_a_script_of_cmd(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is a `.cmd` or `.bat` on PATH is found by its name, as in a console."""
    Path("tools").mkdir()
    _write("tools/mybot.cmd", "@exit /b 7\r\n")
    monkeypatch.setenv("PATH", f"{Path('tools').absolute()}{os.pathsep}{os.environ['PATH']}")
    assert _exec("mybot").returncode == 7
    assert _finished(sandbox) == [("k", None)]


@pytest.mark.parametrize("code", [1, 255, 2**31, 0xC0000005, 2**32 - 1])
def test_exit_codes(sandbox: Sandbox, code: int) -> None:
    """Every exit code that Windows has comes out as it is."""
    text = f"import ctypes; ctypes.windll.kernel32.ExitProcess({code})"
    assert _exec(sys.executable, "-c", text).returncode == code
    assert _finished(sandbox) == [("k", None)]


def test_a_reader_that_leaves(sandbox: Sandbox) -> None:
    """Whoever reads what a command prints may leave early: that is no traceback."""
    Path("go-on").touch()
    sandbox.fail_next("FinishRun", status=403, times=2)
    _done(sys.executable, _write("bot.py", BOT))
    with subprocess.Popen(
        [*COMMAND, "journal", "--json"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_a_damaged_journal_that_is_held_open(sandbox: Sandbox) -> None:
    """A damaged journal that another program holds open can't be moved, and the warning does not say that it was."""
    folder = Path(os.environ["ANYMATE_STATE_DIR"])
    folder.mkdir()
    file = folder / "journal.sqlite3"
    file.write_bytes(b"no database" * 1000)
    Path("go-on").touch()
    with file.open("rb"):
        bot = _done(sys.executable, _write("bot.py", BOT))
    assert bot.returncode == 0
    assert b"anymate.journal_unavailable" in bot.stderr
    assert b"it was moved to" not in bot.stderr
    assert _finished(sandbox) == [("Bücher 日本", 3)]


def test_lines_of_the_sandbox(sandbox: Sandbox) -> None:
    """The sandbox prints lines for PowerShell and for cmd; those for cmd point a bot at it."""
    with subprocess.Popen(
        [*COMMAND, "sandbox", "--port", "0"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        lines = [line.strip() for line in islice(filter(str.strip, server.stdout), 14)]
        powershell, cmd = lines[lines.index("PowerShell:") + 1 :][:6], lines[lines.index("Command Prompt:") + 1 :][:6]
        assert [line.split()[0] for line in powershell] == [f"$env:ANYMATE_{name}" for name in NAMES]
        _write("check.cmd", "\r\n".join(["@echo off", *cmd, f'"{sys.executable}" -m anymate_guard check k']))
        done = _done("cmd", "/c", "check.cmd", ANYMATE_CLIENT_ID="", ANYMATE_API_URL="")
        server.terminate()
    assert done.returncode == 0, done.stdout


def test_the_demo_leaves_nothing(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's folder for temporary files is gone afterwards."""
    Path("temp").mkdir()
    done = _done(*COMMAND, "demo", TEMP=str(Path("temp").absolute()), TMP=str(Path("temp").absolute()))
    assert done.returncode == 0, done.stderr
    assert list(Path("temp").iterdir()) == []


def test_a_state_folder_that_is_none(sandbox: Sandbox) -> None:
    """A state folder that Windows can't make stops no bot."""
    Path("go-on").touch()
    for folder in ("?*", "NUL", r"\\nowhere\share\state", "Z:\\no\\such<folder>"):
        assert _done(sys.executable, _write("bot.py", BOT), ANYMATE_STATE_DIR=folder).returncode == 0
    assert _finished(sandbox) == [("Bücher 日本", 3)] * 4


def test_the_proxy_of_windows(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that is set in Windows, where no variable names one, is used."""
    for name in [name for name in os.environ if name.endswith("_PROXY")]:
        monkeypatch.delenv(name)
    settings = (r"HKCU\Software\Microsoft\Windows\CurrentVersion\Internet Settings", "/f", "/v")
    with ForwardProxy() as proxy, client_of(sandbox) as client:
        _done("reg", "add", *settings, "ProxyServer", "/d", proxy.address)
        _done("reg", "add", *settings, "ProxyEnable", "/t", "REG_DWORD", "/d", "1")
        try:
            client.start_run("k")
        finally:
            _done("reg", "delete", *settings, "ProxyEnable")
            _done("reg", "delete", *settings, "ProxyServer")
    assert [line for line, _ in proxy.requests] == [f"POST {sandbox.url}/connect/token HTTP/1.1"]

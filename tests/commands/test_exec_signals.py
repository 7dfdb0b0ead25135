"""`anymate-guard exec`: signals, at any time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST, until

from .support import COMMAND, ended, journal, recorded, started, under_way

if sys.platform == "win32":
    pytest.skip("signals are another matter there", allow_module_level=True)

STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]
OTHERS = [signal.SIGUSR1, signal.SIGUSR2]

COUNT = """
import os, select, signal, sys
caught = []
def catch(number, _):
    caught.append(number)
    os.write(1, b"%d\\n" % number)
woken, wake = os.pipe()
os.set_blocking(wake, False)
signal.set_wakeup_fd(wake)  # else one that comes just before a read that waits is seen when that ends
for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
    signal.signal(getattr(signal, name), catch)
print("ready", flush=True)
while 0 not in select.select([0, woken], [], [])[0]:
    os.read(woken, 100)
sys.exit(len(caught))
"""


def test_supervisor_that_waits_for_no_child(sandbox: Sandbox) -> None:
    """The exit code is the command's own also where SIGCHLD is ignored by whoever starts `exec`."""
    words = [*COMMAND, "exec", "jobs", "--", "sh", "-c", "exit 3"]
    text = f"import os, signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv({words[0]!r}, {words!r})"
    assert subprocess.run([sys.executable, "-c", text], check=False, timeout=LONGEST).returncode == 3
    assert recorded(sandbox) == [(None, None)]


@pytest.mark.parametrize("number", [*STOPS, *OTHERS])
def test_passed_on(sandbox: Sandbox, number: signal.Signals) -> None:
    """A signal goes to the command, which decides what becomes of it; the run is finished at its own end."""
    with started("exec", "jobs", "--", sys.executable, "-c", COUNT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(2):
            process.send_signal(number)
            assert process.stdout.readline() == f"{int(number)}\n"
        assert not sandbox.runs()[0]["finished"]
        out, err = process.communicate("go on\n", timeout=LONGEST)
    assert (process.returncode, out, err) == (2, "", "")
    assert recorded(sandbox) == [(None, None)]


@pytest.mark.parametrize("number", STOPS)
def test_command_that_it_ends(sandbox: Sandbox, number: signal.Signals) -> None:
    """A command that the signal ends gives 128 and its number; being interrupted is no failure to report."""
    script = "echo entries=3 >> $ANYMATE_KPI_FILE; echo ready; exec sleep 60"
    with started("exec", "--report-failure", "jobs", "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        process.communicate(timeout=LONGEST)
    assert process.returncode == 128 + number
    assert recorded(sandbox) == [(3, None)]
    assert sandbox.failures() == []


def test_failure_after_a_signal_that_is_no_stop(sandbox: Sandbox) -> None:
    """SIGUSR1 means what the command takes it for: a failure is reported after it, too."""
    script = "trap 'echo caught' USR1; echo ready; read line; read line; exit 3"
    with started("exec", "--report-failure", "jobs", "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "caught\n"
        process.communicate("go\non\n", timeout=LONGEST)
    assert process.returncode == 3
    assert [failure["message"] for failure in sandbox.failures()] == ["'sh' ended with exit code 3"]


def test_command_that_ends_well_all_the_same(sandbox: Sandbox) -> None:
    """A command that cleans up and ends with 0 after a signal has succeeded."""
    script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done"
    with started("exec", "--default-credit=succeeded", "jobs", "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        process.communicate(timeout=LONGEST)
    assert process.returncode == 0
    assert recorded(sandbox) == [(None, None)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_before_the_command(sandbox: Sandbox, tmp_path: Path, number: signal.Signals, code: int) -> None:
    """A signal while the run is being started ends `exec` at once, and the command is not run."""
    sandbox.fail_next("StartRun", hang=True)
    with started("exec", "jobs", "--", "touch", tmp_path / "marker") as process:
        until(lambda: under_way(sandbox, "StartRun"))
        process.send_signal(number)
        _, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, err) == (code, "")
    assert not (tmp_path / "marker").exists()
    assert journal() == []


@pytest.mark.parametrize("number", STOPS)
def test_while_finishing(sandbox: Sandbox, number: signal.Signals) -> None:
    """A signal after the command's end waits for the finish, and leaves the exit code alone."""
    sandbox.fail_next("FinishRun", delay=0.5)
    with started("exec", "jobs", "--", "sh", "-c", "exit 3") as process:
        until(lambda: under_way(sandbox, "FinishRun"))
        process.send_signal(number)
        _, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, err) == (3, "")
    assert recorded(sandbox) == [(None, None)]


@pytest.mark.parametrize("number", OTHERS)
def test_often_while_finishing(sandbox: Sandbox, number: signal.Signals) -> None:
    """A signal that is no stop may come after the command's end as often as it likes."""
    sandbox.fail_next("FinishRun", delay=0.5)
    with started("exec", "jobs", "--", "sh", "-c", "exit 3") as process:
        until(lambda: under_way(sandbox, "FinishRun"))
        while under_way(sandbox, "FinishRun"):
            process.send_signal(number)
        _, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, err) == (3, "")
    assert recorded(sandbox) == [(None, None)]


def test_twice_while_finishing(sandbox: Sandbox) -> None:
    """A second signal leaves at once, and the finish is in the journal."""
    sandbox.fail_next("FinishRun", hang=True)
    patience = {"ANYMATE_TIMEOUT": "1000", "ANYMATE_DEADLINE": "1000"}
    command = ["sh", "-c", "echo entries=3 >> $ANYMATE_KPI_FILE"]
    with started("exec", "jobs", "--", *command, **patience) as process:
        until(lambda: under_way(sandbox, "FinishRun"))

        def stopped() -> bool:
            process.terminate()  # the same one within half a second is no second one
            return process.poll() is not None

        until(stopped)
    assert process.returncode == -signal.SIGTERM
    until(lambda: ended("journal", "deliver").returncode == 0)  # a folder that is new gives its owners a second
    assert recorded(sandbox) == [(3, None)]


def changed(text: str, *command: str) -> int:
    """Run a command with `exec` in a program that was changed before; its exit code."""
    end = "from anymate_guard.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    program = f"import signal, subprocess, sys\n{text}\n{end}"
    words = [sys.executable, "-c", program, "exec", "jobs", "--", *command]
    return subprocess.run(words, timeout=LONGEST, check=False).returncode


def test_in_between(sandbox: Sandbox) -> None:
    """A signal that comes when the run is started and the command is not yet, reaches the command."""
    late = """
class Late(subprocess.Popen):
    def __init__(self, *args, **more):
        signal.raise_signal(signal.SIGTERM)
        super().__init__(*args, **more)
subprocess.Popen = Late
"""
    assert changed(late, "sleep", "60") == 143
    assert recorded(sandbox) == [(None, None)]


@pytest.mark.parametrize("again", [1, 2, 3])
def test_the_same_signal_to_the_process_and_to_its_group(sandbox: Sandbox, again: int) -> None:
    """The same signal again within half a second is no second one: `timeout` sends it to `exec` and to its group."""
    often = f"""
from anymate_guard import AnymateClient
finish = AnymateClient.finish_run
def finish_run(*args, **more):
    for _ in range({again}):
        signal.raise_signal(signal.SIGTERM)
    return finish(*args, **more)
AnymateClient.finish_run = finish_run
"""
    assert changed(often, "sh", "-c", "exit 3") == 3
    assert recorded(sandbox) == [(None, None)]


def test_ignored(sandbox: Sandbox) -> None:
    """A signal that is ignored, as SIGHUP under nohup, stays so for `exec` and for the command."""
    script = "trap '' HUP; exec \"$@\""
    command = "echo ready; read line; exit 4"
    with subprocess.Popen(
        ["sh", "-c", script, "sh", *COMMAND, "exec", "jobs", "--", "sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGHUP)
        process.communicate("go on\n", timeout=LONGEST)
    assert process.returncode == 4
    assert recorded(sandbox) == [(None, None)]


def test_ctrl_c_at_a_terminal(sandbox: Sandbox) -> None:
    r"""A Ctrl-C or Ctrl-\ that the terminal has given to the command is not passed on a second time; SIGTERM is."""
    own, its = os.openpty()
    take_terminal = (
        "import fcntl, os, sys, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\nos.execv(sys.executable, sys.argv[1:])\n"
    )
    command = [*COMMAND, "exec", "--report-failure", "jobs", "--", sys.executable, "-c", COUNT]
    with subprocess.Popen(
        [sys.executable, "-c", take_terminal, *command],
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    ) as process:
        os.close(its)
        with os.fdopen(own, "r+b", buffering=0) as terminal:
            read_until(terminal.fileno(), b"ready")
            process.send_signal(signal.SIGSTOP)  # two that come at the same moment would count as one
            terminal.write(b"\x03")
            read_until(terminal.fileno(), b"2\r\n")
            terminal.write(b"\x1c")
            read_until(terminal.fileno(), b"3\r\n")
            process.send_signal(signal.SIGCONT)
            process.terminate()
            read_until(terminal.fileno(), b"15\r\n")
            terminal.write(b"go on\n")
            process.wait(LONGEST)
    assert process.returncode == 3
    assert recorded(sandbox) == [(None, None)]
    assert sandbox.failures() == []


def read_until(file: int, expected: bytes) -> None:
    """Read from a terminal until something appears."""
    seen = b""
    while expected not in seen:
        seen += os.read(file, 1)

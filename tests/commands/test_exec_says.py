"""What `anymate-guard exec` says: the last words of a command that failed, log lines, and nothing at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST

from .support import COMMAND, ended, needs_sh, recorded, started

pytestmark = needs_sh


def run(script: str, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in `exec`."""
    return ended("exec", *options, "jobs", "--", "sh", "-c", script, **environ)


def reported(sandbox: Sandbox) -> list[str]:
    """What people read in Anymate."""
    return [failure["message"] for failure in sandbox.failures()]


def test_last_words(sandbox: Sandbox) -> None:
    """The last ten lines on stderr go into the failure's message, and all of it to stderr as it is."""
    script = r"""
        for n in 1 2 3 4 5 6 7 8 9; do echo line $n >&2; done
        printf '50 %%\r100 %%\n\n\033[31mno such invoice: \303\246\033[0m\r\n' >&2; printf 'the end' >&2; exit 3
    """
    done = run(script, "--report-failure")
    assert done.returncode == 3
    numbered = [f"line {n}" for n in range(1, 10)]
    shown = "50 %\n100 %\n\n\033[31mno such invoice: æ\033[0m\nthe end"  # as Python reads the ends of lines
    assert done.stderr == "\n".join(numbered) + "\n" + shown
    last = "\n".join([*numbered[2:], "100 %", "no such invoice: æ", "the end"])
    assert reported(sandbox) == [f"'sh' ended with exit code 3: {last}"]


def test_last_words_hold_no_secret(sandbox: Sandbox) -> None:
    """A password that the command wrote to stderr is masked in what Anymate is told."""
    run('echo "login with $SECRET" >&2; exit 3', "--report-failure", SECRET=sandbox.environ["ANYMATE_PASSWORD"])
    assert reported(sandbox) == ["'sh' ended with exit code 3: login with ***"]


def test_no_last_words(sandbox: Sandbox) -> None:
    """Without `--report-failure` stderr is the command's own, also a terminal; of a success nothing is reported."""
    assert run("echo no >&2", "--report-failure").stderr == "no\n"
    assert reported(sandbox) == []
    same = 'test "$(readlink /proc/self/fd/2)" = "$(readlink /proc/$PPID/fd/2)" && echo same'
    assert run(same).stdout == "same\n"


@pytest.mark.skipif(sys.platform == "win32", reason="has no fifos")
def test_a_program_left_behind(sandbox: Sandbox, tmp_path: Path) -> None:
    """A program that the command leaves behind keeps `exec` from nothing, and can write to stderr ever after."""
    os.mkfifo(tmp_path / "fifo")
    left_behind = f"read line <{tmp_path}/fifo; echo late >&2; echo later >&2; touch {tmp_path}/alive"
    script = f"echo no >&2; ({left_behind}) >/dev/null & exit 3"
    with started("exec", "--report-failure", "jobs", "--", "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == ""  # nothing holds it any more
        assert process.wait(LONGEST) == 3
        assert reported(sandbox) == ["'sh' ended with exit code 3: no"]
        (tmp_path / "fifo").write_text("go on\n")
        assert process.stderr.read() == "no\nlate\nlater\n"
    assert (tmp_path / "alive").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="nobody can see there what a pipe holds")
@pytest.mark.parametrize("code", [0, 3])
def test_a_late_reader(sandbox: Sandbox, code: int) -> None:
    """Whoever reads stderr only long after the command's end finds all of it, and so does Anymate."""
    script = f"yes no | head -n 40000 >&2; echo the end >&2; exit {code}"
    with started("exec", "--report-failure", "jobs", "--", "sh", "-c", script) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        assert process.stderr is not None
        assert process.stderr.read() == "no\n" * 40000 + "the end\n"
        assert process.wait(LONGEST) == code
    assert [message.endswith("\nno\nthe end") for message in reported(sandbox)] == [True] * (code != 0)


@pytest.mark.skipif(sys.platform == "win32", reason="nobody can change there how others write to a pipe")
def test_stderr_that_does_not_wait(sandbox: Sandbox) -> None:
    """All comes through, also where the command lets nobody wait for what it shares with `exec`, as node does."""
    script = "import os; os.set_blocking(1, False); [os.write(2, b'no\\n' * 10_000) for _ in range(10)]"
    command = [*COMMAND, "exec", "--report-failure", "jobs", "--", sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        assert process.stdout is not None
        assert process.stdout.read() == "no\n" * 100_000
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_last_words_in_a_terminal(sandbox: Sandbox) -> None:
    """A terminal is left to the command, also with `--report-failure`: people have seen its last words there."""
    from tests.support.screen import screen

    script = "test -t 2 && echo a terminal >&2; exit 3"
    with screen("exec", "--report-failure", "jobs", "--", "sh", "-c", script) as shown:
        assert shown.ended() == 3
    assert shown.lines == ["a terminal"]
    assert reported(sandbox) == ["'sh' ended with exit code 3"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_last_words_that_nobody_reads(sandbox: Sandbox) -> None:
    """A stderr that is closed, or whose reader has left, keeps the command neither from its work nor from its end."""
    script = "yes no | head -n 300000 >&2; exit 3"
    command = [*COMMAND, "exec", "--report-failure", "jobs", "--", "sh", "-c", script]
    closed = subprocess.run(["sh", "-c", 'exec "$@" 2>&-', "sh", *command], timeout=LONGEST, check=False)
    assert closed.returncode == 3
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(LONGEST) == 3
    assert [message.count("\nno") for message in reported(sandbox)] == [9, 9]


def test_verbose(sandbox: Sandbox) -> None:
    """`-v` prints the guard's log lines as they come, for people or, with `--log-format json`, for programs."""
    with started("exec", "-v", "jobs", "--", "sh", "-c", "read line") as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert re.match(r"\d\d:\d\d:\d\d \[info     \] anymate.run_started process_key=jobs run_id=\d+$", line.rstrip())
        process.communicate("go on\n", timeout=LONGEST)
    done = run("exit 3", "-v", "--log-format", "json")
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("anymate.run_started", "info"),
        ("anymate.run_finished", "info"),
    ]
    assert lines[1]["outcome"] == "failed"


def test_log_format(sandbox: Sandbox) -> None:
    """`--log-format` alone prints warnings and errors as they come, in place of the line at the end."""
    sandbox.fail_next("FinishRun", status=401, times=2)
    done = run("exit 0", "--log-format", "json")
    (line,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["event"], line["level"], line["process_key"]) == ("anymate.finish_stored", "warning", "jobs")


def test_quiet(sandbox: Sandbox) -> None:
    """`-q` says nothing of trouble that can wait; what keeps the command from being run is said."""
    sandbox.fail_next("FinishRun", status=401, times=9)
    assert run("exit 0", "-q").stderr == ""
    assert run("exit 0", "-q", "--log-format", "json").stderr == ""
    sandbox.set_process("jobs", stopped=True)
    assert run("exit 0", "-q", "--check-ok-to-run").stderr == ""
    assert "ANYMATE_PASSWORD: is missing" in run("exit 0", "-q", ANYMATE_PASSWORD="").stderr
    assert "can't run 'nothing'" in ended("exec", "-q", "jobs", "nothing").stderr


def test_quiet_about_no_loss(sandbox: Sandbox, tmp_path: Path) -> None:
    """`-q` says what can't wait: KPIs that were refused or lost, with the run that they are of."""
    count = "echo entries=5 >> $ANYMATE_KPI_FILE"
    sandbox.fail_next("FinishRun", status=400)
    refused = run(count, "-q").stderr
    assert "finish refused: " in refused
    (seen,) = sandbox.runs()
    assert refused.endswith(f"process_key=jobs run_id={seen['runId']} entries=5\n")
    sandbox.close()
    nowhere = tmp_path / "file"
    nowhere.touch()
    lost = run(count, "-q", ANYMATE_STATE_DIR=str(nowhere), ANYMATE_DEADLINE="5").stderr
    assert "finish lost: " in lost
    assert lost.endswith("process_key=jobs entries=5\n")


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_terminal(sandbox: Sandbox) -> None:
    """In a terminal log lines have colours, unless `NO_COLOR` forbids them."""
    from tests.support.screen import screen

    with screen("exec", "-v", "jobs", "true") as shown:
        assert shown.ended() == 0
    assert shown.colours
    with screen("exec", "-v", "jobs", "true", NO_COLOR="1") as shown:
        assert shown.ended() == 0
    assert shown.colours == set()
    assert shown.lines[0].split()[2:4] == ["]", "anymate.run_started"]


def test_guarded_bot_without_credentials(sandbox: Sandbox) -> None:
    """A guarded Python bot in `exec` hears what to do about the credentials that it was not given."""
    bot = "from anymate_guard import anymate_run\nwith anymate_run() as run:\n    run.add_entries(2)\n"
    done = ended("exec", "jobs", "--", sys.executable, "-c", bot)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-3:] == [
        "anymate_guard.errors.ConfigurationError: 2 problems:",
        "  - ANYMATE_CLIENT_SECRET: is missing; `anymate-guard exec --keep-credentials` passes it on",
        "  - ANYMATE_PASSWORD: is missing; `anymate-guard exec --keep-credentials` passes it on",
    ]
    assert recorded(sandbox) == [(None, None)]

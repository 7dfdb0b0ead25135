"""`anymate-guard exec`: exit codes, KPIs, the environment of the command, and trouble with Anymate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST, until

from .support import COMMAND, ended, journal, needs_sh, recorded, started

pytestmark = needs_sh


def run(script: str, *options: str, key: str = "jobs", **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script in `exec`."""
    return ended("exec", *options, key, "--", "sh", "-c", script, **environ)


@pytest.mark.parametrize("code", [0, 3])
def test_exit_code(sandbox: Sandbox, code: int) -> None:
    """The exit code is the command's own, and its run is finished."""
    done = run(f"exit {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert recorded(sandbox) == [(None, None)]


@pytest.mark.parametrize("number", [9, 15])
def test_ended_by_a_signal(sandbox: Sandbox, number: int) -> None:
    """A command that a signal ended gives 128 and the signal's number, as in a shell."""
    assert run(f"kill -{number} $$", "--report-failure").returncode == 128 + number
    assert recorded(sandbox) == [(None, None)]
    assert [failure["message"] for failure in sandbox.failures()] == [f"'sh' ended with exit code {128 + number}"]


def test_not_found(sandbox: Sandbox) -> None:
    """A command that is not there gives 127, and a run without credit."""
    done = ended("exec", "--report-failure", "jobs", "--", "no-such-program", "--password=x")
    assert (done.returncode, done.stdout) == (127, "")
    assert done.stderr == "anymate-guard exec: can't run 'no-such-program': No such file or directory\n"
    assert recorded(sandbox) == [(0, 0)]
    assert [failure["message"] for failure in sandbox.failures()] == [
        "can't run 'no-such-program': No such file or directory"
    ]


@pytest.mark.parametrize("content", [None, "", "neither a program nor a script"])
def test_not_executable(sandbox: Sandbox, tmp_path: Path, content: str | None) -> None:
    """A folder, a file without permission and one that is no program give 126, and a run without credit."""
    program = tmp_path / "program"
    if content is None:
        program.mkdir()
    else:
        program.write_text(content)
        program.chmod(0o700 if content else 0o600)
    done = ended("exec", "jobs", "--", program)
    assert done.returncode == 126
    assert done.stderr.startswith(f"anymate-guard exec: can't run '{program}': ")
    assert recorded(sandbox) == [(0, 0)]


def test_streams_are_the_commands_own(sandbox: Sandbox) -> None:
    """stdin, stdout and stderr belong to the command, down to its last byte."""
    copy = "import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer); sys.stderr.write('ærr')"
    given = bytes(range(256)) * 1000
    done = subprocess.run(
        [*COMMAND, "exec", "jobs", "--", sys.executable, "-X", "utf8", "-c", copy],
        input=given,
        capture_output=True,
        timeout=LONGEST,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, given, "ærr".encode())
    assert recorded(sandbox) == [(None, None)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks into /proc")
def test_descriptors(sandbox: Sandbox, tmp_path: Path) -> None:
    """The command inherits what is open above stderr, as of `make -j` or `3>log`, and nothing of ours."""
    listing = "import os; print(*[fd for fd in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{fd}')])"
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run(
            [*COMMAND, "exec", "--report-failure", "jobs", "--", sys.executable, "-c", listing],
            pass_fds=[log.fileno()],
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
        assert set(done.stdout.split()) == {"0", "1", "2", str(log.fileno())}
    assert (done.returncode, done.stderr) == (0, "")
    assert recorded(sandbox) == [(None, None)]


def test_the_commands_own_options(sandbox: Sandbox) -> None:
    """What follows the first -- goes to the command as it is, options and further -- included."""
    done = ended("exec", "jobs", "--", "printf", "%s ", "--json", "--", "-h", "--require-start", "")
    assert (done.returncode, done.stdout) == (0, "--json -- -h --require-start  ")
    assert recorded(sandbox) == [(None, None)]


@pytest.mark.parametrize("words", [["true"], ["printf", "%s ", "a", "b"]])
def test_without_dashes(sandbox: Sandbox, words: list[str]) -> None:
    """A command without options of its own needs no --."""
    done = ended("exec", "jobs", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a b " if words[1:] else "", "")
    assert recorded(sandbox) == [(None, None)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["jobs", "ls", "-l", "a b"], "put -- before a command with options: anymate-guard exec jobs -- ls -l 'a b'"),
        (["jobs"], "name the command, as in: anymate-guard exec jobs -- ./bot.sh"),
        (["a b", "--"], "name the command, as in: anymate-guard exec 'a b' -- ./bot.sh"),
        (
            ["jobs", "-q", "ls"],
            "put the options before the process key, as in: anymate-guard exec -q jobs -- ./bot.sh",
        ),
        (
            ["jobs", "--quiet", "--", "ls"],
            "put the options before the process key: --quiet stands between it and --",
        ),
        (
            ["jobs", "git", "checkout", "--", "a b"],
            "put -- before the command: anymate-guard exec jobs -- git checkout -- 'a b'",
        ),
        (["--", "true"], "the following arguments are required: PROCESS_KEY, COMMAND …"),
        (["-q", "-v", "jobs", "true"], "argument -v/--verbose: not allowed with argument -q/--quiet"),
    ],
)
def test_usage(sandbox: Sandbox, arguments: list[str], says: str) -> None:
    """Where it can't tell what the command is, it says what is missing, and exits with 2."""
    done = ended("exec", *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "usage: anymate-guard exec [OPTION …] PROCESS_KEY [--] COMMAND …",
        f"anymate-guard exec: error: {says}",
    ]
    assert recorded(sandbox) == []


def test_help() -> None:
    """`--help` tells of the KPI file, the exit codes and two examples, within 80 columns."""
    text = ended("exec", "--help", COLUMNS="80").stdout
    assert max(map(len, text.splitlines())) < 80
    for told in ("ANYMATE_KPI_FILE", "anymate-guard record entries=3", "127, 126", "  78 ", "  75 ", "128 + n"):
        assert told in text
    examples = text.partition("examples:\n")[2].splitlines()
    assert [line.split()[:2] for line in examples] == [["anymate-guard", "exec"]] * 2


def test_environment(sandbox: Sandbox) -> None:
    """The command finds its run, its process and the KPI file, and no secret."""
    secrets = {"ANYMATE_CLIENT_SECRET_FILE": "", "ANYMATE_PASSWORD_FILE": ""}
    done = run("env", ANYMATE_RUN_ID="1", ANYMATE_PROCESS_KEY="another", **secrets)
    given = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert given["ANYMATE_PROCESS_KEY"] == "jobs"
    assert given["ANYMATE_RUN_ID"] == str(sandbox.runs()[0]["runId"])
    assert given["ANYMATE_USERNAME"] == sandbox.environ["ANYMATE_USERNAME"]
    hidden = {"ANYMATE_CLIENT_SECRET", "ANYMATE_PASSWORD", *secrets}
    assert not hidden & set(given)
    assert sandbox.environ["ANYMATE_PASSWORD"] not in done.stdout
    assert not Path(given["ANYMATE_KPI_FILE"]).parent.exists()


def test_keep_credentials(sandbox: Sandbox, tmp_path: Path) -> None:
    """`--keep-credentials` leaves them in, so that a guarded bot can be run: it joins the run of `exec`."""
    file = tmp_path / "password"
    file.write_text(sandbox.environ["ANYMATE_PASSWORD"])
    bot = (
        "from anymate_guard import anymate_run\n"
        "with anymate_run() as run:\n    run.add_entries(2)\n    print(run.run_id)\n"
    )
    done = ended(
        "exec",
        "--keep-credentials",
        "jobs",
        "--",
        *(sys.executable, "-c", bot),
        ANYMATE_PASSWORD="",
        ANYMATE_PASSWORD_FILE=str(file),
    )
    assert (done.returncode, done.stdout) == (0, f"{sandbox.runs()[0]['runId']}\n")
    assert recorded(sandbox) == [(2, None)]


def test_kpis(sandbox: Sandbox) -> None:
    """Lines appended to the KPI file add up, whatever their ends and spaces are."""
    script = r"""
        printf 'entries=3\r\nseconds_saved=0.4\n\n  entries = 4 \nseconds_saved=12.1' >> $ANYMATE_KPI_FILE
        printf '\n\357\273\277entries=1\nentries=2' >> $ANYMATE_KPI_FILE
    """
    done = run(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert recorded(sandbox) == [(10, 13)]


def test_kpis_in_utf_16(sandbox: Sandbox) -> None:
    """Lines are read as old PowerShells append them, too."""
    write = (
        "import os, pathlib\n"
        "path = pathlib.Path(os.environ['ANYMATE_KPI_FILE'])\n"
        "with path.open('ab') as file:\n"
        "    file.write('entries=3\\r\\nentries=4\\r\\n'.encode('utf-16'))\n"
    )
    done = ended("exec", "jobs", "--", sys.executable, "-c", write)
    assert (done.returncode, done.stderr) == (0, "")
    assert recorded(sandbox) == [(7, None)]


def test_bad_kpis(sandbox: Sandbox) -> None:
    """A bad line is reported with its number and skipped; it changes neither the exit code nor the others."""
    lines = [
        "entries=1",
        "entries=-1",
        "entries=2.5",
        "seconds_saved=nan",
        "",
        "Entries=5",
        "entries",
        r"\377",
        "entries=9",
    ]
    done = run("\n".join(f"printf '{line}\\n' >> $ANYMATE_KPI_FILE" for line in lines))
    assert done.returncode == 0
    assert [line.split(":")[1].split(",")[0].strip() for line in done.stderr.splitlines()] == [
        f"skipped line {number} of ANYMATE_KPI_FILE"
        for number in (3, 4, 5, 7, 8, 9)  # the first is ours
    ]
    assert "'entries=2.5': '2.5' is not a whole number" in done.stderr
    assert "'seconds_saved=nan': seconds saved must be a finite number, got nan" in done.stderr
    assert recorded(sandbox) == [(10, None)]


def test_no_place_for_kpis(sandbox: Sandbox) -> None:
    """Where no temporary file can be made, the command runs all the same, and a line says so."""
    program = (
        "import sys, tempfile\ntempfile.tempdir = '/dev/null'\n"
        "from anymate_guard.__main__ import main\nsys.exit(main(sys.argv[1:]))\n"
    )
    command = ["exec", "jobs", "--", "sh", "-c", "echo entries=3 >> $ANYMATE_KPI_FILE; exit 3"]
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("anymate-guard exec: the command can't report KPIs, ")
    assert recorded(sandbox) == [(None, None)]


def test_kpis_survive_a_kill(sandbox: Sandbox) -> None:
    """KPIs are in the journal while the command runs, so that kill -9 loses none that are a second old."""
    with started("exec", "jobs", "--", "sh", "-c", "echo entries=3 >> $ANYMATE_KPI_FILE; read line") as process:
        rows = until(lambda: [row for row in journal() if row["entries"] is not None])
        assert [(row["state"], row["entries"]) for row in rows] == [("open", 3)]
        process.kill()
    assert [(row["state"], row["entries"]) for row in journal()] == [("owed", 3)]
    assert run("echo entries=4 >> $ANYMATE_KPI_FILE").returncode == 0
    assert recorded(sandbox) == [(7, None)]


def test_anymate_is_unreachable(sandbox: Sandbox) -> None:
    """An outage leaves exit code and output alone, is told in one line, and the finish is not lost."""
    sandbox.close()
    done = run("echo out; echo entries=3 >> $ANYMATE_KPI_FILE; env | grep RUN_ID; exit 5", ANYMATE_DEADLINE="5")
    assert (done.returncode, done.stdout) == (5, "out\n")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("anymate-guard exec: trouble with Anymate: ")
    assert "start deferred" in done.stderr
    assert "finish stored" in done.stderr
    sandbox.start()
    assert ended("journal", "deliver").returncode == 0
    assert recorded(sandbox) == [(3, None)]


def test_require_start(sandbox: Sandbox, tmp_path: Path) -> None:
    """`--require-start` exits with 75 and does not run the command while Anymate is unreachable."""
    sandbox.fail_next("StartRun", status=503, times=100)
    done = run(f"touch {tmp_path}/marker", "--require-start", ANYMATE_DEADLINE="5")
    assert (done.returncode, done.stdout) == (75, "")
    assert "HTTP 503" in done.stderr
    assert done.stderr.endswith("The command was not run.\n")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(("code", "expected"), [(0, 75), (3, 3)])
def test_require_finish(sandbox: Sandbox, code: int, expected: int) -> None:
    """`--require-finish` exits with 75 if the command succeeded and the finish is owed."""
    sandbox.fail_next("FinishRun", status=503, times=100)
    done = run(f"exit {code}", "--require-finish", ANYMATE_DEADLINE="5")
    assert done.returncode == expected
    assert [row["state"] for row in journal()] == ["owed"]
    assert len(done.stderr.splitlines()) == 1


def test_finish_that_is_refused(sandbox: Sandbox) -> None:
    """A finish that is refused for good is told with its KPIs; it is not owed, so the exit code stays."""
    sandbox.fail_next("FinishRun", status=400)
    done = run("echo entries=3 >> $ANYMATE_KPI_FILE", "--require-finish")
    assert done.returncode == 0
    assert "finish refused" in done.stderr
    assert "entries=3" in done.stderr
    assert [row["state"] for row in journal()] == ["refused"]


@pytest.mark.parametrize(
    ("settings", "key", "said"),
    [
        ({"ANYMATE_USERNAME": "", "ANYMATE_PASSWORD": ""}, "jobs", "ANYMATE_PASSWORD: is missing"),
        ({"ANYMATE_TIMEOUT": "soon"}, "jobs", "'soon'"),
        ({"ANYMATE_PASSWORD": "wrong"}, "jobs", "check ANYMATE_USERNAME and ANYMATE_PASSWORD"),
        ({}, "unknown", "no process 'unknown'"),
        ({}, " ", "must not be blank"),
    ],
)
def test_guarded_run_is_impossible(
    sandbox: Sandbox, tmp_path: Path, settings: dict[str, str], key: str, said: str
) -> None:
    """Wrong settings, refused credentials and an unknown process exit with 78, before the command is run."""
    for route in ("StartRun", "StartOrGetRun"):
        sandbox.fail_next(route, status=404, process_key="unknown")
    done = run(f"touch {tmp_path}/marker", key=key, **settings)
    assert (done.returncode, done.stdout) == (78, "")
    assert said in done.stderr
    assert done.stderr.endswith("The command was not run.\n")
    assert not (tmp_path / "marker").exists()
    assert recorded(sandbox) == []


def test_not_ok_to_run(sandbox: Sandbox, tmp_path: Path) -> None:
    """`--check-ok-to-run` runs nothing while the process is stopped, says so, and exits with 0."""
    sandbox.set_process("jobs", stopped=True)
    done = run(f"touch {tmp_path}/marker", "--check-ok-to-run")
    assert (done.returncode, done.stdout) == (0, "")
    assert "the process is stopped" in done.stderr
    assert done.stderr.endswith("The command was not run.\n")
    assert not (tmp_path / "marker").exists()
    assert recorded(sandbox) == []
    sandbox.set_process("jobs", stopped=False)
    run(f"touch {tmp_path}/marker", "--check-ok-to-run")
    assert (tmp_path / "marker").exists()


def test_failures(sandbox: Sandbox) -> None:
    """`--report-failure` and `--default-credit=succeeded` are about failed commands only."""
    options = ("--report-failure", "--default-credit=succeeded")
    run("exit 0", *options)
    assert sandbox.failures() == []
    run("echo entries=2 >> $ANYMATE_KPI_FILE; exit 3", *options)
    assert [failure["message"] for failure in sandbox.failures()] == ["'sh' ended with exit code 3"]
    assert recorded(sandbox) == [(None, None), (2, 0)]


def test_disabled(sandbox: Sandbox) -> None:
    """With ANYMATE_DISABLED the command runs, and nothing is called."""
    done = run("echo $ANYMATE_PROCESS_KEY $ANYMATE_RUN_ID; exit 3", ANYMATE_DISABLED="1", ANYMATE_PASSWORD="")
    assert (done.returncode, done.stdout, done.stderr) == (3, "jobs\n", "")
    assert sandbox.requests() == []

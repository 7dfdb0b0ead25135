"""`anymate-guard check`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox
from tests.support import faults
from tests.support.proxy import Fault, FaultProxy
from tests.support.waiting import LONGEST

from .support import COMMAND, ended, journal, needs_sh

WRONG_LOGIN = "credentials: token was refused by Anymate (HTTP 400): check"


def checked(*arguments: str, code: int, **environ: str) -> list[str]:
    """The lines that `check` prints."""
    done = ended("check", *arguments, **environ)
    assert (done.returncode, done.stderr) == (code, ""), done.stdout
    return done.stdout.splitlines()


def marked(lines: list[str], mark: str = "✗") -> list[str]:
    """The lines with a mark, without it, and with the remedy on the next line."""
    joined = "\n".join(lines).replace("\n    ", "; ").splitlines()
    return [line[2:] for line in joined if line.startswith(f"{mark} ")]


def test_all_is_right(sandbox: Sandbox, tmp_path: Path) -> None:
    """Right settings are a tick each, with where they came from and no secret, and a verdict; no run is started."""
    secret = tmp_path / "secret"
    secret.write_text(sandbox.environ["ANYMATE_CLIENT_SECRET"])
    lines = checked("jobs", code=0, ANYMATE_CLIENT_SECRET="", ANYMATE_CLIENT_SECRET_FILE=str(secret))
    assert lines == [
        "✓ ANYMATE_CLIENT_ID: sandbox (environment)",
        f"✓ ANYMATE_CLIENT_SECRET: is set, and not shown (file {secret})",
        "✓ ANYMATE_USERNAME: mate@sandbox (environment)",
        "✓ ANYMATE_PASSWORD: is set, and not shown (environment)",
        f"✓ ANYMATE_API_URL: {sandbox.url} (environment)",
        f"✓ ANYMATE_AUTH_URL: {sandbox.url} (environment)",
        "✓ ANYMATE_PROCESS_KEY: not set",
        "✓ ANYMATE_TIMEOUT: 10 (default)",
        "✓ ANYMATE_DEADLINE: 30 (default)",
        f"✓ ANYMATE_STATE_DIR: {tmp_path / 'state'} (environment)",
        "✓ ANYMATE_HANDLE_SIGNALS: 1 (default)",
        "✓ ANYMATE_DISABLED: 0 (default)",
        f"✓ API address: {sandbox.url} can be reached",
        f"✓ login address: {sandbox.url} can be reached",
        "✓ credentials: accepted for mate@sandbox",
        "✓ process: jobs is OK to run",
        f"✓ journal: {tmp_path / 'state' / 'journal.sqlite3'} can be written; 0 open, 0 owed",
        "All is well.",
    ]
    assert sandbox.runs() == []


def test_json(sandbox: Sandbox) -> None:
    """`--json` says the same for programs."""
    done = ended("check", "--json", ANYMATE_PROCESS_KEY="jobs")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr, answer["ok"], answer["verdict"]) == (0, "", True, "All is well.")
    assert {line["state"] for line in answer["checks"]} == {"ok"}
    assert answer["checks"][0] == {
        "check": "ANYMATE_CLIENT_ID",
        "state": "ok",
        "says": "sandbox",
        "source": "environment",
        "remedy": "",
    }
    assert sandbox.environ["ANYMATE_PASSWORD"] not in done.stdout
    done = ended("check", "--json", ANYMATE_PASSWORD="")
    assert (done.returncode, json.loads(done.stdout)["ok"]) == (1, False)


def test_settings_are_missing(sandbox: Sandbox, tmp_path: Path) -> None:
    """Each wrong setting is a cross with what is wrong and what to do; Anymate is not asked then."""
    lines = checked(
        code=1,
        ANYMATE_CLIENT_SECRET="",
        ANYMATE_CLIENT_SECRET_FILE=str(tmp_path / "nowhere"),
        ANYMATE_PASSWORD="",
        ANYMATE_AUTH_URL="",
        ANYMATE_TIMEOUT="soon",
    )
    nowhere = tmp_path / "nowhere"
    cause = f"can't read '{nowhere}': No such file or directory"
    half = "is missing while ANYMATE_API_URL is set"
    no_number = "must be a number of seconds above 0 and at most 86400, got 'soon'"
    assert marked(lines) == [
        f"ANYMATE_CLIENT_SECRET: ANYMATE_CLIENT_SECRET_FILE: {cause} (file {nowhere}); correct it",
        "ANYMATE_PASSWORD: is missing; set it or ANYMATE_PASSWORD_FILE (the mate's own login)",
        f"ANYMATE_AUTH_URL: {half}; set both or neither",
        f"ANYMATE_TIMEOUT: {no_number} (environment); correct it",
    ]
    assert "✓ ANYMATE_USERNAME: mate@sandbox (environment)" in lines
    assert lines[-3:] == [
        "– Anymate: was not asked, as the settings are wrong",
        "– journal: was not checked, as the settings are wrong",
        "4 things are wrong: a guard would not work as it should.",
    ]
    assert sandbox.requests() == []


def test_wrong_value_is_shown_whole(sandbox: Sandbox) -> None:
    """A value that is wrong is quoted as it is, whatever stands in it."""
    (found,) = marked(checked(code=1, ANYMATE_TIMEOUT="soon; or later"))
    cause = "must be a number of seconds above 0 and at most 86400, got 'soon; or later'"
    assert found == f"ANYMATE_TIMEOUT: {cause} (environment); correct it"


@pytest.mark.skipif(sys.platform == "win32", reason="has no such files")
def test_secret_that_never_ends(sandbox: Sandbox, tmp_path: Path) -> None:
    """A secret in a file or a pipe that never ends is a cross that says so, and no hang."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)  # somebody might still write to it
    for place, why in (("/dev/zero", "it is longer than 65536 bytes"), (pipe, "it did not end in time")):
        environ = {"ANYMATE_PASSWORD": "", "ANYMATE_PASSWORD_FILE": str(place), "ANYMATE_TIMEOUT": "0.5"}
        (line,) = marked(checked(code=1, **environ))
        assert line.startswith(f"ANYMATE_PASSWORD: ANYMATE_PASSWORD_FILE: can't read '{place}': {why}")
    os.close(writer)


def test_misspelt_settings(sandbox: Sandbox) -> None:
    """A variable that looks like a setting is warned of, with the nearest one; those that `exec` sets are known."""
    wrong_case = ["anymate_timeout: is not a setting, and has no effect; did you mean ANYMATE_TIMEOUT?"]
    if sys.platform == "win32":  # where the case of a variable's name is nothing
        wrong_case = []
    lines = checked(
        code=0,
        ANYMATE_DEADLNE="5",
        ANYMATE_PASSWORD_FIEL="/run/secrets/password",
        anymate_timeout="5",
        ANYMATE_RUN_ID="75616",
        ANYMATE_KPI_FILE="/tmp/kpis",
        ANYMATE_TENANT="ours",
    )
    assert marked(lines, "!") == [
        "ANYMATE_DEADLNE: is not a setting, and has no effect; did you mean ANYMATE_DEADLINE?",
        "ANYMATE_PASSWORD_FIEL: is not a setting, and has no effect; did you mean ANYMATE_PASSWORD_FILE?",
        *wrong_case,
    ]
    assert lines[-1] == f"It works, but {2 + len(wrong_case)} things should be looked at."


def test_unreachable(sandbox: Sandbox) -> None:
    """An address that can't be reached is a cross with the variable to look at, API and login told apart."""
    sandbox.close()
    lines = checked("jobs", code=1)
    found = marked(lines)
    assert len(found) == 2
    names = (("API", "ANYMATE_API_URL"), ("login", "ANYMATE_AUTH_URL"))
    for line, (what, name) in zip(found, names, strict=True):
        assert line.startswith(f"{what} address: {sandbox.url}: ")
        assert "Connection refused" in line
        assert line.endswith(f"; check {name}, the network and HTTPS_PROXY")
    assert "– credentials: were not tried, as an address can't be reached" in lines


def test_unreachable_cloud(sandbox: Sandbox) -> None:
    """In the cloud, the variable to look at is the client id, of which the addresses are made; or the proxy."""
    proxy = {
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "NO_PROXY": "",
        "no_proxy": "",
    }
    lines = checked(code=1, ANYMATE_API_URL="", ANYMATE_AUTH_URL="", **proxy)
    assert "✓ ANYMATE_API_URL: https://sandbox.anymate.app (default)" in lines
    assert [line.rpartition("; ")[2] for line in marked(lines)] == [
        "check ANYMATE_CLIENT_ID, the network and HTTPS_PROXY"
    ] * 2


@pytest.mark.parametrize(
    ("fields", "remedy"),
    [
        ({"ANYMATE_PASSWORD": "wr0ng"}, "use the mate's own login, not yours"),
        ({"ANYMATE_CLIENT_SECRET": "wr0ng"}, "copy both from Anymate: Settings → Api Key"),
    ],
)
def test_credentials_are_refused(sandbox: Sandbox, fields: dict[str, str], remedy: str) -> None:
    """Refused credentials are a cross that names the wrong pair, and where it comes from; no secret is shown."""
    lines = checked("jobs", code=1, **fields)
    (name,) = fields
    (line,) = marked(lines)
    other = {"ANYMATE_PASSWORD": "ANYMATE_USERNAME", "ANYMATE_CLIENT_SECRET": "ANYMATE_CLIENT_ID"}[name]
    assert line.startswith(f"{WRONG_LOGIN} {other} and {name}: ")
    assert line.endswith(f"; {remedy}")
    assert "wr0ng" not in "".join(lines)
    assert not any("process:" in line for line in lines)
    assert lines[-1] == "1 thing is wrong: a guard would not work as it should."


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (faults.silence, "the server is too slow, or a firewall drops what is sent: check the network"),
        (faults.status(503), "Anymate is reached, but in trouble: try again later"),
        (faults.status(404), "check ANYMATE_AUTH_URL: something other than Anymate's login answers there"),
        (faults.says(401, {"error": "unauthorized"}), "copy them again from Anymate: Settings → Api Key, and the mate"),
    ],
)
def test_login_that_fails_otherwise(sandbox: Sandbox, proxy: FaultProxy, fault: Fault, remedy: str) -> None:
    """A login that is not answered, or not by Anymate, is not taken for a wrong password."""
    proxy.break_next("token", fault, times=99)
    addresses = {"ANYMATE_API_URL": proxy.url, "ANYMATE_AUTH_URL": proxy.url}
    (line,) = marked(checked("jobs", code=1, ANYMATE_TIMEOUT="1", **addresses))
    assert line.startswith("credentials: token ")
    assert f"; {remedy}" in line


def test_names_and_certificates(sandbox: Sandbox) -> None:
    """A name that nobody knows and a certificate that nobody trusts have a remedy of their own."""
    from anymate_guard._commands.check.remedies import of_address

    unknown = "SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"
    assert of_address(unknown, "X") == "name the authority that signed the certificate in REQUESTS_CA_BUNDLE"
    lines = checked(code=1, ANYMATE_API_URL="https://anymate.invalid", ANYMATE_AUTH_URL="https://login.invalid")
    assert [line.rpartition("; ")[2] for line in marked(lines)] == [
        "check the spelling of ANYMATE_API_URL, and the network",
        "check the spelling of ANYMATE_AUTH_URL, and the network",
    ]


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (404, "check the process key, and that the mate may run the process"),
        (403, "let the mate run the process: see its page in Anymate"),
        (503, "Anymate is reached, but in trouble: try again later"),
    ],
)
def test_process_is_unknown(sandbox: Sandbox, status: int, remedy: str) -> None:
    """An unknown process, and one that the mate may not run, is a cross with its own remedy."""
    sandbox.fail_next("OkToRun", status=status, times=99)
    (line,) = marked(checked("jobs", code=1, ANYMATE_TIMEOUT="5"))
    assert line.startswith("process: OkToRun ")
    assert line.endswith(f"; {remedy}")


def test_process_is_stopped(sandbox: Sandbox) -> None:
    """A stopped process is a warning, as a guard starts its run all the same; the settings are right."""
    sandbox.set_process("jobs", stopped=True)
    lines = checked("jobs", code=0)
    (line,) = marked(lines, "!")
    assert line.startswith("process: ")
    assert "the process is stopped" in line
    assert line.endswith("a guard starts its run all the same, unless it says check_ok_to_run=True")
    assert lines[-1] == "It works, but 1 thing should be looked at."


def test_no_process(sandbox: Sandbox) -> None:
    """Without a process key, OkToRun is not asked."""
    assert marked(checked(code=0), "–") == ["process: none was named; name one, or set ANYMATE_PROCESS_KEY"]


def test_proxy_that_cannot_be_used(sandbox: Sandbox) -> None:
    """A proxy that a guard can't use is a cross that names it."""
    lines = marked(checked("jobs", code=1, ALL_PROXY="socks5://127.0.0.1:1"))
    assert [line.partition(": ")[0] for line in lines] == ["API address", "login address"]
    assert all("ALL_PROXY" in line for line in lines)


def test_where_settings_come_from(sandbox: Sandbox, tmp_path: Path) -> None:
    """What is said of a setting is so: set by a file, or not set, or by the one variable that counts."""
    file = tmp_path / "client-id"
    file.write_text("somebody")
    by_file = {"ANYMATE_CLIENT_ID": "", "ANYMATE_CLIENT_ID_FILE": str(file), "ANYMATE_API_URL_FILE": str(file)}
    for given in (sandbox.url, ""):
        both = {"ANYMATE_API_URL": given, "ANYMATE_AUTH_URL": given}
        lines = checked(code=1, ANYMATE_PASSWORD="", **by_file, **both)
        assert f"✓ ANYMATE_CLIENT_ID: is set, and not shown (file {file})" in lines
        assert f"✓ ANYMATE_API_URL: {f'{given} (environment)' if given else 'not set'}" in lines
    lines = checked(code=0, ANYMATE_DISABLED="1", **dict.fromkeys(sandbox.environ, ""))
    assert lines[:6] == [f"✓ {name}: not set" for name in sandbox.environ]


def test_disabled(sandbox: Sandbox) -> None:
    """With ANYMATE_DISABLED Anymate is not asked, and no credentials are needed."""
    lines = checked("jobs", code=0, ANYMATE_DISABLED="1", ANYMATE_PASSWORD="")
    assert "– Anymate: was not asked, as ANYMATE_DISABLED is set" in lines
    assert lines[-1] == "The settings are right; Anymate was not asked."
    assert sandbox.requests() == []


@needs_sh
def test_journal_owes(sandbox: Sandbox) -> None:
    """What the journal owes is a warning, with the command that delivers it."""
    sandbox.fail_next("FinishRun", status=401, times=2)
    ended("exec", "jobs", "--", "true")
    (line,) = marked(checked("jobs", code=0), "!")
    assert line.endswith("0 open, 1 owed; anymate-guard journal deliver sends what is owed")


def test_journal_with_refused_finish(sandbox: Sandbox) -> None:
    """A finish that was refused for good is a warning, with the commands that show and drop it."""
    sandbox.fail_next("FinishRun", status=400)
    ended("exec", "jobs", "--", "true")
    (line,) = marked(checked("jobs", code=0), "!")
    assert line.endswith(
        "0 open, 0 owed, 1 refused; anymate-guard journal shows why, and anymate-guard journal drop gives it up"
    )


def test_journal_that_cannot_be_used(sandbox: Sandbox, tmp_path: Path) -> None:
    """A journal that can't be written is a cross with what to do."""
    file = tmp_path / "file"
    file.write_text("")
    (line,) = marked(checked("jobs", code=1, ANYMATE_STATE_DIR=str(file)))
    assert line.startswith(f"journal: {file / 'journal.sqlite3'}: ")
    assert "ANYMATE_STATE_DIR" in line


@pytest.mark.skipif(sys.platform == "win32", reason="its folders are private to the user by default")
def test_others_can_write_the_journal(sandbox: Sandbox, tmp_path: Path) -> None:
    """A folder or file that everybody can write to is a cross, and names what is used; what it holds is not sent."""
    place, temporary = tmp_path / "place", tmp_path / "temporary"
    temporary.mkdir()
    environ = {"ANYMATE_STATE_DIR": str(place), "TMPDIR": str(temporary)}
    sandbox.fail_next("FinishRun", status=401, times=2)
    assert ended("exec", "forged", "true", **environ).returncode == 0
    file = place / "journal.sqlite3"
    for path, mode in ((place, 0o777), (file, 0o666)):
        usual = path.stat().st_mode
        path.chmod(mode)
        (line,) = marked(checked("jobs", code=1, **environ))
        assert f"everybody can write to {path}; " in line
        assert line.startswith(f"journal: {temporary}/")
        assert line.endswith("is used instead; make the folder this user's own")
        assert ended("exec", "jobs", "true", **environ).returncode == 0
        assert journal(**environ) == []
        assert [run["finished"] for run in sandbox.runs()[:2]] == [False, True]
        path.chmod(usual)
    assert "0 open, 1 owed" in checked("jobs", code=0, **environ)[-3]


def test_insecure_address(sandbox: Sandbox) -> None:
    """An address to which the password would travel in the clear is a warning."""
    address = sandbox.url.replace("127.0.0.1", "0.0.0.0")
    found = marked(ended("check", ANYMATE_API_URL=address, ANYMATE_AUTH_URL=address).stdout.splitlines(), "!")
    assert found
    assert found[0].startswith("Anymate: insecure address: ")
    assert "use https" in found[0]


def test_old_console(sandbox: Sandbox) -> None:
    """A console that knows no ticks gets words."""
    done = ended("check", PYTHONIOENCODING="ascii", ANYMATE_PASSWORD="")
    assert "ok ANYMATE_CLIENT_ID: sandbox" in done.stdout
    assert "WRONG ANYMATE_PASSWORD: is missing" in done.stdout
    assert "- Anymate: was not asked" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_terminal(sandbox: Sandbox) -> None:
    """A terminal of 80 columns shows ticks in green, warnings in yellow and crosses in red, the verdict last."""
    from tests.support.screen import screen

    sandbox.set_process("jobs", stopped=True)
    with screen("check", "jobs", ANYMATE_DEADLNE="5") as shown:
        assert shown.ended() == 0
    assert {"green", "brown"} <= shown.colours
    assert "red" not in shown.colours
    assert shown.lines[-1] == "It works, but 2 things should be looked at."
    place = next(number for number, line in enumerate(shown.lines) if line.startswith("! process:"))
    assert shown.lines[place : place + 3] == [
        "! process: Anymate says that 'jobs' is not OK to run: the process is stopped. No",
        "    run was started.",
        "    a guard starts its run all the same, unless it says check_ok_to_run=True",
    ]
    with screen("check", ANYMATE_TIMEOUT="soon") as shown:
        assert shown.ended() == 1
    assert "red" in shown.colours
    with screen("check", ANYMATE_TIMEOUT="soon", NO_COLOR="1") as shown:
        assert shown.ended() == 1
    assert shown.colours == set()


@needs_sh
def test_closed_output(sandbox: Sandbox) -> None:
    """A closed stdout is no traceback; the exit code says what there is to say."""
    for code, environ in ((0, "x=y"), (1, "ANYMATE_TIMEOUT=soon")):
        done = subprocess.run(
            ["sh", "-c", 'exec env "$@" >&-', "sh", environ, *COMMAND, "check"],
            capture_output=True,
            timeout=LONGEST,
            check=False,
        )
        assert (done.returncode, done.stderr) == (code, b"")

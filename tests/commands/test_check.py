"""`anymate-guard check`."""

from __future__ import annotations

import json
from pathlib import Path

from anymate_guard.sandbox import Sandbox

from .support import ended


def checked(*arguments: str, code: int, **environ: str) -> list[str]:
    """The lines that `check` prints."""
    done = ended("check", *arguments, **environ)
    assert done.returncode == code, done.stdout
    assert done.stderr == ""
    return done.stdout.splitlines()


def wrong(lines: list[str]) -> list[str]:
    """The lines with a cross, without it."""
    return [line.removeprefix("✗ ") for line in lines if line.startswith("✗ ")]


def test_all_is_right(sandbox: Sandbox, tmp_path: Path) -> None:
    """Right settings are a tick each, with where they came from and no secret; no run is started."""
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
        "✓ ANYMATE_PROCESS_KEY: not set (default)",
        "✓ ANYMATE_TIMEOUT: 10 (default)",
        "✓ ANYMATE_DEADLINE: 30 (default)",
        f"✓ ANYMATE_STATE_DIR: {tmp_path / 'state'} (environment)",
        "✓ ANYMATE_HANDLE_SIGNALS: True (default)",
        "✓ ANYMATE_DISABLED: False (default)",
        f"✓ address: {sandbox.url} can be reached",
        f"✓ address: {sandbox.url} can be reached",
        "✓ credentials: accepted for mate@sandbox",
        "✓ process: 'jobs' is OK to run",
        f"✓ journal: {tmp_path / 'state' / 'journal.sqlite3'} can be written; 0 open, 0 owed",
    ]
    assert sandbox.runs() == []


def test_json(sandbox: Sandbox) -> None:
    """`--json` says the same for programs."""
    done = ended("check", "--json", ANYMATE_PROCESS_KEY="jobs")
    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr, answer["ok"]) == (0, "", True)
    assert all(line["ok"] for line in answer["checks"])
    assert answer["checks"][0] == {
        "check": "ANYMATE_CLIENT_ID",
        "ok": True,
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
    cause = f"can't read '{tmp_path}/nowhere': No such file or directory"
    half = "is missing while ANYMATE_API_URL is set; set both or neither"
    no_number = "must be a number of seconds above 0 and at most 86400, got 'soon'"
    assert wrong(lines) == [
        f"ANYMATE_CLIENT_SECRET: ANYMATE_CLIENT_SECRET_FILE: {cause} (file {tmp_path}/nowhere); correct it",
        "ANYMATE_PASSWORD: is missing; set ANYMATE_PASSWORD or ANYMATE_PASSWORD_FILE",
        f"ANYMATE_AUTH_URL: {half}; set ANYMATE_AUTH_URL",
        f"ANYMATE_TIMEOUT: {no_number} (environment); correct it",
    ]
    assert "✓ ANYMATE_USERNAME: mate@sandbox (environment)" in lines
    assert lines[-2:] == [
        "– Anymate: was not asked, as the settings are wrong",
        "– journal: was not looked at, as the settings are wrong",
    ]
    assert sandbox.requests() == []


def test_unreachable(sandbox: Sandbox) -> None:
    """An address that can't be reached is a cross with the variable to look at."""
    sandbox.close()
    lines = checked("jobs", code=1)
    assert len(wrong(lines)) == 2
    for line, name in zip(wrong(lines), ("ANYMATE_API_URL", "ANYMATE_AUTH_URL"), strict=True):
        assert "Connection refused" in line
        assert f"check {name}, the network, HTTPS_PROXY and REQUESTS_CA_BUNDLE" in line
    assert "– credentials: were not tried, as an address can't be reached" in lines


def test_unreachable_cloud(sandbox: Sandbox) -> None:
    """In the cloud, the variable to look at is the client id, of which the addresses are made."""
    proxy = {
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "NO_PROXY": "",
        "no_proxy": "",
    }
    lines = checked(code=1, ANYMATE_API_URL="", ANYMATE_AUTH_URL="", **proxy)
    assert "✓ ANYMATE_API_URL: https://sandbox.anymate.app (default)" in lines
    assert all("check ANYMATE_CLIENT_ID, the network" in line for line in wrong(lines))


def test_credentials_are_refused(sandbox: Sandbox) -> None:
    """Refused credentials are a cross that says where to get others; the password is not shown."""
    lines = checked("jobs", code=1, ANYMATE_PASSWORD="not-the-password")
    assert len(wrong(lines)) == 1
    assert wrong(lines)[0].startswith("credentials: ")
    assert wrong(lines)[0].endswith("copy them anew from Anymate: Settings → Api Key, and the mate's login")
    assert "not-the-password" not in "".join(lines)
    assert not any("process:" in line for line in lines)


def test_process_is_unknown(sandbox: Sandbox) -> None:
    """An unknown process is a cross."""
    sandbox.fail_next("OkToRun", status=404)
    lines = checked("jobs", code=1)
    assert len(wrong(lines)) == 1
    assert wrong(lines)[0].startswith("process: ")
    assert wrong(lines)[0].endswith("; check the process key, and that the mate may run the process")


def test_process_is_stopped(sandbox: Sandbox) -> None:
    """A stopped process is told; the settings are right all the same."""
    sandbox.set_process("jobs", stopped=True)
    assert any(line.startswith("✓ process: ") and "is stopped" in line for line in checked("jobs", code=0))


def test_no_process(sandbox: Sandbox) -> None:
    """Without a process key, OkToRun is not asked."""
    assert "– process: none was named; name one, or set ANYMATE_PROCESS_KEY" in checked(code=0)


def test_disabled(sandbox: Sandbox) -> None:
    """With ANYMATE_DISABLED Anymate is not asked, and no credentials are needed."""
    lines = checked("jobs", code=0, ANYMATE_DISABLED="1", ANYMATE_PASSWORD="")
    assert "– Anymate: was not asked, as ANYMATE_DISABLED is set" in lines
    assert sandbox.requests() == []


def test_journal_owes(sandbox: Sandbox) -> None:
    """What the journal owes is told, with the command that delivers it."""
    sandbox.fail_next("FinishRun", status=401, times=2)
    ended("exec", "jobs", "--", "true")
    line = checked("jobs", code=0)[-1]
    assert line.endswith("0 open, 1 owed; anymate-guard journal deliver sends what is owed")


def test_journal_that_cannot_be_used(sandbox: Sandbox, tmp_path: Path) -> None:
    """A journal that can't be written is a cross with what to do."""
    file = tmp_path / "file"
    file.write_text("")
    lines = wrong(checked("jobs", code=1, ANYMATE_STATE_DIR=str(file)))
    assert len(lines) == 1
    assert lines[0].startswith(f"journal: {file}/journal.sqlite3: ")
    assert "ANYMATE_STATE_DIR" in lines[0]


def test_insecure_address(sandbox: Sandbox) -> None:
    """An address to which the password would travel in the clear is warned of, on stderr."""
    address = sandbox.url.replace("127.0.0.1", "0.0.0.0")
    done = ended("check", ANYMATE_API_URL=address, ANYMATE_AUTH_URL=address)
    assert "anymate-guard check: insecure address: " in done.stderr
    assert "use https" in done.stderr


def test_old_console(sandbox: Sandbox) -> None:
    """A console that knows no ticks gets words."""
    done = ended("check", PYTHONIOENCODING="ascii", ANYMATE_PASSWORD="")
    assert "ok    ANYMATE_CLIENT_ID: sandbox" in done.stdout
    assert "WRONG ANYMATE_PASSWORD: is missing" in done.stdout
    assert "-     Anymate: was not asked" in done.stdout

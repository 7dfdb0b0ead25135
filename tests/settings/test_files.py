"""Files that settings name: credentials that come through pipes, and where the journal lives."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
import structlog

from anymate_guard import ConfigurationError, Settings, _files
from tests.support.waiting import LONGEST

CREDENTIALS = {"ANYMATE_CLIENT_ID": "acme", "ANYMATE_CLIENT_SECRET": "hush", "ANYMATE_USERNAME": "mate@acme"}

needs_pipes = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pipes with a path in a folder")


def password(path: str, timeout: str = str(LONGEST)) -> str:
    """The password of settings that find it in a file."""
    return Settings.from_env({**CREDENTIALS, "ANYMATE_PASSWORD_FILE": path, "ANYMATE_TIMEOUT": timeout}).password


def refusal(path: str, timeout: str = str(LONGEST)) -> str:
    """Why a file of the password is refused."""
    with pytest.raises(ConfigurationError) as caught:
        password(path, timeout)
    (problem,) = caught.value.problems
    return problem


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path below `~` is in the user's home, also where no shell has put that in its place."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "password").write_text("s3cret")
    assert password("~/password") == "s3cret"
    assert Settings(disabled=True, state_dir="~/state").state_dir == tmp_path.resolve() / "state"


@pytest.mark.skipif(sys.platform == "win32", reason="takes any name for a user's there")
def test_home_of_nobody() -> None:
    """A path below the home of a user that there is none of is refused, instead of making a folder by that name."""
    with pytest.raises(ConfigurationError) as caught:
        Settings(disabled=True, state_dir="~nobody-by-this-name/state")
    assert caught.value.problems == (
        "ANYMATE_STATE_DIR: must be the path of a folder, got '~nobody-by-this-name/state': there is no such home",
    )


@needs_pipes
def test_a_pipe(tmp_path: Path) -> None:
    """A password that another program writes into a pipe, slowly and in parts, is read to its end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    script = f"import time; f = open({str(pipe)!r}, 'w'); [(f.write(c), f.flush(), time.sleep(0.01)) for c in 's3cret']"
    with subprocess.Popen([sys.executable, "-c", script]):
        assert password(str(pipe)) == "s3cret"


@needs_pipes
@pytest.mark.parametrize("writer", [False, True], ids=["nobody writes", "nobody closes"])
def test_a_pipe_that_never_ends(tmp_path: Path, *, writer: bool) -> None:
    """A pipe that nobody writes to, or that stays open, is refused after `ANYMATE_TIMEOUT`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    descriptor = os.open(pipe, os.O_RDWR) if writer else None
    assert refusal(str(pipe), "0.1") == f"ANYMATE_PASSWORD_FILE: can't read '{pipe}': it did not end in time"
    if descriptor is not None:
        os.close(descriptor)


@needs_pipes
def test_an_unusable_timeout_beside_a_pipe(tmp_path: Path) -> None:
    """A timeout that is no number is one problem, and the file is read all the same."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    thread = threading.Thread(target=pipe.write_text, args=("s3cret",))
    thread.start()
    assert refusal(str(pipe), "soon").startswith("ANYMATE_TIMEOUT: must be a number of seconds")
    thread.join()


def test_a_file_too_long(tmp_path: Path) -> None:
    """A file far too long for a password is refused, also one without an end."""
    long = tmp_path / "long"
    long.write_text("x" * 100_000)
    endless = [] if sys.platform == "win32" else ["/dev/zero"]
    for path in (str(long), *endless):
        assert refusal(path) == f"ANYMATE_PASSWORD_FILE: can't read '{path}': it is longer than 65536 bytes"


def _raise(error: Exception) -> Callable[[], NoReturn]:
    def function() -> NoReturn:
        raise error

    return function


def settings(**changes: Any) -> Settings:
    """Settings that are good but for what is given."""
    return Settings(**{"client_id": "acme", "client_secret": "s", "username": "u", "password": "p", **changes})


def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder is the one it was when the settings were read, wherever the program goes."""
    monkeypatch.chdir(tmp_path)
    read = Settings.from_env({"ANYMATE_DISABLED": "1", "ANYMATE_STATE_DIR": "a/../state"})
    assert read.state_dir == tmp_path / "state"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps a folder that a program is in")
def test_a_relative_folder_of_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder is refused where the current directory is gone."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigurationError) as caught:
        settings(state_dir="state")
    assert str(caught.value).endswith("got 'state': it is relative, and the current directory is gone")


def test_no_path() -> None:
    """What no system takes for a path is refused by its value."""
    with pytest.raises(ConfigurationError) as caught:
        settings(state_dir="a\0b")
    assert str(caught.value) == (
        r"ANYMATE_STATE_DIR: must be the path of a folder, got 'a\x00b': it holds a null character"
    )


def test_a_folder_that_the_system_cannot_follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that can't be followed just now, on a network drive that is away say, does not stop the bot."""

    def away(path: str) -> str:
        raise OSError(64, "The specified network name is no longer available")

    monkeypatch.setattr(os.path, "realpath", away)
    assert settings(state_dir=tmp_path / "x" / ".." / "state").state_dir == tmp_path / "state"


posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows tells a user's folder itself, not by variables")


@pytest.fixture(name="temporary")
def _temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of temporary files, for a process that has not warned of it yet."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(_files, "_warned", False)
    for name in ("HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return folder


@posix
@pytest.mark.parametrize("home", [None, "/dev/null"], ids=["missing", "no folder"])
def test_no_home(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capture: list[MutableMapping[str, Any]], home: str | None
) -> None:
    """Without a home to write to, the journal lives where temporary files go, and one warning says so."""
    import pwd

    if home is None:
        monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # a uid without an entry
    else:
        monkeypatch.setenv("HOME", home)
    structlog.configure()
    assert settings().state_dir == settings().state_dir == temporary / f"anymate_guard-{os.geteuid()}"
    (line,) = capture
    assert line == {
        "event": "anymate.journal_temporary",
        "log_level": "warning",
        "path": str(temporary / f"anymate_guard-{os.geteuid()}"),
        "error": "this user has no home that can be written to",
        "remedy": "set ANYMATE_STATE_DIR to a folder that outlasts this container and a restart of the machine",
    }


@posix
def test_no_home_and_disabled(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, capture: list[MutableMapping[str, Any]]
) -> None:
    """Guards that are disabled have no journal, so there is nothing to warn of."""
    monkeypatch.setenv("HOME", "/dev/null")
    structlog.configure()
    assert Settings(disabled=True).state_dir == temporary / f"anymate_guard-{os.geteuid()}"
    assert capture == []


@posix
def test_nothing_can_be_written(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where temporary files can't be written either, settings are read all the same."""
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", _raise(FileNotFoundError("No usable temporary directory")))
    assert settings().state_dir == Path(f"/anymate_guard-{os.geteuid()}")

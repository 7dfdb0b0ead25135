"""Settings: every problem is told at once, by the name of its variable, and no secret with it."""

from __future__ import annotations

import copy
import os
import pickle
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anymate_guard import ConfigurationError, Settings

CREDENTIALS = {
    "ANYMATE_CLIENT_ID": "acme",
    "ANYMATE_CLIENT_SECRET": "hush-hush",
    "ANYMATE_USERNAME": "mate@acme",
    "ANYMATE_PASSWORD": "open sesame",
}
NAMES = list(CREDENTIALS)
MUST = "must be like https://anymate.example.com, without user name, query or fragment"


def problems(**changes: str | None) -> tuple[str, ...]:
    """What is wrong with good credentials and these variables; None takes one away."""
    environ = {**CREDENTIALS, **changes}
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({name: value for name, value in environ.items() if value is not None})
    return caught.value.problems


def read(**changes: str) -> Settings:
    """Settings of good credentials and these variables."""
    return Settings.from_env({**CREDENTIALS, **changes})


def test_defaults() -> None:
    """The credentials are all that is needed: addresses and patience follow."""
    assert read() == Settings(
        client_id="acme",
        client_secret="hush-hush",
        username="mate@acme",
        password="open sesame",
        api_url="https://acme.anymate.app",
        auth_url="https://acme.auth.anymate.app",
        process_key=None,
        timeout=10.0,
        deadline=30.0,
        state_dir=platformdirs.user_state_dir("anymate_guard", appauthor=False),
        handle_signals=True,
        disabled=False,
    )


def test_every_variable(tmp_path: Path) -> None:
    """Every variable is read into the field of its name."""
    found = read(
        ANYMATE_API_URL="https://anymate.example/api-side/",
        ANYMATE_AUTH_URL=" http://10.0.0.7:8080 ",
        ANYMATE_PROCESS_KEY="invoice-intake",
        ANYMATE_TIMEOUT="2.5",
        ANYMATE_DEADLINE=" 7 ",
        ANYMATE_STATE_DIR=str(tmp_path),
        ANYMATE_HANDLE_SIGNALS="0",
        ANYMATE_DISABLED="1",
    )
    assert (found.api_url, found.auth_url) == ("https://anymate.example/api-side", "http://10.0.0.7:8080")
    assert (found.process_key, found.timeout, found.deadline) == ("invoice-intake", 2.5, 7.0)
    assert (found.state_dir, found.handle_signals, found.disabled) == (tmp_path, False, True)


def test_the_real_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument it is the environment of the process."""
    for name in os.environ:
        if name.startswith("ANYMATE_"):
            monkeypatch.delenv(name)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    assert Settings.from_env() == read()


def test_nothing_set() -> None:
    """Without any settings, one error names every variable that is missing, and tells where its value is found."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({})
    assert str(caught.value) == (
        "4 problems:\n"
        "  - ANYMATE_CLIENT_ID: is missing; set it or ANYMATE_CLIENT_ID_FILE (Settings → Api Key in Anymate)\n"
        "  - ANYMATE_CLIENT_SECRET: is missing; set it or ANYMATE_CLIENT_SECRET_FILE (Settings → Api Key in Anymate)\n"
        "  - ANYMATE_USERNAME: is missing; set it or ANYMATE_USERNAME_FILE (the mate's own login)\n"
        "  - ANYMATE_PASSWORD: is missing; set it or ANYMATE_PASSWORD_FILE (the mate's own login)"
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_one_missing(name: str, value: str | None) -> None:
    """A credential that is missing or blank is named, alone."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({k: v for k, v in {**CREDENTIALS, name: value}.items() if v is not None})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{name}: is missing; set it or {name}_FILE (")


@pytest.mark.parametrize("name", NAMES)
def test_from_a_file(tmp_path: Path, name: str) -> None:
    """A credential may be in a file, around which white space and a mark of Windows editors don't count."""
    file = tmp_path / "secret"
    file.write_bytes("\ufeffs3cret-ö\r\n".encode())
    environ: dict[str, str] = {**CREDENTIALS, f"{name}_FILE": str(file), name: ""}
    if name == "ANYMATE_CLIENT_ID":
        file.write_text("other-client\n")
    value = getattr(Settings.from_env(environ), name.removeprefix("ANYMATE_").lower())
    assert value == ("other-client" if name == "ANYMATE_CLIENT_ID" else "s3cret-ö")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_of_a_file(tmp_path: Path, encoding: str) -> None:
    """A credential's file may be in UTF-8, or in the UTF-16 that PowerShell's `>` writes."""
    file = tmp_path / "secret"
    mark = "\ufeff" if encoding in {"utf-16-le", "utf-16-be"} else ""
    file.write_bytes(f"{mark}s3cret-ö日\r\n".encode(encoding))
    assert Settings.from_env({**CREDENTIALS, "ANYMATE_PASSWORD": "", "ANYMATE_PASSWORD_FILE": str(file)}).password == (
        "s3cret-ö日"
    )


@pytest.mark.parametrize("name", NAMES)
def test_bad_file(tmp_path: Path, name: str) -> None:
    """A credential's file that is missing, empty, a folder or no text is one problem, naming variable and path."""
    empty, noise = tmp_path / "empty", tmp_path / "noise"
    empty.write_text(" \n")
    noise.write_bytes(b"\xff\xfe\x00")
    gone = tmp_path / "gone"
    variable = f"{name}_FILE"
    assert problems(**{name: None, variable: str(gone)}) == (
        f"{variable}: can't read '{gone}': No such file or directory",
    )
    assert problems(**{name: None, variable: str(empty)}) == (f"{variable}: '{empty}' is empty",)
    assert problems(**{name: None, variable: str(noise)}) == (f"{variable}: can't read '{noise}': not text",)
    reason = "Permission denied" if sys.platform == "win32" else "Is a directory"
    assert problems(**{name: None, variable: str(tmp_path)}) == (f"{variable}: can't read '{tmp_path}': {reason}",)


def test_value_and_file(tmp_path: Path) -> None:
    """A credential that is given twice is refused."""
    assert problems(ANYMATE_PASSWORD_FILE=str(tmp_path)) == (
        "ANYMATE_PASSWORD: is set, and so is ANYMATE_PASSWORD_FILE; set one of them",
    )


def test_half_of_the_addresses() -> None:
    """One of the two addresses without the other is refused."""
    address = "https://anymate.example"
    assert problems(ANYMATE_API_URL=address) == (
        "ANYMATE_AUTH_URL: is missing while ANYMATE_API_URL is set; set both or neither",
    )
    assert problems(ANYMATE_AUTH_URL=address) == (
        "ANYMATE_API_URL: is missing while ANYMATE_AUTH_URL is set; set both or neither",
    )


@pytest.mark.parametrize(
    "address",
    [
        "anymate.example",
        "anymate.example:443",
        "//anymate.example",
        "ftp://anymate.example",
        "https://",
        "https:///path",
        "https://any mate.example",
        "https://anymate.example\n/x",
        "https://anymate.example?",
        "https://anymate.example?a=b",
        "https://anymate.example#top",
        "https://anymate.example:port",
        "https://anymate.example:0",
        "https://anymate.example:99999",
        "https://[::1",
        "https://anymate.example\\x",
        "https://anymate..example",
        f"https://{'a' * 64}.example",
    ],
)
def test_bad_address(address: str) -> None:
    """An address without scheme or host, or with more than that, a port and a path, is refused by its value."""
    found = problems(ANYMATE_API_URL=address, ANYMATE_AUTH_URL="https://anymate.example")
    assert found == (f"ANYMATE_API_URL: {MUST}, got {address!r}",)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://me:pa@ss@b:8/x", "https://***@b:8/x"),
        ("https:/me:pass@b", "https:/***@b"),
        ("https:me:pass@b", "***@b"),
        ("me:pass@b", "***@b"),
    ],
)
def test_password_in_an_address(address: str, shown: str) -> None:
    """An address with a password is refused, and the password is not told."""
    found = problems(ANYMATE_API_URL="https://a", ANYMATE_AUTH_URL=address)
    assert found == (f"ANYMATE_AUTH_URL: {MUST}, got {shown!r}",)


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("HTTPS://Anymate.Example:443/Api/", "https://anymate.example/Api"),
        ("http://ANYMATE.example:80", "http://anymate.example"),
        ("http://[2001:DB8::443]:", "http://[2001:db8::443]"),
        ("http://anymate.example:443", "http://anymate.example:443"),
        ("http://[fe80::1%enP2p33s0]:80", "http://[fe80::1%enP2p33s0]"),
    ],
)
def test_spellings_of_an_address(written: str, read_as: str) -> None:
    """An address is the same however its scheme, host and port are written: guards share runs by it."""
    found = read(ANYMATE_API_URL=written, ANYMATE_AUTH_URL=written)
    assert (found.api_url, found.auth_url) == (read_as, read_as)
    assert read(ANYMATE_CLIENT_ID="ACME").api_url == "https://acme.anymate.app"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["s3cret\r", "s3cret\n", "s3\0cret", "s3\x7fcret", "s3\x85cret"])
def test_control_characters(name: str, value: str) -> None:
    """A credential with a line break or the like in it is refused, in the cloud and on premises, and not told."""
    on_premises = {"ANYMATE_API_URL": "https://a", "ANYMATE_AUTH_URL": "https://b"}
    problem = f"{name}: must not hold control characters, such as a line break; take them out"
    assert problems(**{name: value}) == (problem,)
    assert problems(**{name: value}, **on_premises) == (problem,)


def test_control_characters_in_a_file(tmp_path: Path) -> None:
    """A credential's file that holds more than one line is refused."""
    file = tmp_path / "secret"
    file.write_text("s3cret\nanother\n")
    (problem,) = problems(ANYMATE_PASSWORD=None, ANYMATE_PASSWORD_FILE=str(file))
    assert problem.startswith("ANYMATE_PASSWORD: must not hold control characters")


@pytest.mark.parametrize("client_id", ["a b", "a.b", "-a", "a-", "ä", "a/b", "a@b"])
def test_bad_client_id(client_id: str) -> None:
    """A client id that can't be part of a host name is refused where it becomes one, and only there."""
    assert problems(ANYMATE_CLIENT_ID=client_id) == (
        f"ANYMATE_CLIENT_ID: must be letters, digits and hyphens, as it becomes a host name, got {client_id!r}",
    )
    on_premises = {"ANYMATE_API_URL": "https://a", "ANYMATE_AUTH_URL": "https://b"}
    assert read(ANYMATE_CLIENT_ID=client_id, **on_premises).client_id == client_id


@pytest.mark.parametrize("name", ["ANYMATE_TIMEOUT", "ANYMATE_DEADLINE"])
@pytest.mark.parametrize(
    ("value", "shown"),
    [("0", "0.0"), ("-1", "-1.0"), ("nan", "nan"), ("inf", "inf"), ("soon", "'soon'"), ("1e9", "1000000000.0")],
)
def test_bad_seconds(name: str, value: str, shown: str) -> None:
    """A timeout that is not a positive number is refused by its value."""
    assert problems(**{name: value}) == (f"{name}: must be a number of seconds above 0 and at most 86400, got {shown}",)


@pytest.mark.parametrize("name", ["ANYMATE_HANDLE_SIGNALS", "ANYMATE_DISABLED"])
def test_switches(name: str) -> None:
    """A switch is on or off in any usual spelling, and nothing else."""
    field = name.removeprefix("ANYMATE_").lower()
    for text in ("1", "true", "YES", "On"):
        assert getattr(read(**{name: text}), field) is True
    for text in ("0", "false", "NO", "Off"):
        assert getattr(read(**{name: text}), field) is False
    assert problems(**{name: "maybe"}) == (f"{name}: must be 1 or 0, got 'maybe'",)


@pytest.mark.parametrize("key", [" ", ".", "..", "a\x00b"])
def test_bad_process_key(key: str) -> None:
    """A process key that can't be one is refused by its variable."""
    (problem,) = problems(ANYMATE_PROCESS_KEY=key)
    assert problem.startswith("ANYMATE_PROCESS_KEY: ")
    assert repr(key) in problem


def test_everything_wrong(tmp_path: Path) -> None:
    """All problems come in one error."""
    found = problems(
        ANYMATE_CLIENT_ID=None,
        ANYMATE_PASSWORD=None,
        ANYMATE_PASSWORD_FILE=str(tmp_path / "gone"),
        ANYMATE_API_URL="anymate.example",
        ANYMATE_TIMEOUT="0",
        ANYMATE_DEADLINE="x",
        ANYMATE_DISABLED="?",
        ANYMATE_PROCESS_KEY="..",
    )
    assert [problem.split(":")[0] for problem in found] == [
        "ANYMATE_PASSWORD_FILE",
        "ANYMATE_CLIENT_ID",
        "ANYMATE_API_URL",
        "ANYMATE_AUTH_URL",
        "ANYMATE_TIMEOUT",
        "ANYMATE_DEADLINE",
        "ANYMATE_DISABLED",
        "ANYMATE_PROCESS_KEY",
    ]


def test_disabled(tmp_path: Path) -> None:
    """Disabled settings need no credentials, nor a file of one, nor addresses."""
    environ = {"ANYMATE_DISABLED": "1", "ANYMATE_PASSWORD_FILE": str(tmp_path / "gone"), "ANYMATE_API_URL": "x"}
    assert Settings.from_env(environ).disabled


def test_disabled_with_files(tmp_path: Path) -> None:
    """Disabled settings read no file of a credential: it may be a pipe that nobody writes to."""
    (tmp_path / "password").write_text("s3cret")
    environ = {"ANYMATE_DISABLED": "1", "ANYMATE_PASSWORD_FILE": str(tmp_path / "password")}
    assert Settings.from_env(environ).password == ""


def test_by_hand() -> None:
    """Settings made by hand are checked as those of the environment are."""
    with pytest.raises(ConfigurationError) as caught:
        Settings(timeout=-1)
    assert len(caught.value.problems) == 5
    made = Settings(client_id="acme", client_secret="s", username="u", password="p", state_dir="state")
    assert made.state_dir == Path.cwd() / "state"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"password": 7}, "ANYMATE_PASSWORD: must be a string, got int"),
        ({"client_secret": None}, "ANYMATE_CLIENT_SECRET: must be a string, got NoneType"),
        ({"api_url": b"x"}, "ANYMATE_API_URL: must be a string, got bytes"),
        ({"password": "\udcff"}, "ANYMATE_PASSWORD: is not text in UTF-8"),
        ({"timeout": "10"}, "ANYMATE_TIMEOUT: must be a number of seconds above 0 and at most 86400, got '10'"),
        ({"timeout": True}, "ANYMATE_TIMEOUT: must be a number of seconds above 0 and at most 86400, got True"),
        ({"disabled": 1}, "ANYMATE_DISABLED: must be 1 or 0, got 1"),
        ({"process_key": ""}, "ANYMATE_PROCESS_KEY: must not be blank, got ''"),
        ({"process_key": 7}, "ANYMATE_PROCESS_KEY: must be a string, got 7"),
    ],
)
def test_wrong_types(changes: dict[str, Any], problem: str) -> None:
    """A value of another type is a problem like any other, and a secret among them is not shown."""
    good: dict[str, Any] = {"client_id": "acme", "client_secret": "s", "username": "u", "password": "p"}
    with pytest.raises(ConfigurationError) as caught:
        Settings(**{**good, **changes})
    assert str(caught.value) == problem


@pytest.mark.parametrize("blank", ["", "  "])
def test_blank_folder(blank: str) -> None:
    """A state folder that is blank, as an empty line of an env file gives it, counts as not set."""
    usual = Path(platformdirs.user_state_dir("anymate_guard", appauthor=False)).resolve()
    assert read(ANYMATE_STATE_DIR=blank).state_dir == usual
    assert Settings(disabled=True, state_dir=blank).state_dir == usual


def test_no_folder() -> None:
    """A state folder that is no path is refused by its value."""
    with pytest.raises(ConfigurationError, match=r"^ANYMATE_STATE_DIR: must be the path of a folder, got 7: "):
        Settings(disabled=True, state_dir=7)  # type: ignore[arg-type]


def test_frozen() -> None:
    """Settings can't be changed."""
    with pytest.raises(FrozenInstanceError):
        read().timeout = 1  # type: ignore[misc]


def test_no_namespace() -> None:
    """What a log shows of an object that it does not know, as by `default=vars`, leaves the secrets out."""
    with pytest.raises(TypeError):
        vars(read())


def test_text_form() -> None:
    """The text form leaves the secrets out."""
    assert "mate@acme" in repr(read())
    assert "hush-hush" not in repr(read())
    assert "open sesame" not in repr(read())


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_not_pickled(how: Any) -> None:
    """Settings refuse to be pickled and copied, and say what to do instead."""
    with pytest.raises(TypeError, match=r"hold secrets.*Settings\.from_env\(\).*return Kpis"):
        how(read())


@given(
    st.dictionaries(
        st.sampled_from([*NAMES, *(f"ANYMATE_{name.name.upper()}" for name in fields(Settings))]),
        st.text(st.characters(exclude_characters="\0")) | st.sampled_from(["1", "0", "https://a", "acme"]),
    )
)
def test_any_environment(environ: dict[str, str]) -> None:
    """Whatever the variables hold, they are read, or refused by an error that can be pickled."""
    refused: ConfigurationError | None = None
    try:
        found = Settings.from_env(environ)
    except ConfigurationError as error:
        refused = error
    else:
        assert found.disabled or found.password == environ["ANYMATE_PASSWORD"]
    if refused is not None:
        copied = pickle.loads(pickle.dumps(refused))
        assert (str(copied), copied.problems) == (str(refused), refused.problems)
        assert all(problem.startswith("ANYMATE_") for problem in refused.problems)

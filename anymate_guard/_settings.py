"""Settings, read from the environment once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from anymate_guard import _files
from anymate_guard._process_key import check_process_key
from anymate_guard._secrecy import unseen
from anymate_guard.errors import ConfigurationError

_WHENCE = {
    "client_id": "Settings → Api Key in Anymate",
    "client_secret": "Settings → Api Key in Anymate",
    "username": "the mate's own login",
    "password": "the mate's own login",
}
CREDENTIALS = tuple(_WHENCE)
SECRETS = ("client_secret", "password")  # which `anymate-guard exec` keeps from the command that it runs
ADDRESSES = ("api_url", "auth_url")
_SECONDS = ("timeout", "deadline")
_SWITCHES = ("handle_signals", "disabled")
_LONGEST = 86_400
_TIMEOUT = 10.0
_HOST_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_ADDRESS = re.compile(r"https?://[^\s\\?#\x00-\x1f\x7f]+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")
_TOLD = "?"  # stands for a credential whose file was refused already, so that it isn't told of twice
_SWITCH_WORDS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


@dataclass(frozen=True, init=False, slots=True)  # no __dict__, which a log might show with its secrets
class Settings:
    """How to reach Anymate, and how patient to be.

    Every field is named as its environment variable without `ANYMATE_`, in lower case. The text form leaves the
    secrets out, and settings can't be pickled: a worker process reads its own environment, or returns `Kpis` to the
    process that holds the guard.

    Args:
        client_id: Client id, from Settings → Api Key in Anymate.
        client_secret: The secret beside it.
        username: The mate's user name.
        password: The mate's password.
        api_url: Address of an on-premises API; set it together with `auth_url`, or neither for Anymate's cloud.
        auth_url: Address of the on-premises token server.
        process_key: Process key for a guard that names none.
        timeout: Seconds for one connect or one read.
        deadline: Seconds in all for entering a guard, and again for leaving it, retries and waits included.
        state_dir: Folder of the journal, made absolute. None or blank takes the user's state directory, or where there
            is no home that can be written to, a temporary folder, with a warning.
        handle_signals: False leaves SIGTERM alone.
        disabled: True makes guards record and log but call nothing; no credentials are needed then.

    Raises:
        ConfigurationError: With every problem at once, each by the name of its variable.
    """

    client_id: str
    client_secret: str = field(repr=False)
    username: str
    password: str = field(repr=False)
    api_url: str
    auth_url: str
    process_key: str | None
    timeout: float
    deadline: float
    state_dir: Path
    handle_signals: bool
    disabled: bool

    @unseen
    def __init__(
        self,
        *,
        client_id: str = "",
        client_secret: str = "",
        username: str = "",
        password: str = "",
        api_url: str = "",
        auth_url: str = "",
        process_key: str | None = None,
        timeout: float = _TIMEOUT,
        deadline: float = 30,
        state_dir: str | os.PathLike[str] | None = None,
        handle_signals: bool = True,
        disabled: bool = False,
    ) -> None:
        values: dict[str, Any] = {
            "client_id": client_id,
            "client_secret": client_secret,
            "username": username,
            "password": password,
            "api_url": api_url,
            "auth_url": auth_url,
            "process_key": process_key,
            "timeout": timeout,
            "deadline": deadline,
            "state_dir": state_dir,
            "handle_signals": handle_signals,
            "disabled": disabled,
        }
        if problems := _problems(values):
            raise ConfigurationError(problems)
        for name, value in _completed(values).items():
            object.__setattr__(self, name, value)

    @classmethod
    @unseen
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the `ANYMATE_…` variables.

        Args:
            environ: Where to read them. Each credential may also come as `…_FILE`, the path of a file that holds it.

        Raises:
            ConfigurationError: With every problem at once, each by the name of its variable.
        """
        values, problems = _read(environ)
        settings = None
        try:
            settings = cls(**values)
        except ConfigurationError as error:
            problems += error.problems
        if settings is None or problems:
            raise ConfigurationError(problems)
        return settings

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "Settings hold secrets, so they are not pickled or copied: call Settings.from_env() where they are "
            "needed, or return Kpis from there to the process that holds the guard"
        )


def variable(name: str) -> str:
    """The environment variable of a field."""
    return f"ANYMATE_{name.upper()}"


def process_key_of_environment() -> str | None:
    """The process key for a guard that names none."""
    return os.environ.get(variable("process_key"))


def _read(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """The values that the variables give, and what is wrong with the variables themselves."""
    values: dict[str, Any] = {name: environ.get(variable(name)) for name in (*ADDRESSES, "process_key", "state_dir")}
    for names, convert in ((_SECONDS, _number), (_SWITCHES, _switch)):
        values.update((name, convert(environ.get(variable(name), "").strip())) for name in names)
    problems: list[str] = []
    patience = values["timeout"] if isinstance(values["timeout"], float) else _TIMEOUT
    for name in CREDENTIALS if values["disabled"] is not True else ():
        values[name], trouble = _credential(name, environ, patience)
        problems += trouble
    return {name: value for name, value in values.items() if value not in {None, ""}}, problems


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # refused by its value


def _switch(text: str) -> bool | str:
    return _SWITCH_WORDS.get(text.lower(), text)


def _credential(name: str, environ: Mapping[str, str], timeout: float) -> tuple[str | None, list[str]]:
    """A credential's value from its variable or its file, and what is wrong with either."""
    value = environ.get(variable(name))
    path = environ.get(f"{variable(name)}_FILE")
    if not path and not value and name in SECRETS and "ANYMATE_KPI_FILE" in environ:
        return _TOLD, [f"{variable(name)}: is missing; `anymate-guard exec --keep-credentials` passes it on"]
    if not path:
        return value, []
    if value:
        return value, [f"{variable(name)}: is set, and so is {variable(name)}_FILE; set one of them"]
    try:
        value = _files.credential(path, timeout).strip()
    except (OSError, ValueError) as error:
        return _TOLD, [f"{variable(name)}_FILE: can't read '{path}': {getattr(error, 'strerror', None) or 'not text'}"]
    return value or _TOLD, [] if value else [f"{variable(name)}_FILE: '{path}' is empty"]


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """The fields, with addresses and paths in their final form."""
    urls = {name: values[name].strip().rstrip("/") for name in ADDRESSES}
    if not any(urls.values()):
        client_id = values["client_id"]
        urls = {"api_url": f"https://{client_id}.anymate.app", "auth_url": f"https://{client_id}.auth.anymate.app"}
    if not values["disabled"]:  # else they may be anything
        urls = {name: _in_one_spelling(url) for name, url in urls.items()}
    return {**values, **urls, "state_dir": _files.state_dir(values["state_dir"], warn=not values["disabled"])}


def _in_one_spelling(address: str) -> str:
    """The address as everybody writes it, as guards share a run by it: a host is the same in upper case."""
    parts = urlsplit(address)
    port = {"http": ":80", "https": ":443"}[parts.scheme]
    host = parts.netloc if "%" in parts.netloc else parts.netloc.lower()  # but for the zone of an IPv6 address
    return parts._replace(netloc=host.removesuffix(port).removesuffix(":")).geturl()


def _problems(values: dict[str, Any]) -> list[str]:
    """What is wrong with the values, by variable; no secret is quoted."""
    problems = [
        f"{variable(name)}: must be a string, got {type(values[name]).__name__}"
        for name in (*CREDENTIALS, *ADDRESSES)
        if not isinstance(values[name], str)
    ]
    if problems:
        return problems
    if values["disabled"] is not True:
        problems += _wrong_credentials(values)
        cloud = not any(values[name].strip() for name in ADDRESSES)
        problems += _wrong_client_id(values["client_id"]) if cloud else _wrong_addresses(values)
    for name in _SECONDS:
        value = values[name]
        if type(value) not in {int, float} or not 0 < value <= _LONGEST:
            problems.append(
                f"{variable(name)}: must be a number of seconds above 0 and at most {_LONGEST}, got {value!r}"
            )
    for name in _SWITCHES:
        if type(values[name]) is not bool:
            problems.append(f"{variable(name)}: must be 1 or 0, got {values[name]!r}")
    if values["process_key"] is not None:
        try:
            check_process_key(values["process_key"], variable("process_key"))
        except ConfigurationError as error:
            problems += error.problems
    return problems + _wrong_state_dir(values["state_dir"])


def _wrong_credentials(values: dict[str, Any]) -> list[str]:
    problems = []
    for name in CREDENTIALS:
        if not values[name].strip():
            problems.append(f"{variable(name)}: is missing; set it or {variable(name)}_FILE ({_WHENCE[name]})")
        elif _HALF_CHARACTER.search(values[name]):
            problems.append(f"{variable(name)}: is not text in UTF-8")
        elif _CONTROL.search(values[name]):
            problems.append(f"{variable(name)}: must not hold control characters, such as a line break; take them out")
    return problems


def _wrong_client_id(client_id: str) -> list[str]:
    told = not client_id.strip() or client_id == _TOLD or _CONTROL.search(client_id)
    if told or _HOST_LABEL.fullmatch(client_id):
        return []
    return [f"ANYMATE_CLIENT_ID: must be letters, digits and hyphens, as it becomes a host name, got {client_id!r}"]


def _wrong_addresses(values: dict[str, Any]) -> list[str]:
    problems = []
    for name, other in (ADDRESSES, ADDRESSES[::-1]):
        address = values[name].strip()
        if not address:
            problems.append(f"{variable(name)}: is missing while {variable(other)} is set; set both or neither")
        elif not _is_address(address):
            problems.append(
                f"{variable(name)}: must be like https://anymate.example.com, without user name, query or fragment, "
                f"got {_without_user(address)!r}"
            )
    return problems


def _wrong_state_dir(state_dir: Any) -> list[str]:
    try:
        _files.state_dir(state_dir)
    except (TypeError, ValueError) as error:
        return [f"{variable('state_dir')}: must be the path of a folder, got {state_dir!r}: {error}"]
    return []


def _is_address(text: str) -> bool:
    if not _ADDRESS.fullmatch(text):
        return False
    try:
        parts = urlsplit(text)
        labels = (parts.hostname or "").removesuffix(".").split(".")
        return all(0 < len(label) < 64 for label in labels) and parts.port != 0 and parts.username is None
    except ValueError:
        return False


def _without_user(address: str) -> str:
    """The address without what may be a password in it."""
    return re.sub(r"^(\w+:/+)?.*@", r"\1***@", address)

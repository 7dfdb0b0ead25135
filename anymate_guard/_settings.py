"""Settings, read from the environment once; and what a process key can be."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import attrs

from anymate_guard.errors import ConfigurationError

_CREDENTIALS = ("client_id", "client_secret", "username", "password")
_ADDRESSES = ("api_url", "auth_url")
_SECONDS = ("timeout", "deadline")
_SWITCHES = ("handle_signals", "disabled")
_LONGEST = 86_400
_HOST_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")
_NOT_IN_A_KEY = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TOLD = "?"  # stands for a credential whose file was refused already, so that it isn't called missing too
_SWITCH_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@attrs.frozen
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
        state_dir: Folder of the journal; None takes the user's state directory.
        handle_signals: False leaves SIGTERM alone.
        disabled: True makes guards record and log but call nothing; no credentials are needed then.

    Raises:
        ConfigurationError: With every problem at once, each by the name of its variable.
    """

    client_id: str
    client_secret: str = attrs.field(repr=False)
    username: str
    password: str = attrs.field(repr=False)
    api_url: str
    auth_url: str
    process_key: str | None
    timeout: float
    deadline: float
    state_dir: Path | None
    handle_signals: bool
    disabled: bool

    # Written by hand, because a traceback rendered with local variables shows those of every frame it passes: the
    # secrets are gone from this one before anything is raised.
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
        timeout: float = 10,
        deadline: float = 30,
        state_dir: str | os.PathLike[str] | None = None,
        handle_signals: bool = True,
        disabled: bool = False,
    ) -> None:
        problems = _fill(
            self,
            {
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
            },
        )
        del client_secret, password
        if problems:
            raise ConfigurationError(problems)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the `ANYMATE_…` variables.

        Args:
            environ: Where to read them. Each credential may also come as `…_FILE`, the path of a file that holds it.

        Raises:
            ConfigurationError: With every problem at once, each by the name of its variable.
        """
        settings = cls.__new__(cls)
        problems = _read(settings, environ)
        del environ  # it holds the secrets, see __init__
        if problems:
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


def process_key_of_environment(environ: Mapping[str, str] = os.environ) -> str | None:
    """The process key for a guard that names none."""
    return environ.get(variable("process_key"))


def check_process_key(key: object, source: str = "process_key") -> str:
    """Give the key back if it can be one segment of a path.

    Raises:
        ConfigurationError: For anything that can't, naming `source` and the value.
    """
    if not isinstance(key, str):
        problem = f"must be a string, got {key!r}"
    elif not key.strip():
        problem = f"must not be blank, got {key!r}"
    elif key in {".", ".."}:
        problem = f"{key!r} would name another path at the server; use the process's own key"
    elif _NOT_IN_A_KEY.search(key):
        problem = f"must not hold control characters, got {key!r}"
    else:
        return key
    raise ConfigurationError([f"{source}: {problem}"])


def _read(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """Fill settings from variables; what is wrong with them comes back, by variable."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name in _CREDENTIALS:
        values[name], trouble = _credential(name, environ)
        problems += trouble
    for name in (*_ADDRESSES, "process_key", "state_dir"):
        values[name] = environ.get(variable(name)) or None
    for names, convert in ((_SECONDS, float), (_SWITCHES, lambda text: _SWITCH_WORDS[text.lower()])):
        for name in names:
            text = environ.get(variable(name), "").strip()
            try:
                values[name] = convert(text) if text else None
            except (ValueError, KeyError):
                values[name] = text  # _fill refuses it by its value
    given = {name: value for name, value in values.items() if value is not None}
    return problems + _fill(settings, {**Settings.__init__.__kwdefaults__, **given})


def _credential(name: str, environ: Mapping[str, str]) -> tuple[str | None, list[str]]:
    """A credential's value from its variable or its file, and what is wrong with either."""
    value = environ.get(variable(name))
    path = environ.get(f"{variable(name)}_FILE")
    if not path:
        return value, []
    if value:
        return value, [f"{variable(name)}: is set, and so is {variable(name)}_FILE; set one of them"]
    try:
        value = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        return _TOLD, [f"{variable(name)}_FILE: can't read {path!r}: {getattr(error, 'strerror', None) or 'not text'}"]
    return value or _TOLD, [] if value else [f"{variable(name)}_FILE: {path!r} is empty"]


def _fill(settings: Settings, values: dict[str, Any]) -> list[str]:
    """Set every field; what is wrong with them comes back, by variable."""
    problems: list[str] = []
    for name in _ADDRESSES:
        values[name] = values[name].strip().removesuffix("/")
    cloud = not (values["api_url"] or values["auth_url"])
    if cloud:
        values["api_url"] = f"https://{values['client_id']}.anymate.app"
        values["auth_url"] = f"https://{values['client_id']}.auth.anymate.app"
    if values["state_dir"] is not None:
        values["state_dir"] = Path(values["state_dir"])
    for name, value in values.items():
        object.__setattr__(settings, name, value)
    if values["disabled"] is not True:
        problems += [f"{variable(name)}: is missing" for name in _CREDENTIALS if not values[name]]
        problems += _wrong_client_id(values["client_id"]) if cloud else _wrong_addresses(values)
    for name in _SECONDS:
        value = values[name]
        if type(value) not in {int, float} or not 0 < value <= _LONGEST:
            problems.append(f"{variable(name)}: must be a number of seconds above 0 and at most {_LONGEST}, got {value!r}")
    for name in _SWITCHES:
        if type(values[name]) is not bool:
            problems.append(f"{variable(name)}: must be 1 or 0, got {values[name]!r}")
    if values["process_key"] is not None:
        try:
            check_process_key(values["process_key"], variable("process_key"))
        except ConfigurationError as error:
            problems += error.problems
    return problems


def _wrong_client_id(client_id: str) -> list[str]:
    if not client_id or client_id is _TOLD or _HOST_LABEL.fullmatch(client_id):
        return []
    return [f"ANYMATE_CLIENT_ID: must be letters, digits and hyphens, as it becomes a host name, got {client_id!r}"]


def _wrong_addresses(values: dict[str, Any]) -> list[str]:
    problems = []
    for name, other in (_ADDRESSES, _ADDRESSES[::-1]):
        if not values[name]:
            problems.append(f"{variable(name)}: is missing while {variable(other)} is set; set both or neither")
            continue
        try:
            parts = urlsplit(values[name])
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            problems.append(f"{variable(name)}: must be like https://anymate.example.com, got {values[name]!r}")
        elif parts.username is not None or parts.query or parts.fragment:
            problems.append(f"{variable(name)}: must be an address without user name, query or fragment")
    return problems

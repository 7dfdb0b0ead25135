"""`anymate-guard check`: whether the settings are right, and what to do where they are not."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import attrs

from anymate_guard import AnymateClient, AnymateGuardError, ConfigurationError, NotOkToRun, Settings
from anymate_guard._api.client import log_in
from anymate_guard._commands import journal
from anymate_guard._commands.terminal import Event, collected, say, told
from anymate_guard._deadline import Deadline
from anymate_guard._http.messages import Request
from anymate_guard._http.transport import Transport
from anymate_guard._settings import variable

_SECRETS = {"client_secret", "password"}
_WITH_FILE = {"client_id", "client_secret", "username", "password"}
_MARKS = {True: "✓", False: "✗", None: "–"}
_PLAIN_MARKS = {True: "ok   ", False: "WRONG", None: "-    "}


@attrs.frozen
class Line:
    """One thing that was checked.

    Attributes:
        check: Its name.
        ok: None where there was nothing to check, or no way to.
        says: What was found.
        source: Where a setting came from.
        remedy: What to do.
    """

    check: str
    ok: bool | None
    says: str
    source: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        source = f" ({self.source})" if self.source else ""
        return f"{self.check}: {self.says}{source}{'; ' if self.remedy else ''}{self.remedy}"


def check(process_key: str | None, *, as_json: bool) -> int:
    """Check the settings, the addresses, the credentials, the process and the journal. Starts no run.

    Args:
        process_key: Which process; None takes that of the environment.
        as_json: Whether to print JSON.

    Returns:
        The exit code: 0 if nothing is wrong, else 1.
    """
    troubles = collected()
    marks = _marks()
    lines: list[Line] = []
    for line in _lines(process_key, troubles):
        lines.append(line)
        if not as_json:
            print(f"{marks[line.ok]} {line}", flush=True)
    ok = all(line.ok is not False for line in lines)
    if as_json:
        print(json.dumps({"ok": ok, "checks": [attrs.asdict(line) for line in lines]}, indent=2))
    for trouble in troubles:
        if trouble["event"] != "anymate.journal_unavailable":
            say("check", told(trouble))
    return 0 if ok else 1


def _marks() -> dict[bool | None, str]:
    try:
        "".join(_MARKS.values()).encode(sys.stdout.encoding)
    except UnicodeEncodeError:  # an old console
        return _PLAIN_MARKS
    return _MARKS


def _lines(process_key: str | None, troubles: Sequence[Event]) -> Iterator[Line]:
    settings, problems = None, tuple[str, ...]()
    try:
        settings = Settings.from_env()
    except ConfigurationError as error:
        problems = error.problems
    for field in attrs.fields(Settings):
        yield _setting(field.name, settings, problems)
    if settings is None:
        yield Line("Anymate", None, "was not asked, as the settings are wrong")
    elif settings.disabled:
        yield Line("Anymate", None, "was not asked, as ANYMATE_DISABLED is set")
    else:
        with AnymateClient(settings) as client:
            yield from _anymate(client, process_key or settings.process_key)
    yield _journal(troubles)


def _setting(name: str, settings: Settings | None, problems: Sequence[str]) -> Line:
    """A setting, where it came from, and what is wrong with it."""
    by_value, by_file = variable(name), f"{variable(name)}_FILE"
    source = "default"
    if os.environ.get(by_value):
        source = "environment"
    elif os.environ.get(by_file):
        source = f"file {os.environ[by_file]}"
    wrong = [problem for problem in problems if problem.startswith((f"{by_value}:", f"{by_file}:"))]
    if wrong:
        names = f"{by_value} or {by_file}" if name in _WITH_FILE else by_value
        remedy = f"set {names}" if source == "default" else "correct it"
        says = "; ".join(problem.removeprefix(f"{by_value}: ") for problem in wrong)
        return Line(by_value, False, says, "" if source == "default" else source, remedy)
    if name in _SECRETS:
        return Line(by_value, True, "is set, and not shown", source)
    value = getattr(settings, name) if settings is not None else os.environ.get(by_value)
    return Line(by_value, True, "not set" if value is None else str(value), source)


def _anymate(client: AnymateClient, process_key: str | None) -> Iterator[Line]:
    """What Anymate says: its addresses, the credentials, the process."""
    settings = client.settings
    reached = [_reached(name, settings) for name in ("api_url", "auth_url")]
    yield from reached
    if not all(line.ok for line in reached):
        yield Line("credentials", None, "were not tried, as an address can't be reached")
        return

    def credentials() -> str:
        log_in(client, Deadline.after(settings.timeout))
        return f"accepted for {settings.username}"

    remedy = "copy them anew from Anymate: Settings → Api Key, and the mate's login"
    accepted = _asked("credentials", credentials, remedy)
    yield accepted
    if process_key is None:
        yield Line("process", None, "none was named", remedy="name one, or set ANYMATE_PROCESS_KEY")
    elif accepted.ok:
        remedy = "check the process key, and that the mate may run the process"
        yield _asked("process", lambda: _ok_to_run(client, process_key), remedy)


def _reached(name: str, settings: Settings) -> Line:
    """Whether an address gives any HTTP answer at all."""
    address = getattr(settings, name)
    with closing(Transport(settings.timeout)) as transport:
        answer = transport.exchange(Request("GET", address, "/"), Deadline.after(settings.timeout))
    if answer.status:
        return Line("address", True, f"{address} can be reached")
    wanted = variable(name) if os.environ.get(variable(name)) else "ANYMATE_CLIENT_ID"
    remedy = f"check {wanted}, the network, HTTPS_PROXY and REQUESTS_CA_BUNDLE"
    return Line("address", False, answer.error, remedy=remedy)


def _asked(what: str, ask: Callable[[], str], remedy: str) -> Line:
    try:
        return Line(what, True, ask())
    except AnymateGuardError as error:
        return Line(what, False, str(error), remedy=remedy)


def _ok_to_run(client: AnymateClient, process_key: str) -> str:
    advice = client.ok_to_run(process_key, deadline=Deadline.after(client.settings.timeout))
    if advice.ok_to_run:
        return f"{process_key!r} is OK to run"
    refusal = NotOkToRun(
        process_key,
        gate_open=advice.gate_open,
        tasks_available=advice.tasks_available,
        not_blocked_date=advice.not_blocked_date,
    )
    return str(refusal)


def _journal(troubles: Sequence[Event]) -> Line:
    try:
        book = journal.of_environment()
    except ConfigurationError:
        return Line("journal", None, "was not looked at, as the settings are wrong")
    opened, owed = journal.read(book)
    for trouble in troubles:
        if trouble["event"] == "anymate.journal_unavailable":
            return Line("journal", False, f"{trouble['path']}: {trouble['error']}", remedy=trouble["remedy"])
    says = f"{book.path} can be written; {len(opened)} open, {len(owed)} owed"
    remedy = "anymate-guard journal deliver sends what is owed" if owed else ""
    return Line("journal", True, says, remedy=remedy)

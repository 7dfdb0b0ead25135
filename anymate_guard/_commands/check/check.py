"""`anymate-guard check`: one line for each thing, and a verdict."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, fields
from typing import Literal

from anymate_guard import AnymateClient, AnymateGuardError, ConfigurationError, Settings
from anymate_guard._api.client import log_in
from anymate_guard._commands import journal
from anymate_guard._commands.check import remedies
from anymate_guard._commands.log import Event, collected, told
from anymate_guard._commands.terminal import Paint, fitted, sign
from anymate_guard._deadline import Deadline
from anymate_guard._http.messages import Request
from anymate_guard._http.transport import Transport
from anymate_guard._journal import contents
from anymate_guard._journal.rows import Unavailable
from anymate_guard._settings import ADDRESSES, CREDENTIALS, SECRETS, variable

_OF_EXEC = {"ANYMATE_RUN_ID", "ANYMATE_KPI_FILE"}
_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "wrong": ("✗", "red"), "skipped": ("–", "dim")}

State = Literal["ok", "warning", "wrong", "skipped"]


@dataclass(frozen=True)
class Line:
    """One thing that was checked.

    Attributes:
        check: Its name.
        state: "skipped" where there was nothing to check, or no way to.
        says: What was found.
        source: Where a setting came from.
        remedy: What to do.
    """

    check: str
    state: State
    says: str
    source: str = ""
    remedy: str = ""

    def show(self) -> None:
        """Print it, the remedy on a line of its own."""
        mark, colour = _MARKS[self.state]
        paint, mark = Paint(sys.stdout), sign(mark)
        source = f" ({self.source})" if self.source else ""
        text = fitted(f"{mark} {self.check}: {self.says}{source}", sys.stdout)
        text = text.removeprefix(mark).replace(source, paint(source, "dim"))
        print(f"{paint(mark, colour, 'bold')}{text}", flush=True)
        if self.remedy:
            print(fitted(self.remedy, sys.stdout, "    "), flush=True)


def check(process_key: str | None, *, as_json: bool) -> int:
    """Check the settings, the addresses, the credentials, the process and the journal. Starts no run.

    Args:
        process_key: Which process; None takes that of the environment.
        as_json: Whether to print JSON.

    Returns:
        The exit code: 0 if nothing is wrong, else 1.
    """
    lines: list[Line] = []
    for line in _lines(process_key):
        lines.append(line)
        if not as_json:
            line.show()
    ok = not any(line.state == "wrong" for line in lines)
    if as_json:
        report = {"ok": ok, "verdict": _verdict(lines), "checks": [asdict(line) for line in lines]}
        print(json.dumps(report, indent=2))
    else:
        print(Paint(sys.stdout)(_verdict(lines), "bold"))
    return 0 if ok else 1


def _verdict(lines: Sequence[Line]) -> str:
    wrong, odd = (sum(line.state == state for line in lines) for state in ("wrong", "warning"))
    things = {1: "1 thing"}
    if wrong:
        verb = "is" if wrong == 1 else "are"
        return f"{things.get(wrong, f'{wrong} things')} {verb} wrong: a guard would not work as it should."
    if odd:
        return f"It works, but {things.get(odd, f'{odd} things')} should be looked at."
    if any(line.check == "Anymate" for line in lines):
        return "The settings are right; Anymate was not asked."
    return "All is well."


def _lines(process_key: str | None) -> Iterator[Line]:
    troubles = collected()
    settings, problems = None, tuple[str, ...]()
    try:
        settings = Settings.from_env()
    except ConfigurationError as error:
        problems = error.problems
    for field in fields(Settings):
        yield _setting(field.name, settings, problems)
    yield from _misspelt()
    if settings is None:
        yield Line("Anymate", "skipped", "was not asked, as the settings are wrong")
    elif settings.disabled:
        yield Line("Anymate", "skipped", "was not asked, as ANYMATE_DISABLED is set")
    else:
        with AnymateClient(settings) as client:
            yield from _anymate(client, process_key or settings.process_key)
    yield _journal(troubles)
    for trouble in troubles:
        if trouble["event"] != "anymate.journal_unavailable":
            yield Line("Anymate", "warning", told(trouble))


def _setting(name: str, settings: Settings | None, problems: Sequence[str]) -> Line:
    """A setting, where it came from, and what is wrong with it."""
    by_value, by_file = variable(name), f"{variable(name)}_FILE"
    source = "default"
    if os.environ.get(by_value):
        source = "environment"
    elif name in CREDENTIALS and os.environ.get(by_file):
        source = f"file {os.environ[by_file]}"
    wrong = [problem for problem in problems if problem.startswith((f"{by_value}:", f"{by_file}:"))]
    if wrong:
        says = "; ".join(problem.removeprefix(f"{by_value}: ") for problem in wrong)
        if source != "default":
            return Line(by_value, "wrong", says, source, "correct it")
        says, _, remedy = says.partition("; ")  # no value is quoted, as there is none
        return Line(by_value, "wrong", says, remedy=remedy)
    value = os.environ.get(by_value) if settings is None else getattr(settings, name)
    unread = settings is None and source.startswith("file")
    made_up = settings is not None and not settings.client_id and name in ADDRESSES and source == "default"
    if made_up or (not unread and value in {None, ""}):
        return Line(by_value, "ok", "not set")
    if name in SECRETS or unread:
        return Line(by_value, "ok", "is set, and not shown", source)
    return Line(by_value, "ok", _shown(value), source)


def _shown(value: object) -> str:
    """A value as it is set."""
    return f"{value:g}" if isinstance(value, float | bool) else str(value)


def _misspelt() -> Iterator[Line]:
    """Variables that look like a setting and are none."""
    known = {variable(field.name) for field in fields(Settings)}
    known |= {f"{variable(name)}_FILE" for name in CREDENTIALS}
    for name in sorted(os.environ):
        nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8)
        if nearest and name not in known | _OF_EXEC:
            yield Line(name, "warning", "is not a setting, and has no effect", remedy=f"did you mean {nearest[0]}?")


def _anymate(client: AnymateClient, process_key: str | None) -> Iterator[Line]:
    """What Anymate says: its addresses, the credentials, the process."""
    settings = client.settings
    reached = [_reached(name, settings) for name in ADDRESSES]
    yield from reached
    if not all(line.state == "ok" for line in reached):
        yield Line("credentials", "skipped", "were not tried, as an address can't be reached")
        return
    accepted = _asked("credentials", lambda: _logged_in(client), remedies.of_login)
    yield accepted
    if process_key is None:
        yield Line("process", "skipped", "none was named", remedy="name one, or set ANYMATE_PROCESS_KEY")
    elif accepted.state == "ok":
        yield _asked("process", lambda: _ok_to_run(client, process_key), remedies.of_process)


def _reached(name: str, settings: Settings) -> Line:
    """Whether an address gives any HTTP answer at all."""
    address = getattr(settings, name)
    what = {"api_url": "API address", "auth_url": "login address"}[name]
    try:
        with closing(Transport(settings.timeout)) as transport:
            answer = transport.exchange(Request("GET", address, "/"), Deadline.after(settings.timeout))
    except ConfigurationError as error:  # a proxy that can't be used
        return Line(what, "wrong", str(error))
    if answer.status:
        return Line(what, "ok", f"{address} can be reached")
    wanted = variable(name) if os.environ.get(variable(name)) else "ANYMATE_CLIENT_ID"
    return Line(what, "wrong", answer.error, remedy=remedies.of_address(answer.error, wanted))


def _asked(what: str, ask: Callable[[], Line], remedy: Callable[[AnymateGuardError], str]) -> Line:
    try:
        return ask()
    except AnymateGuardError as error:
        return Line(what, "wrong", str(error), remedy=remedy(error))


def _logged_in(client: AnymateClient) -> Line:
    log_in(client, Deadline.after(client.settings.timeout))
    return Line("credentials", "ok", f"accepted for {client.settings.username}")


def _ok_to_run(client: AnymateClient, process_key: str) -> Line:
    advice = client.ok_to_run(process_key, deadline=Deadline.after(client.settings.timeout))
    if advice.ok_to_run:
        return Line("process", "ok", f"{process_key} is OK to run")
    remedy = "a guard starts its run all the same, unless it says check_ok_to_run=True"
    return Line("process", "warning", str(advice.refusal(process_key)), remedy=remedy)


def _journal(troubles: Sequence[Event]) -> Line:
    try:
        book = journal.of_environment()
    except ConfigurationError:
        return Line("journal", "skipped", "was not checked, as the settings are wrong")
    seen = contents.Seen([], Counter(), 0)
    with suppress(Unavailable):  # which is among the troubles
        seen = contents.look(book, 0)
    for trouble in troubles:
        if trouble["event"] == "anymate.journal_unavailable":
            return Line("journal", "wrong", f"{trouble['path']}: {trouble['error']}", remedy=trouble["remedy"])
    says = f"{book.path} can be written; {seen.counts['open']} open, {seen.counts['owed']} owed"
    if seen.senseless:
        says += f"; {journal.set_aside(seen.senseless)}"
    if seen.counts["refused"]:
        remedy = "anymate-guard journal shows why, and anymate-guard journal drop gives it up"
        return Line("journal", "warning", f"{says}, {seen.counts['refused']} refused", remedy=remedy)
    if seen.counts["owed"]:
        return Line("journal", "warning", says, remedy="anymate-guard journal deliver sends what is owed")
    return Line("journal", "warning" if seen.senseless else "ok", says)

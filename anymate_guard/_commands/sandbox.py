"""`anymate-guard sandbox`: serve a local Anymate until somebody stops it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import sys
import time
from http.client import responses
from typing import TYPE_CHECKING, NoReturn

from anymate_guard import Settings
from anymate_guard._commands import journal
from anymate_guard._commands.terminal import Paint, say
from anymate_guard._journal import contents
from anymate_guard._journal.journals import journal_at
from anymate_guard._journal.rows import Unavailable

if TYPE_CHECKING:
    from anymate_guard.sandbox import JournalRow, Sandbox

DEFAULT_PORT = 8642
_PORTS_TRIED = 100
_COLOURS = {2: "green", 3: "yellow", 4: "red"}  # of a status, by its hundreds, as uvicorn has them


def sandbox(port: int | None) -> int:
    """Serve, and print the settings that point a bot there.

    Args:
        port: Where; 0 takes a free port, None the default port or the next one that is free.

    Returns:
        The exit code.
    """
    if not installed():
        return 2
    from anymate_guard.sandbox import shell_lines

    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server = _started(port)
        if server is None:
            return 2
        with contextlib.closing(server):
            _show_journal(server)
            for shell, lines in shell_lines(server.environ).items():
                if sys.platform == "win32":
                    print(f"{shell}:")
                print(lines)
            sys.stdout.flush()
            say("sandbox", f"serves a local Anymate on {server.url} until Ctrl-C or SIGTERM; its page is there too")
            wait()
    return 0


def wait() -> NoReturn:
    """Wait for Ctrl-C; not in one long sleep, which a signal that comes just before it would not end."""
    while True:
        time.sleep(1)


def installed() -> bool:
    """Whether the extra `sandbox` is installed; if not, says on stderr how to."""
    found = importlib.util.find_spec("werkzeug") is not None
    if not found:
        say("sandbox", "the sandbox is an extra that is not installed: pip install 'anymate-guard[sandbox]'")
    return found


def _started(port: int | None) -> Sandbox | None:
    from anymate_guard.sandbox import Sandbox

    last = DEFAULT_PORT + _PORTS_TRIED
    for number in range(DEFAULT_PORT, last) if port is None else [port]:
        try:
            return Sandbox(number, access_log=_print_access).start()
        except OSError as error:
            then = "trying the next one" if port is None else "take another with --port"
            reason = str(error.strerror).partition(" (")[0]  # without the address, which Python says again
            say("sandbox", f"can't serve on port {number}: {reason}; {then}")
    return None


def _print_access(client: str, request: str, status: int | None) -> None:
    """Print a line as uvicorn does; the page's looks, one each second, are left out."""
    if " /page/" in request or sys.stderr is None:
        return
    paint = Paint(sys.stderr)
    shown = paint(ascii(request)[1:-1], "bold")  # what could steer the terminal is escaped
    answer = "no answer" if status is None else f"{status} {responses.get(status, '')}".strip()
    answer = paint(answer, _COLOURS.get((status or 0) // 100, "bright red"))
    with contextlib.suppress(OSError):
        print(f'{paint("INFO", "green")}:     {client} - "{shown}" {answer}', file=sys.stderr, flush=True)


def _show_journal(server: Sandbox) -> None:
    place = {name: os.environ[name] for name in ("ANYMATE_STATE_DIR",) if name in os.environ}
    os.environ.update(NO_PROXY="*", no_proxy="*")  # the sandbox is reached without one
    server.show_journal(_Journal(Settings.from_env({**place, **server.environ})))


class _Journal:
    """The journal of this machine, for the sandbox's page."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._journal = journal_at(settings.state_dir)

    def rows(self, most: int) -> tuple[list[JournalRow], int]:
        try:
            seen = contents.look(self._journal, most)
        except Unavailable:
            return [], 0
        return [self._row(item) for item in seen.items], seen.counts.total() - len(seen.items)

    def deliver(self) -> str:
        try:
            return f"{journal.deliver_all(self._settings, self._journal, 0)}."
        except Unavailable as error:
            return f"The journal can't be used: {error}."

    def _row(self, item: contents.Item) -> JournalRow:
        row = item.row
        elsewhere = "" if row.address == self._settings.api_url else f"for {row.address}"
        return {
            "processKey": row.process_key,
            "runId": row.run_id,
            "state": "owed" if item.state == "maybe open" else item.state,
            "entries": row.entries,
            "secondsSaved": None if row.nanoseconds is None else row.nanoseconds / 1e9,
            "age": max(0.0, time.time() - row.began),
            "reason": "; ".join(filter(None, (elsewhere, row.reason))),
        }

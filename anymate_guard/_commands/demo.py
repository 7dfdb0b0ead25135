"""`anymate-guard demo`: a bot's good run, its crash and an outage, and what a local Anymate recorded of each."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import webbrowser
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import structlog

from anymate_guard import anymate_run
from anymate_guard._commands.log import collected, rendering
from anymate_guard._commands.private_sandbox import private_sandbox
from anymate_guard._commands.sandbox import installed, wait
from anymate_guard._commands.terminal import Paint, say, sign
from anymate_guard._journal.journals import close_all
from anymate_guard.demo import bot

_PACE = 1.5  # seconds that a file of invoices takes where somebody watches
_BAR = 30
_OUTAGE = {"operation": "*", "status": 503, "retryAfter": 3600, "times": 1000}  # too long to wait for
_FACTS = {
    "run_id": "run {}",
    "outcome": "{}",
    "entries": "{} entries",
    "seconds_saved": "{:.0f} s",
    "error": "{}",
}
_SAID_BEFORE = "StartRun got no usable answer from Anymate in time: "  # the scene's title does


class _AccountsClosed(Exception):
    """What the bot crashes of."""


def demo(file: Path | None, *, log_format: str | None, open_page: bool) -> int:
    """Show what the package is for, far from the user's own settings and journal.

    Args:
        file: A CSV file of invoices; None takes the one that comes with the bot.
        log_format: "console" or "json" for whole log lines; None prints the short of them.
        open_page: Whether to keep the local Anymate up and open its page.

    Returns:
        The exit code.
    """
    if not installed():
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left behind then, either
    collected("info", rendering(log_format) if log_format else [_in_short])
    with (
        _folder() as folder,
        private_sandbox() as settings,
    ):
        _use_only({**settings, "ANYMATE_STATE_DIR": folder})
        anymate = _Anymate(settings["ANYMATE_API_URL"])
        try:
            _scenes(file or Path(bot.__file__).with_name("invoices.csv"), anymate)
        except bot.UnusableFile as error:
            say("demo", str(error))
            return 2
        finally:
            _show_runs(anymate)
        if open_page:
            _keep_open(anymate.url)
    return 0


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A folder for the journal, which is closed before the folder goes: Windows deletes no open file."""
    with TemporaryDirectory(prefix="anymate-guard-demo-", ignore_cleanup_errors=True) as folder:
        try:
            yield folder
        finally:
            close_all()


class _Anymate:
    """The control side of the local Anymate."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, payload: object = None) -> Any:
        """Make a call of the control side."""
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, f"/sandbox/{path}", None if payload is None else json.dumps(payload))
            return json.loads(connection.getresponse().read())


def _use_only(settings: Mapping[str, str]) -> None:
    """Make these the only settings, and reach them without a proxy."""
    for name in [name for name in os.environ if name.startswith("ANYMATE_")]:
        del os.environ[name]
    os.environ.update(settings, NO_PROXY="*", no_proxy="*")


def _scenes(file: Path, anymate: _Anymate) -> None:
    _print(f"A local Anymate runs on {anymate.url} for this demo.")
    _title("1. A bot counts what it does: each invoice, and the time that it saved")
    _show(bot.process(file, _watched))
    _title("2. The bot crashes half way: its run is finished all the same")
    try:
        bot.process(file, _crashing)
    except _AccountsClosed as error:
        _print(f"   The bot ends with its own exception: {error}")
    _title("3. Anymate is down: the work goes on, and the finish waits in a journal")
    anymate.ask("POST", "faults", _OUTAGE)
    bot.process(file, _watched)
    anymate.ask("DELETE", "faults")
    _print("   Anymate is up again. The next bot on this machine delivers it, too:")
    with anymate_run("payment-run") as run:
        run.set_kpis(entries=7, seconds_saved=630)


def _watched(rows: list[bot.Row]) -> Iterator[bot.Row]:
    return _progress(rows, len(rows))


def _crashing(rows: list[bot.Row]) -> Iterator[bot.Row]:
    yield from _progress(rows[: len(rows) // 2], len(rows))
    raise _AccountsClosed("the accounts are closed for the night")


def _progress(rows: Iterable[bot.Row], count: int) -> Iterator[bot.Row]:
    """Go through rows; a terminal shows how far, at a pace that can be seen."""
    paint, done = Paint(sys.stdout), 0
    bar, left = (sign(character) for character in "█░")
    for row in rows:
        yield row
        done += 1
        if paint.terminal:
            full = _BAR * done // count
            print(f"\r   {paint(bar * full, 'green')}{left * (_BAR - full)} {done} of {count} ", end="", flush=True)
            time.sleep(_PACE / count)
    _print("invoices" if paint.terminal and done else f"   {done} of {count} invoices")


def _in_short(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """A log line that fits in a terminal: the event, and what matters of it."""
    name = event["event"]
    if not name.startswith("anymate."):
        raise structlog.DropEvent
    facts = ", ".join(text.format(event[fact]) for fact, text in _FACTS.items() if event.get(fact) is not None)
    line = f"   {name:24} {facts}".rstrip()
    line = line.replace(_SAID_BEFORE, "")
    line = line if len(line) < 80 else f"{line[:76]}..."
    return Paint(sys.stderr)(line, "yellow" if event["level"] == "warning" else "cyan")


def _show(report: bot.Report) -> None:
    most = ", ".join(f"{count} {reason}" for reason, count in report.rejected.most_common(3))
    more = ", …" if len(report.rejected) > 3 else ""
    _print(f"   {report.booked} booked, {report.rejected.total()} rejected" + (f": {most}{more}" if most else ""))


def _show_runs(anymate: _Anymate) -> None:
    """Ask Anymate itself, over HTTP, what it has recorded."""
    _title("What Anymate recorded of each")
    _print("   run             process         state      entries       time saved")
    for run in anymate.ask("GET", "runs"):
        state = "finished" if run["finished"] else "still open"
        minutes, seconds = divmod(run["creditedSecondsSaved"] or 0, 60)  # None while it is open
        saved = f"{minutes // 60} h {minutes % 60:2} min {seconds:2} s"
        _print(f"   {run['runId']:<15} {run['processKey']:15} {state:10} {run['creditedEntries'] or 0:7} {saved:>16}")


def _keep_open(url: str) -> None:
    _print(f"\nIts page is on {url}/ until you press Ctrl-C.")
    with contextlib.suppress(KeyboardInterrupt):
        webbrowser.open(f"{url}/")
        wait()


def _title(text: str) -> None:
    _print()
    _print(Paint(sys.stdout)(text, "bold"))


def _print(text: str = "") -> None:
    print(text, flush=True)  # in order with the log, which goes to stderr

"""`anymate-guard demo`: run the invoice bot against a sandbox of its own, and show what Anymate recorded."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import structlog
from structlog.contextvars import merge_contextvars

from anymate_guard._commands.private_sandbox import private_sandbox
from anymate_guard._commands.sandbox import installed
from anymate_guard._commands.terminal import say
from anymate_guard.demo import bot


def demo(file: Path | None) -> int:
    """Run the bot, far from the user's own settings and journal.

    Args:
        file: A CSV file of invoices; None takes the one that comes with the bot.

    Returns:
        The exit code.
    """
    if not installed():
        return 2
    _log_as_json()
    with (
        private_sandbox() as settings,
        TemporaryDirectory(prefix="anymate-guard-demo-", ignore_cleanup_errors=True) as folder,
    ):
        _use_only({**settings, "ANYMATE_STATE_DIR": folder})
        try:
            report = bot.process(file or Path(bot.__file__).with_name("invoices.csv"))
        except bot.UnusableFile as error:
            say("demo", str(error))
            return 2
        else:
            _show(report)
            return 0
        finally:
            _show_runs(settings["ANYMATE_API_URL"])


def _log_as_json() -> None:
    structlog.configure(
        processors=[
            merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(ensure_ascii=sys.stderr.encoding.lower() != "utf-8"),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _use_only(settings: Mapping[str, str]) -> None:
    """Make these the only settings, and reach them without a proxy."""
    for name in [name for name in os.environ if name.startswith("ANYMATE_")]:
        del os.environ[name]
    os.environ.update(settings, NO_PROXY="*", no_proxy="*")


def _show(report: bot.Report) -> None:
    rejected = report.rejected.total()
    print(f"{report.processed} invoices processed: {report.booked} booked, {rejected} rejected")
    for reason, count in sorted(report.rejected.items()):
        print(f"  {count:4} rejected: {reason}")
    for currency, total in sorted(report.totals.items()):
        print(f"  {total:>15,} {currency} booked")
    minutes, seconds = divmod(round(report.saved.total_seconds()), 60)
    print(f"  {minutes // 60} h {minutes % 60} min {seconds} s of work saved")


def _show_runs(url: str) -> None:
    """Ask Anymate itself, over HTTP, what it has recorded."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=10)
    connection.request("GET", "/sandbox/runs")
    runs = json.loads(connection.getresponse().read())
    connection.close()
    print(f"Anymate recorded (GET {url}/sandbox/runs):")
    for run in runs:
        state = "finished" if run["finished"] else "still open"
        print(
            f"  run {run['runId']} on {run['processKey']}: {state}, "
            f"{run['creditedEntries']} entries, {run['creditedSecondsSaved']} seconds saved"
        )

"""Makes the README's picture of the page: `python -m tests.page.screenshot docs/sandbox.png`."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from anymate_guard import AnymateClient, Kpis, Settings
from anymate_guard.sandbox import Sandbox

from .conftest import started_chromium
from .support import Reader

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

KEYS = ("invoice-intake", "payroll-export", "claims-sorting")
RUNS = 60
FAILURES = {17: "ValueError: invoice 2026-0417 has no VAT number", 49: "TimeoutError: the ERP gave no answer"}


class Clock:
    """A clock that can be set back, so that an hour of runs takes a second."""

    def __init__(self) -> None:
        """Begin an hour ago."""
        self.back = 3600.0

    def __call__(self) -> float:
        """Return the time."""
        return time.time() - self.back


def work(sandbox: Sandbox, clock: Clock) -> None:
    """Do what a few bots do in an hour."""
    chance = random.Random(7)
    sandbox.set_tokens(lifetime=100_000)
    sandbox.set_process("payroll-export", entries=10, seconds_saved_per_entry=30)
    with AnymateClient(Settings.from_env(sandbox.environ)) as client:
        for number in range(RUNS):
            key = chance.choice(KEYS)
            run_id = client.start_run(key)
            clock.back -= chance.uniform(10, 80)
            entries, seconds = chance.randint(3, 60), chance.randint(300, 9000)
            client.finish_run(run_id, chance.choice([Kpis(), Kpis(entries), Kpis(entries, seconds)]))
            if number in FAILURES:
                client.failure(key, FAILURES[number])
            clock.back -= chance.uniform(0, 20)
        sandbox.set_process("month-end-closing", stopped=True)
        clock.back = 40
        client.start_run("invoice-intake")
        client.ok_to_run("month-end-closing")
        sandbox.fail_next("FinishRun", status=503)
        clock.back = 0


def main(path: Path) -> None:
    """Take the picture."""
    clock = Clock()
    with Sandbox(8765, clock=clock) as sandbox, tempfile.TemporaryDirectory() as folder:
        work(sandbox, clock)
        driver: Chrome = started_chromium(Path(folder))
        reader = Reader(driver, sandbox.url)
        reader.look_like(1280, 940)
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        reader.open()
        reader.reads("runs", "Running")
        driver.save_screenshot(os.fspath(path))
        driver.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

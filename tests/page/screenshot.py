"""Makes the documentation's picture of the page: `python -m tests.page.screenshot docs/sandbox.png`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from anymate_guard.sandbox import Sandbox

from .bots import Clock, work
from .conftest import started_chromium
from .support import Reader

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


def main(path: Path) -> None:
    """Take the picture."""
    clock = Clock()
    with Sandbox(8642, clock=clock) as sandbox, tempfile.TemporaryDirectory() as folder:
        work(sandbox, clock, processes=6, runs=200)
        driver: Chrome = started_chromium(Path(folder))
        reader = Reader(driver, sandbox.url)
        reader.look_like(1280, 1390)
        driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        failed = sandbox.failures()[-1]["processKey"]
        run = [run for run in sandbox.runs() if run["processKey"] == failed][-1]
        reader.open(f"/?run={run['runId']}")
        reader.reads("runs", "Running", "Requests")
        driver.save_screenshot(os.fspath(path))
        driver.quit()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

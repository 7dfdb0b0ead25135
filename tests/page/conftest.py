"""A headless Chromium for all tests, and the page open in it for each."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from .support import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from anymate_guard.sandbox import Sandbox

OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # CI runs as root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1000",
)


def started_chromium(folder: Path) -> webdriver.Chrome:
    """Start a browser with a profile in a folder."""
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        pytest.fail("the tests of the page need Debian's packages chromium and chromium-driver", pytrace=False)
    options = webdriver.ChromeOptions()
    options.binary_location = str(paths[0])
    for option in (*OPTIONS, f"--user-data-dir={folder}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    os.environ["SE_AVOID_STATS"] = "true"
    return webdriver.Chrome(options, Service(str(paths[1])))


@pytest.fixture(scope="session", name="chromium")
def _chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = started_chromium(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


@pytest.fixture(name="reader")
def _reader(sandbox: Sandbox, chromium: webdriver.Chrome) -> Iterator[Reader]:
    """Open the page at desktop size; complain afterwards about errors and calls to anywhere else."""
    reader = Reader(chromium, sandbox.url)
    reader.look_like()
    reader.open()
    yield reader
    sandbox.show_journal(None)
    sandbox.start()  # in case the test closed it
    reader.leave()
    assert reader.console == []
    assert reader.strange_requests == []

"""A browser that only reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from anymate_guard.sandbox import Sandbox

from ..support import Bot


@pytest.fixture(name="browser")
def _browser(sandbox: Sandbox) -> Iterator[Bot]:
    browser = Bot(sandbox)
    yield browser
    browser.close()

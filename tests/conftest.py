"""What every test starts from: a local Anymate, an environment that points at it, and a journal of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from anymate_guard import _defaults
from anymate_guard.sandbox import Sandbox


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    """Serve one sandbox for all tests of this process."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sandbox]:
    """Give a sandbox that knows nothing yet, to which the environment of this test points."""
    for name in os.environ:
        if name.startswith("ANYMATE_"):
            monkeypatch.delenv(name)
    for name, value in running_sandbox.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ANYMATE_STATE_DIR", str(tmp_path / "state"))
    _defaults.forget_client()
    running_sandbox.start()  # in case a test closed it
    running_sandbox.reset()
    yield running_sandbox
    _defaults.forget_client()

"""What every test starts from: a local Anymate, an environment that points at it, and a journal of its own."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from structlog.testing import capture_logs

from anymate_guard import AnymateClient
from anymate_guard._guard import defaults
from anymate_guard.sandbox import Sandbox
from tests.support.clients import client_of
from tests.support.clock import Clock
from tests.support.proxy import FaultProxy
from tests.support.sandboxes import KeepsItsPort

# Fixtures stay the same from one example to the next, as a sandbox does for a bot; and a busy machine is no fault.
settings.register_profile(
    "any", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
settings.load_profile("any")


@pytest.fixture(scope="session")
def running_sandbox() -> Iterator[Sandbox]:
    """Serve one sandbox for all tests of this process."""
    sandbox = KeepsItsPort()
    with sandbox:
        yield sandbox
    sandbox.give_up_port()


@pytest.fixture
def sandbox(running_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Sandbox]:
    """Give a sandbox that knows nothing yet, to which the environment of this test points."""
    for name in os.environ:
        if name.startswith("ANYMATE_"):
            monkeypatch.delenv(name)
    for name, value in running_sandbox.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ANYMATE_STATE_DIR", str(tmp_path / "state"))
    defaults.forget_client()
    running_sandbox.start()  # in case a test closed it
    running_sandbox.reset()
    yield running_sandbox
    defaults.forget_client()


@pytest.fixture(name="proxy")
def _proxy(sandbox: Sandbox) -> Iterator[FaultProxy]:
    with FaultProxy(sandbox.url) as proxy:
        yield proxy


@pytest.fixture(name="client")
def _client(sandbox: Sandbox, proxy: FaultProxy) -> Iterator[AnymateClient]:
    """A patient client that calls the sandbox by way of the proxy."""
    with client_of(sandbox, proxy.url) as client:
        yield client


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that our code goes by."""
    clock = Clock()
    for name in ("monotonic", "time", "sleep"):
        monkeypatch.setattr(f"time.{name}", getattr(clock, name))
    return clock


@pytest.fixture(name="no_garbage_collector")
def _no_garbage_collector() -> Iterator[None]:
    """Garbage is collected only when the test does so."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(name="capture")
def _capture() -> Iterator[list[MutableMapping[str, Any]]]:
    """The log lines of the test."""
    with capture_logs() as lines:
        yield lines
    structlog.reset_defaults()

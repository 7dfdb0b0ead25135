"""A proxy that breaks calls, before the sandbox of the test."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from anymate_guard import AnymateClient
from anymate_guard.sandbox import Sandbox
from tests.support.clients import client_of
from tests.support.proxy import FaultProxy


@pytest.fixture(name="proxy")
def _proxy(sandbox: Sandbox) -> Iterator[FaultProxy]:
    with FaultProxy(sandbox.url) as proxy:
        yield proxy


@pytest.fixture(name="client")
def _client(sandbox: Sandbox, proxy: FaultProxy) -> Iterator[AnymateClient]:
    """A client that calls the sandbox by way of the proxy, with a second for each read and ten in all."""
    with client_of(sandbox, proxy.url, timeout=1, deadline=10) as client:
        yield client


@pytest.fixture(name="capture")
def _capture() -> Iterator[list[MutableMapping[str, Any]]]:
    """The log lines of the test."""
    with capture_logs() as lines:
        yield lines
    structlog.reset_defaults()

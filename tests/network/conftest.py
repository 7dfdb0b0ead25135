"""Servers behind TLS and proxies, as companies have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from anymate_guard.sandbox import Sandbox
from tests.support.forward import ForwardProxy, certified
from tests.support.proxy import FaultProxy


@pytest.fixture(name="authority", scope="session")
def _authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(name="bundle")
def _bundle(authority: trustme.CA, tmp_path: Path) -> Path:
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    return bundle


@pytest.fixture(name="secure")
def _secure(sandbox: Sandbox, authority: trustme.CA) -> Iterator[FaultProxy]:
    """The sandbox behind TLS."""
    with FaultProxy(sandbox.url, tls=certified(authority, "127.0.0.1")) as proxy:
        yield proxy


@pytest.fixture(name="forward")
def _forward() -> Iterator[ForwardProxy]:
    with ForwardProxy() as proxy:
        yield proxy


@pytest.fixture(name="secure_forward")
def _secure_forward(authority: trustme.CA) -> Iterator[ForwardProxy]:
    """A proxy that is reached over TLS itself."""
    with ForwardProxy(tls=certified(authority, "127.0.0.1")) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)

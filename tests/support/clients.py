"""Clients and settings for a sandbox, perhaps by way of a proxy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from anymate_guard import AnymateClient, Settings
from anymate_guard.sandbox import Sandbox


def settings_of(sandbox: Sandbox, url: str = "", **changes: Any) -> Settings:
    """Settings that log in at a sandbox, at its own address or at another one."""
    environ = sandbox.environ
    names = ("client_id", "client_secret", "username", "password", "api_url", "auth_url")
    fields: dict[str, Any] = {name: environ[f"ANYMATE_{name.upper()}"] for name in names}
    if url:
        fields.update(api_url=url, auth_url=url)
    return Settings(**{**fields, **changes})


def client_of(sandbox: Sandbox, url: str = "", **changes: Any) -> AnymateClient:
    """A client with these settings."""
    return AnymateClient(settings_of(sandbox, url, **changes))


@contextlib.contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    """Fail when the block takes longer than a deadline of that many seconds and one more."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds + 1


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Look again and again until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.005)

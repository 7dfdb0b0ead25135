"""Clients and settings for a sandbox, perhaps by way of a proxy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from anymate_guard import AnymateClient, Settings
from anymate_guard._deadline import Deadline
from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST


def settings_of(sandbox: Sandbox, url: str = "", **changes: Any) -> Settings:
    """Patient settings that log in at a sandbox, at its own address or at another one, with the journal of the test."""
    environ = sandbox.environ
    names = ("client_id", "client_secret", "username", "password", "api_url", "auth_url")
    fields: dict[str, Any] = {"timeout": LONGEST, "deadline": LONGEST}
    fields.update({name: environ[f"ANYMATE_{name.upper()}"] for name in names})
    if "ANYMATE_STATE_DIR" in os.environ:
        fields["state_dir"] = Path(os.environ["ANYMATE_STATE_DIR"])
    if url:
        fields.update(api_url=url, auth_url=url)
    return Settings(**{**fields, **changes})


def client_of(sandbox: Sandbox, url: str = "", **changes: Any) -> AnymateClient:
    """A client with these settings."""
    return AnymateClient(settings_of(sandbox, url, **changes))


def one_try() -> Deadline:
    """A patient deadline for one try."""
    return Deadline.after(LONGEST)._replace(retry=False)

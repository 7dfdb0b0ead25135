"""A run guard for bots on Anymate: StartRun on entry, always FinishRun on exit, and nothing lost in between.

Example:
    from anymate_guard import anymate_run

    with anymate_run("invoice-intake") as run:
        run.add_entries(3)
"""

from anymate_guard._client import AnymateClient
from anymate_guard._guard import anymate_run
from anymate_guard._run import Kpis, Run, current_run
from anymate_guard._settings import Settings
from anymate_guard.errors import (
    AnymateGuardError,
    ApiError,
    AuthenticationError,
    ConfigurationError,
    NoCurrentRun,
    NotOkToRun,
    UnreachableError,
)

__all__ = [
    "AnymateClient",
    "AnymateGuardError",
    "ApiError",
    "AuthenticationError",
    "ConfigurationError",
    "Kpis",
    "NoCurrentRun",
    "NotOkToRun",
    "Run",
    "Settings",
    "UnreachableError",
    "anymate_run",
    "current_run",
]

"""A run guard for bots on Anymate: StartRun on entry, always FinishRun on exit, and nothing lost in between.

Example:
    from anymate_guard import anymate_run

    with anymate_run("invoice-intake") as run:
        run.add_entries(3)
"""

TYPE_CHECKING = False  # checkers take it for typing's, whose import takes 4 ms

__version__ = "0.1.0"

if TYPE_CHECKING:
    from anymate_guard._api.client import AnymateClient
    from anymate_guard._guard.guard import anymate_run
    from anymate_guard._run.current import current_run
    from anymate_guard._run.kpis import Kpis
    from anymate_guard._run.run import Run
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

# pytest imports this package in every project it is installed in, so names are imported when they are first used.
_HOMES = {
    "AnymateClient": "_api.client",
    "Kpis": "_run.kpis",
    "Run": "_run.run",
    "Settings": "_settings",
    "anymate_run": "_guard.guard",
    "current_run": "_run.current",
}


if not TYPE_CHECKING:  # a checker would take any name for one that exists

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

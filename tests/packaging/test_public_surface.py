"""What `import anymate_guard` gives, and what it costs."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest

import anymate_guard

NAMES = {
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
}


def python(code: str) -> str:
    """What a fresh interpreter prints; one that coverage has not filled with imports of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.check_output([sys.executable, "-c", code], env=environ, text=True)


def test_exactly_the_promised_names() -> None:
    """The package exports the names of its documentation, sorted, and no others."""
    assert anymate_guard.__all__ == sorted(NAMES)
    for name in NAMES:
        assert hasattr(anymate_guard, name)


def test_star_import() -> None:
    """`from anymate_guard import *` works and gives the same names."""
    found = python("from anymate_guard import *; print(*(n for n in dir() if not n.startswith('__')))")
    assert set(found.split()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_explains_itself(name: str) -> None:
    """Every public name and every public method has a docstring of its own."""
    thing = getattr(anymate_guard, name)
    assert thing.__doc__
    if inspect.isclass(thing):
        for attribute, value in vars(thing).items():
            if not attribute.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
                assert value.__doc__, f"{name}.{attribute}"


@pytest.mark.parametrize("module", ["asyncio", "pytest", "requests", "structlog", "werkzeug"])
def test_import_is_cheap(module: str) -> None:
    """Importing the package does not load what only some programs need, or need only later."""
    assert python(f"import sys, anymate_guard; print({module!r} in sys.modules)") == "False\n"


def test_names_are_listed() -> None:
    """An editor finds every public name, and a name that does not exist is refused as in any module."""
    assert set(anymate_guard.__all__) <= set(dir(anymate_guard))
    assert not hasattr(anymate_guard, "no_such_name")

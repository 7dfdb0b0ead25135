"""The tests judge the installed package, with the dependencies they say they do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import anymate_guard

# Reads requests>=2.32.2 as well as werkzeug>=3.0; extra == "sandbox"
LOWER_BOUND = re.compile(r"(?P<name>[\w.-]+)(<\d+,)?>=(?P<version>[\d.]+)(,<\d+)?(;.*)?")


@pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="outside of tox, testing the checkout is fine")
def test_not_the_checkout() -> None:
    """Under tox the tests import the wheel, also in the processes they start, and not the checkout."""
    found = [
        anymate_guard.__file__,
        subprocess.check_output(
            [sys.executable, "-c", "import anymate_guard; print(anymate_guard.__file__)"], text=True
        ),
    ]
    for file in found:
        assert Path(sys.prefix) in Path(file.strip()).parents


def test_every_dependency_has_a_lower_bound() -> None:
    """Each dependency says which version is old enough."""
    requirements = metadata.requires("anymate-guard")
    assert requirements
    for requirement in requirements:
        assert LOWER_BOUND.fullmatch(requirement), requirement


@pytest.mark.skipif("TESTS_OLDEST" not in os.environ, reason="only tox's environment oldest installs them")
def test_the_oldest_are_installed() -> None:
    """In the environment "oldest", each dependency is at its lower bound."""
    for requirement in metadata.requires("anymate-guard") or ():
        bound = LOWER_BOUND.fullmatch(requirement)
        assert bound
        assert metadata.version(bound["name"]) == bound["version"], requirement


SCRIPT = Path(sys.executable).with_name("anymate-guard.exe" if sys.platform == "win32" else "anymate-guard")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            [str(SCRIPT)],
            marks=pytest.mark.skipif(
                sys.platform == "win32" and not SCRIPT.exists(), reason="pip on Linux makes no script for Windows"
            ),
        ),
        [sys.executable, "-m", "anymate_guard"],
    ],
    ids=["anymate-guard", "python -m anymate_guard"],
)
def test_the_command_knows_its_version(command: list[str]) -> None:
    """`anymate-guard --version` and `python -m anymate_guard --version` print the installed version."""
    printed = subprocess.check_output([*command, "--version"], text=True)
    assert metadata.version("anymate-guard") in printed

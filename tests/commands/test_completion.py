"""Completion of commands and options by the shell."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from .support import ended

if sys.platform == "win32":
    pytest.skip("no pseudo-terminals there", allow_module_level=True)

from tests.support.screen import Screen


@pytest.fixture(name="shell")
def _shell(tmp_path: Path) -> Path:
    """A folder of programs in which `anymate-guard` is the one under test."""
    command = tmp_path / "anymate-guard"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m anymate_guard "$@"\n')
    command.chmod(0o700)
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("anymate-guard jo", "anymate-guard journal "),
        ("anymate-guard exec --report", "anymate-guard exec --report-failure "),
        ("anymate-guard demo --log-format j", "anymate-guard demo --log-format json "),
        ("anymate-guard journal de", "anymate-guard journal deliver "),
        ("anymate-guard exec jobs -- mybot --report", "anymate-guard exec jobs -- mybot --report"),
    ],
)
def test_bash(shell: Path, typed: str, completed: str) -> None:
    """After the line that `completion --help` shows, Tab in bash completes commands, options and their values."""
    (line,) = [line for line in ended("completion", "--help").stdout.splitlines() if "eval" in line and "bash" in line]
    path = f"{shell}{os.pathsep}{os.environ['PATH']}"
    terminal = Screen("bash", "--noprofile", "--norc", "-i", PATH=path, PS1="> ", HOME=str(shell))
    try:
        terminal.type(f'{line.split(maxsplit=1)[1]}; echo "rea"dy\n')
        terminal.until("\nready\n>")
        terminal.type(f"{typed}\t# here\n")
        terminal.until("# here")
        assert f"> {completed}# here" in terminal.lines
    finally:
        terminal.close()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_shells(shell: str) -> None:
    """`completion` prints a script for each shell that `--help` names, and the line that uses it."""
    done = ended("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert "anymate-guard" in done.stdout
    assert f"anymate-guard completion {shell}" in ended("completion", "--help").stdout


def test_unknown_shell() -> None:
    """For another shell it says which there are, with exit code 2."""
    done = ended("completion", "ksh")
    assert done.returncode == 2
    assert "'ksh' (choose from" in done.stderr

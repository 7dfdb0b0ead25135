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


_CTRL_U = "\x15"  # takes the line back
TYPED = [
    ("anymate-guard jo", "anymate-guard journal "),
    ("anymate-guard exec --report", "anymate-guard exec --report-failure "),
    ("anymate-guard demo --log-format j", "anymate-guard demo --log-format json "),
    ("anymate-guard journal de", "anymate-guard journal deliver "),
    ("anymate-guard exec jobs -- mybot --report", "anymate-guard exec jobs -- mybot --report"),
]
SHELLS = {  # how each is started without a person's own files, with this prompt
    "bash": (["bash", "--noprofile", "--norc", "-i"], ""),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u; "),
    "fish": (["setsid", "--ctty", "fish", "--no-config", "-i"], "function fish_prompt; echo -n '> '; end; "),
}


@pytest.mark.parametrize("name", SHELLS)
def test_tab(shell: Path, name: str) -> None:
    """After the line that `completion --help` shows, Tab completes commands, options and their values."""
    words, first = SHELLS[name]
    if shutil.which(words[0]) is None or shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    lines = [
        line.split(maxsplit=1) for line in ended("completion", "--help").stdout.splitlines() if "guard comp" in line
    ]
    line = dict(line for line in lines if line[0] == name)[name].partition("  #")[0]
    path = f"{shell}{os.pathsep}{os.environ['PATH']}"
    terminal = Screen(*words, PATH=path, PS1="> ", HOME=str(shell))
    try:
        terminal.type(f'{first}{line.partition("  #")[0]}; echo "rea"dy\n')
        terminal.until("\nready\n>")
        for typed, completed in TYPED:
            terminal.type(f"{typed}\t")
            terminal.until(f"> {completed.rstrip()}")
            terminal.type("# here")
            terminal.until(f"> {completed}# here")
            terminal.type(_CTRL_U)  # no Enter, after which the shell listens only when its prompt is there again
            terminal.gone("# here")
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

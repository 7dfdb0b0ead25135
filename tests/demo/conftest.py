"""The demo as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Demo = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(name="environ")
def _environ(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose own settings and journal the demo must leave alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANYMATE_")}
    return {**kept, "ANYMATE_STATE_DIR": str(tmp_path / "users-own"), "PYTHONIOENCODING": "utf-8"}


@pytest.fixture(name="start")
def _start(environ: dict[str, str], tmp_path: Path) -> Demo:
    """Starts the demo."""

    def start(*arguments: str | Path, stderr: int = subprocess.PIPE, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "anymate_guard", "demo", *arguments],
            cwd=tmp_path,
            env={**environ, **more},
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            start_new_session=True,
        )

    return start

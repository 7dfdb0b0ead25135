"""An example as a process of its own, against a sandbox."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST

EXAMPLES = Path(__file__).parents[2] / "examples"

Example = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(name="sandbox")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(name="example")
def _example(sandbox: Sandbox, tmp_path: Path) -> Example:
    """Runs an example to its end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANYMATE_")}
    settings = {**sandbox.environ, "ANYMATE_STATE_DIR": str(tmp_path / "state")}

    def example(name: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, EXAMPLES / name, *arguments],
            cwd=tmp_path,
            env={**kept, **settings, **more},
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )

    return example

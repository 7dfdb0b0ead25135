"""A sandbox, and an example that runs against it; nobody else gets to know the credentials."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from anymate_guard.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[2] / "examples"

Example = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(name="sandbox")
def _sandbox() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture(name="bare", autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take Anymate's settings out of the environment, so that workers have none."""
    for name in os.environ:
        if name.startswith("ANYMATE_"):
            monkeypatch.delenv(name)


@pytest.fixture(name="example")
def _example(sandbox: Sandbox, tmp_path: Path) -> Iterator[Example]:
    """Start an example, which is ended with the test at the latest."""
    started = []

    def example(name: str, *arguments: object, **more: str) -> subprocess.Popen[str]:
        settings = {**sandbox.environ, "ANYMATE_STATE_DIR": str(tmp_path / "state")}
        process = subprocess.Popen(
            [sys.executable, EXAMPLES / name, *map(str, arguments)],
            env={**os.environ, **settings, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield example
    for process in started:
        with process:
            process.kill()


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> list[Path]:
    """Write four files with 0, 1, 2 and 3 invoices, of 90 seconds each."""
    paths = []
    for number in range(4):
        paths.append(tmp_path / f"invoices-{number}.csv")
        paths[-1].write_text("number,minutes\n" + f"2026-{number},1.5\n" * number, encoding="utf-8")
    return paths


def done(process: subprocess.Popen[str]) -> str:
    """Wait for an example that goes well, and return what it printed."""
    output, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    return output


def recorded(sandbox: Sandbox) -> tuple[int | None, int | None]:
    """Return what was reported for the one run there is, which is finished."""
    (run,) = sandbox.runs()
    assert run["finished"]
    assert run["processKey"] == "invoice-intake"
    return run["overwriteEntries"], run["overwriteSecondsSaved"]

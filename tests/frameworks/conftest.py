"""A folder for each test, with the programs of a page in it, and a Redis that they may use."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anymate_guard.sandbox import Sandbox

from .support import programs, until

Page = Callable[[str], None]


@pytest.fixture(autouse=True)
def _folder(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own, where programs find each other, without coverage."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


@pytest.fixture(name="page")
def _page(tmp_path: Path) -> Page:
    """Write the programs of a page into the folder of the test, perhaps with other bodies."""

    def page(name: str) -> None:
        for program, text in programs(name).items():
            (tmp_path / program).write_text(text, encoding="utf-8")

    return page


@pytest.fixture(name="broker")
def _broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Redis, in `BROKER` too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", tmp_path],
        stdout=subprocess.DEVNULL,
    ) as server:
        try:
            until(lambda: _listens(port))
            monkeypatch.setenv("BROKER", f"redis://127.0.0.1:{port}/0")
            yield os.environ["BROKER"]
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0

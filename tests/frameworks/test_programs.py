"""Web services, notebooks and frozen programs."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import textwrap
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import jupyter_client
import nbclient
import nbformat
import pytest

from anymate_guard.sandbox import Sandbox

from .conftest import Page
from .support import (
    GO_ON,
    INSIDE,
    PLACES,
    WAIT,
    command,
    done,
    finished,
    kill_inside,
    programs,
    python,
    runs,
    started,
    until,
    wait_after,
)

ARCHIVE = "def archive(invoices: list[str]) -> int:\n"


def test_no_page_is_left_out() -> None:
    """Each program, manifest and command line of these pages is in the tests of this folder."""
    tests = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    for page in PLACES.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        languages = re.findall(r"^```(\S+)$", text, re.MULTILINE)
        assert set(languages) <= {"python", "yaml", "console", "powershell", "{toctree}"}
        named = re.findall(r"^```(?:python|yaml)\n# (\w+\.\w+)$", text, re.MULTILINE)
        assert len(named) == languages.count("python") + languages.count("yaml"), page
        for name in named:
            assert name.removesuffix(".py") in tests, name
        if languages.count("console"):
            assert page.name in tests
        for line in re.findall(r"^\$ (\S+)", text, re.MULTILINE):
            assert line in tests, line


def _free() -> str:
    """An address on loopback that nobody listens on."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return "{}:{}".format(*server.getsockname())


def _post(address: str, path: str, count: int) -> int:
    """Let a web service book some invoices."""
    body = json.dumps(["2026"] * count).encode()
    request = urllib.request.Request(f"http://{address}{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        booked: int = json.load(answer)
        return booked


def _post_in_vain(address: str, path: str, count: int) -> None:
    """Let a web service book some invoices, which never answers."""
    with contextlib.suppress(OSError):
        _post(address, path, count)


def _listens(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0


def test_a_web_service(sandbox: Sandbox, page: Page) -> None:
    """Each request is a run of its own, whether its function is a coroutine or runs in a thread."""
    page("web-services.md")
    address = _free()
    with started(shell=command("web-services.md", "gunicorn"), BIND=address) as service:
        until(lambda: _listens(address))
        assert [_post(address, "/book", 2), _post(address, "/archive", 3)] == [2, 3]
        assert runs(sandbox) == [("invoice-archive", 3, None), ("invoice-intake", 2, None)]
        service.send_signal(signal.SIGTERM)
        service.communicate(timeout=60)


def test_a_web_service_is_stopped(sandbox: Sandbox, page: Page) -> None:
    """SIGTERM lets a request end, and its run is finished with all that it recorded."""
    page("web-services.md")
    wait_after("web_bot.py", ARCHIVE)
    address = _free()
    with started(shell=command("web-services.md", "gunicorn"), BIND=address) as service:
        until(lambda: _listens(address))
        asking = threading.Thread(target=_post, args=(address, "/archive", 3))
        asking.start()
        until(INSIDE.exists)
        service.send_signal(signal.SIGTERM)
        until(lambda: not _listens(address))
        GO_ON.touch()
        asking.join()
        service.communicate(timeout=60)
    assert runs(sandbox) == [("invoice-archive", 3, None)]


def test_a_web_service_is_killed(sandbox: Sandbox, page: Page) -> None:
    """What a request had recorded when its worker was killed is credited by the next one."""
    page("web-services.md")
    wait_after("web_bot.py", f"{ARCHIVE}    current_run().add_entries(len(invoices))\n")
    address = _free()
    with started(shell=command("web-services.md", "gunicorn"), BIND=address):
        until(lambda: _listens(address))
        asking = threading.Thread(target=_post_in_vain, args=(address, "/archive", 3))
        asking.start()
        kill_inside()
        asking.join()
        GO_ON.touch()
        assert _post(address, "/archive", 1) == 1  # by the other worker, or a new one
    assert runs(sandbox) == [("invoice-archive", 4, None)]


def test_a_notebook(sandbox: Sandbox) -> None:
    """A cell with a guard is a run, and so is one with `async with` at its top level."""
    cell = programs("notebooks.md")["cell.py"]
    other = cell.replace("with anymate_run", "async with anymate_run").replace("intake", "archive")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in (cell, other)])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    assert runs(sandbox) == [("invoice-archive", 3, None), ("invoice-intake", 3, None)]


@pytest.fixture(name="kernel")
def _kernel() -> Iterator[jupyter_client.KernelManager]:
    """A kernel that is busy with the cell of the page, which waits once it has recorded."""
    manager, client = jupyter_client.manager.start_new_kernel()
    try:
        cell = programs("notebooks.md")["cell.py"]
        client.execute(cell + textwrap.indent(WAIT, "    "))
        until(INSIDE.exists)
        yield manager
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_notebook_is_interrupted(sandbox: Sandbox, kernel: jupyter_client.KernelManager) -> None:
    """A cell that is interrupted leaves its guard, and the run is finished with what was recorded."""
    kernel.interrupt_kernel()
    until(lambda: finished(sandbox))
    assert runs(sandbox) == [("invoice-intake", 3, None)]


def test_a_notebook_is_killed(sandbox: Sandbox, kernel: jupyter_client.KernelManager) -> None:
    """What a cell had recorded when its kernel was killed is credited when the cell runs again."""
    kill_inside()
    python(programs("notebooks.md")["cell.py"])
    assert runs(sandbox) == [("invoice-intake", 6, None)]


def test_a_frozen_program(sandbox: Sandbox, page: Page) -> None:
    """A program that PyInstaller packed into one file has a run, also when it is stopped or killed."""
    page("frozen-programs.md")
    wait_after("frozen_bot.py", "        run.add_entries(3)\n", depth=8)
    # What structlog and requests use if it is there, as it is here for other tests, would be packed too: 40 s more.
    without = "".join(f" --exclude-module {name}" for name in ("cryptography", "gevent", "rich", "setuptools"))
    done(shell=command("frozen-programs.md", "pyinstaller") + without)
    with started("dist/frozen_bot") as bot:
        until(INSIDE.exists)
        bot.send_signal(signal.SIGTERM)
        output = bot.communicate(timeout=60)[0]
        assert bot.returncode == 143, output
    assert runs(sandbox) == [("invoice-intake", 3, None)]
    INSIDE.unlink()
    with started("dist/frozen_bot"):
        kill_inside()
    GO_ON.touch()
    done("dist/frozen_bot")
    assert runs(sandbox) == [("invoice-intake", 3, None), ("invoice-intake", 6, None)]

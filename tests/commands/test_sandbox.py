"""`anymate-guard sandbox`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .support import TIMEOUT, ended, started


def exports(lines: list[str]) -> dict[str, str]:
    """The variables that a shell sets when these lines are pasted into it."""
    script = "".join(lines) + "env"
    clean = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["sh", "-c", script], env=clean, capture_output=True, text=True, timeout=TIMEOUT, check=True)
    variables = dict(line.split("=", 1) for line in done.stdout.splitlines())
    return {name: value for name, value in variables.items() if name.startswith("ANYMATE_")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serves_until_stopped(number: signal.Signals, tmp_path: Path) -> None:
    """The lines on stdout point a bot at the sandbox; Ctrl-C and SIGTERM end it with exit code 0."""
    with started("sandbox") as process:
        assert process.stdout is not None
        settings = exports([process.stdout.readline() for _ in range(6)])
        assert len(settings) == 6
        checked = ended("check", "invoice-intake", **settings, ANYMATE_STATE_DIR=str(tmp_path))
        assert checked.returncode == 0, checked.stdout
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out) == (0, "")
    where = settings["ANYMATE_API_URL"]
    assert err == f"anymate-guard sandbox: serves a local Anymate on {where} until Ctrl-C or SIGTERM\n"


def test_port() -> None:
    """A port of one's own is taken; one that is taken already is said in one line, with exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        done = ended("sandbox", "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"anymate-guard sandbox: can't serve on port {port}: ")
    with started("sandbox", "--port", port) as process:
        assert process.stdout is not None
        assert f"'http://127.0.0.1:{port}'" in "".join(process.stdout.readline() for _ in range(6))


@pytest.mark.parametrize("port", ["-1", "65536", "http", "1.5", "9" * 5000])
def test_wrong_port(port: str) -> None:
    """What can't be a port is refused, by its value."""
    done = ended("sandbox", f"--port={port}")
    assert done.returncode == 2
    assert f"must be a whole number from 0 to 65535, got '{port}'" in done.stderr


def test_without_the_extra() -> None:
    """Without the extra it says what to install, and exits with 2."""
    program = (
        "import sys\nsys.modules['werkzeug'] = None\n"
        "from anymate_guard.__main__ import main\nsys.exit(main(['sandbox']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'anymate_guard[sandbox]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1

"""The command line as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.support.bots import run_bot
from tests.support.waiting import LONGEST

from .support import COMMAND, ended, needs_sh


def test_version() -> None:
    """`--version` prints the version that is installed."""
    done = ended("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{metadata.version('anymate-guard')}\n", "")


def test_version_is_quick() -> None:
    """`--version` imports nothing of what other commands need."""
    program = (
        "import sys\n"
        "from anymate_guard.__main__ import main\n"
        "try:\n    main(['--version'])\n"
        "except SystemExit:\n    print({'requests', 'structlog', 'werkzeug'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONGEST, check=True)
    assert done.stdout.splitlines()[1:] == ["set()"]


@pytest.mark.parametrize("words", [["journal"], ["journal", "deliver"], ["history"], ["check"], ["exec", "k", "true"]])
def test_no_structlog(sandbox: object, words: list[str]) -> None:
    """A command that shows no log lines does not import structlog, which would take as long as all the rest."""
    program = (
        "import sys\n"
        "from anymate_guard.__main__ import main\n"
        f"print(main({words}), 'structlog' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=LONGEST, check=True)
    assert done.stderr.splitlines()[-1] == "0 False"


def test_no_command() -> None:
    """Without a command it says which there are, and exits with 2."""
    done = ended()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ended("--help").stdout
    for name in ("sandbox", "demo", "exec", "check", "journal"):
        assert f"\n    {name} " in done.stderr


def test_reader_that_leaves(sandbox: object) -> None:
    """A reader that leaves early, as `head` does, sees no traceback."""
    read, write = os.pipe()
    os.close(read)
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(
        [*COMMAND, "journal"],
        env=buffered,
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=LONGEST,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
def test_output_that_cannot_be_written(sandbox: object) -> None:
    """Where its output can't be written, a command fails and says why."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "journal"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=LONGEST, check=False
        )
    assert (done.returncode, done.stderr) == (1, "anymate-guard journal: [Errno 28] No space left on device\n")


def test_output_into_a_text(sandbox: object) -> None:
    """A program can run a command itself, and take its output as text."""
    done = run_bot("""
        import contextlib, io
        from anymate_guard.__main__ import main
        with contextlib.redirect_stdout(io.StringIO()) as output:
            status = main(["journal", "--json"])
        print(status, output.getvalue())
        """)
    assert done.stdout.split() == ["0", "[]"]


@needs_sh
def test_closed_output(sandbox: object, tmp_path: Path) -> None:
    """A program started without stdout and stderr, as by some schedulers, does its work."""
    script = 'exec "$@" >&- 2>&-'
    marker = tmp_path / "marker"
    command = ["sh", "-c", script, "sh", *COMMAND, "exec", "--report-failure", "jobs", "--", "sh", "-c"]
    done = subprocess.run(
        [*command, f"touch {marker}; echo x=1 >> $ANYMATE_KPI_FILE; exit 3"], timeout=LONGEST, check=False
    )
    assert done.returncode == 3
    assert marker.exists()

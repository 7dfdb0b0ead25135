"""Every block of the README that a user is told to type, typed; and what it promises about names.

The section "Testing your bot" is run by the tests of the pytest plugin.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import attrs
import pytest

import anymate_guard
from anymate_guard import AnymateClient, Settings
from anymate_guard.sandbox import Sandbox

README = Path(__file__).parents[2] / "README.md"
PACKAGE = Path(anymate_guard.__file__).parent
BLOCK = re.compile(r"^#+ (?P<heading>[^\n]*)$|^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT = 60
SURROUNDINGS = """
invoices = ["2026-001", "2026-002", "2026-003"]

def post(invoice):
    assert invoice
"""
INSTALL = [
    'python -m venv .venv && .venv/bin/pip install ".[sandbox]" && .venv/bin/anymate-guard demo\n',
    "python -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox\n",
]


class Block(NamedTuple):
    """A block of code, and the section that it is in."""

    heading: str
    language: str
    text: str


def blocks(language: str) -> list[Block]:
    """The README's blocks in a language."""
    found, heading = [], ""
    for match in BLOCK.finditer(README.read_text(encoding="utf-8")):
        heading = match["heading"] or heading
        if match["language"] == language and heading != "Testing your bot":
            found.append(Block(heading, language, match["text"]))
    return found


COMMON = next(block.text for block in blocks("python") if block.heading == "Recipes")
PYTHON = [block for block in blocks("python") if block.heading != "Recipes"]
RECORDED = {
    "anymate_guard": [(3, 128)],
    "A decorated entrypoint": [(3, None)],
    "A batch with a stop button": [(3, None)],
    "KPIs": [(12, 120)],
    "Failures": [(None, None)],
    "Retry loops": [(1, None), (None, None)],
    "Restart loops": [(None, None)],
    "Async": [(3, None)],
    "Processes with tasks enabled": [(None, None)],
    "More than one machine": [(3, 128)],
}


needs_sh = pytest.mark.skipif(shutil.which("sh") is None, reason="the lines are for a POSIX shell, and there is none")


@pytest.fixture(name="typed")
def _typed(tmp_path: Path) -> Path:
    """A folder in which `anymate-guard` is the one under test."""
    command = tmp_path / "bin" / "anymate-guard"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m anymate_guard "$@"\n')
    command.chmod(0o700)
    return tmp_path


def shell(script: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Type a script into a shell."""
    return subprocess.run(
        ["sh", "-ec", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", **environ},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_no_block_is_left_out() -> None:
    """Each block is in a language that a test here knows."""
    text = README.read_text(encoding="utf-8")
    assert text.count("\n```") == 2 * sum(block.language in {"python", "sh", "console"} for block in every_block())
    assert {block.heading for block in PYTHON} == set(RECORDED)


def every_block() -> list[Block]:
    """All blocks, those of other tests too."""
    found = BLOCK.finditer(README.read_text(encoding="utf-8"))
    return [Block("", match["language"], match["text"]) for match in found if match["language"]]


def test_install() -> None:
    """The first two commands are exactly those that CI runs on a fresh machine."""
    assert [block.text for block in blocks("sh") if "pip install" in block.text] == INSTALL


@pytest.mark.parametrize("heading", RECORDED)
def test_python(sandbox: Sandbox, tmp_path: Path, heading: str) -> None:
    """A block of Python runs as it stands, as a program of its own; Anymate records what the text says."""
    run_id = "none"
    if heading == "Processes with tasks enabled":
        with AnymateClient(Settings.from_env()) as client:  # as TakeNext would
            run_id = str(client.start_run("invoice-intake"))
    for number, block in enumerate(block for block in PYTHON if block.heading == heading):
        program = tmp_path / f"program_{number}.py"
        text = block.text.replace("75616", run_id)
        program.write_text(f"{COMMON}{SURROUNDINGS}\n{text}", encoding="utf-8")
        done = subprocess.run(
            [sys.executable, program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    runs = sandbox.runs()
    assert all(run["finished"] and run["processKey"] == "invoice-intake" for run in runs)
    assert [(run["overwriteEntries"], run["overwriteSecondsSaved"]) for run in runs] == RECORDED[heading]


@needs_sh
@pytest.mark.parametrize("heading", list(dict.fromkeys(block.heading for block in blocks("console"))))
def test_console(sandbox: Sandbox, typed: Path, heading: str) -> None:
    """What follows a dollar sign can be typed into a shell, and succeeds."""
    lines = [line for block in blocks("console") if block.heading == heading for line in block.text.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    assert commands
    for command in commands:
        done = shell(command, typed)
        assert (done.returncode, done.stderr) == (0, "")
    assert all(run["finished"] for run in sandbox.runs())


@needs_sh
def test_settings(typed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings can be pasted into a shell, for the cloud and for an Anymate on premises."""
    for name in [name for name in os.environ if name.startswith("ANYMATE_")]:
        monkeypatch.delenv(name)
    for name in ("anymate-client-secret", "anymate-password"):
        (typed / name).write_text("a secret\n")
    cloud, on_premises = [block.text for block in blocks("sh") if "export " in block.text]
    show = f"{sys.executable} -c 'from anymate_guard import Settings; print(Settings.from_env().api_url)'"
    for script, address in (
        (cloud, "https://acme.anymate.app"),
        (cloud + on_premises, "https://anymate.acme.example"),
    ):
        done = shell(f"{script.replace('/run/secrets', str(typed))}\n{show}", typed)
        assert (done.stdout, done.stderr) == (f"{address}\n", "")


def test_names() -> None:
    """Every log event, setting and command that the README names exists, and the other way round."""
    text = README.read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    assert set(re.findall(r"`(anymate\.\w+)`", text)) == set(re.findall(r'"(anymate\.[a-z_]+)"', source))
    settings = {f"ANYMATE_{field.name.upper()}" for field in attrs.fields(Settings)}
    named = set(re.findall(r"\bANYMATE_[A-Z_]+\b", text))
    assert named - settings == {
        "ANYMATE_CLIENT_SECRET_FILE",
        "ANYMATE_PASSWORD_FILE",
        "ANYMATE_KPI_FILE",
        "ANYMATE_RUN_ID",
    }
    assert settings <= named


def test_links() -> None:
    """Every link to a file or a section leads somewhere."""
    text = README.read_text(encoding="utf-8")
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in anchors
        elif "://" not in target:
            assert (README.parent / target).exists(), target


def test_length() -> None:
    """The README stays short enough to be read."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 440

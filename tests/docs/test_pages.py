"""Every block that a reader is told to type, typed, page by page and from top to bottom."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anymate_guard import AnymateClient, Settings
from anymate_guard.sandbox import Sandbox
from tests.docs.blocks import LANGUAGES, PAGES, RUN_ELSEWHERE, Block, blocks, blocks_in
from tests.support.waiting import LONGEST

SURROUNDINGS = """
invoices = ["2026-001", "2026-002", "2026-003"]

def post(invoice):
    assert invoice
"""
RECORDED = {  # entries and seconds that Anymate is told on each page, as its text says
    "README.md": [(3, 128), (3, 128)],
    "docs/coming-from-the-sdk.md": [(2, None), (2, None)],
    "docs/how-to/entrypoints.md": [(3, 128), (3, 128), (2, None)],
    "docs/how-to/exec.md": [(3, 13), (3, None)],
    "docs/how-to/failures.md": [(0, 0), (1, None), (None, None), (None, None)],
    "docs/how-to/kpis.md": [(12, 120), (0, None)],
    "docs/how-to/machines.md": [(3, 128), (3, None)],
    "docs/how-to/owed.md": [],
    "docs/how-to/starting.md": [(3, None), (None, None)],
    "docs/index.md": [(3, 128)],
    "docs/reference/events.md": [(2, None)],
    "docs/tutorial.md": [(None, None), (3, 128), (1, 43), (5, 213)],
}
ADOPTED = "75616"  # a run that somebody else has started
# The fixture serves already; what the command prints is shown by its own tests.
SERVED = "anymate-guard sandbox"

pytestmark = pytest.mark.skipif(shutil.which("sh") is None, reason="the lines are for a POSIX shell, and there is none")


@pytest.fixture(name="typed")
def _typed(tmp_path: Path) -> Path:
    """A folder in which `anymate-guard` and `python` are those under test."""
    (tmp_path / "bin").mkdir()
    for name, words in (("anymate-guard", "-m anymate_guard"), ("python", "")):
        command = tmp_path / "bin" / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        command.chmod(0o700)
    return tmp_path


def shell(script: str, folder: Path, *, together: bool = False) -> subprocess.CompletedProcess[str]:
    """Type a script into a shell.

    Args:
        script: What is typed.
        folder: Where.
        together: Whether both streams are seen as one, as in a terminal.
    """
    return subprocess.run(
        ["sh", "-ec", script],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if together else subprocess.PIPE,
        encoding="utf-8",
        timeout=LONGEST,
        check=False,
    )


def test_no_page_is_left_out() -> None:
    """Each block is in a language that a test here knows, and each page with something to run is run."""
    to_run = set()
    for page in PAGES.keys() - RUN_ELSEWHERE:
        languages = [block.language for block in blocks(page)]
        fences = PAGES[page].read_text(encoding="utf-8").count("\n```")
        assert fences == 2 * sum(language != "happens" for language in languages), page
        assert set(languages) <= LANGUAGES | {"happens"}, page
        if not {"python", "console"}.isdisjoint(languages):
            to_run.add(page)
    assert to_run == set(RECORDED)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("page", RECORDED)
def test_page(sandbox: Sandbox, typed: Path, page: str) -> None:
    """A page works as it stands, from top to bottom, shows what is printed, and Anymate records what it says."""
    happen: dict[str, Callable[[], object]] = {"the sandbox stops": sandbox.close, "the sandbox starts": sandbox.start}
    for block in blocks(page):
        if block.language == "python":
            run_python(block, typed)
        elif block.language == "console":
            run_commands(block, typed)
        elif block.language == "happens":
            happen[block.text]()
    runs = sandbox.runs()
    assert all(run["finished"] and run["processKey"] == "invoice-intake" for run in runs)
    assert [(run["overwriteEntries"], run["overwriteSecondsSaved"]) for run in runs] == RECORDED[page]


@pytest.mark.parametrize("page", ["docs/places/containers.md", "docs/places/schedulers.md"])
def test_commands_of_places(sandbox: Sandbox, typed: Path, page: str) -> None:
    """The commands of our own that are shown where bots live work as they stand."""
    for block in (block for block in blocks(page) if block.language == "console"):
        run_commands(block, typed)


def run_python(block: Block, folder: Path) -> None:
    """Write a named program to its file, and run one that has no name, which is to print nothing."""
    if block.file:
        (folder / block.file).write_text(block.text, encoding="utf-8")
        return
    text = block.text
    if ADOPTED in text:
        with AnymateClient(Settings.from_env()) as client:  # as TakeNext would
            text = text.replace(ADOPTED, str(client.start_run("invoice-intake")))
    (folder / "unnamed.py").write_text(f"{SURROUNDINGS}\n{text}", encoding="utf-8")
    done = shell("python unnamed.py", folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), block.text


def run_commands(block: Block, folder: Path) -> None:
    """Type each command: it succeeds, and prints what is shown; where a traceback is shown it fails."""
    assert block.commands
    for command, shown in block.commands:
        if command == SERVED:
            continue
        done = shell(command, folder, together=bool(shown))
        assert (done.returncode != 0) == ("Traceback" in shown), (command, done.stdout, done.stderr)
        if shown:
            assert re.fullmatch(pattern(shown), alike(done.stdout)), (command, done.stdout)
        else:
            assert done.stderr == "", command


def alike(text: str) -> str:
    """What is the same each time: times, ids and widths are not."""
    return re.sub(r"\s+", " ", re.sub(r"\d+", "0", text)).strip()


def pattern(shown: str) -> str:
    """What matches the output that is shown, with anything in place of an ellipsis."""
    return re.escape(alike(shown)).replace("…", ".*")


@pytest.mark.parametrize("page", ["README.md", "docs/reference/settings.md"])
def test_settings(typed: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    """The settings can be pasted into a shell, for the cloud and on premises; PowerShell's lines say the same."""
    for name in [name for name in os.environ if name.startswith("ANYMATE_")]:
        monkeypatch.delenv(name)
    for name in ("anymate-client-secret", "anymate-password"):
        (typed / name).write_text("a secret\n")
    show = "python -c 'from anymate_guard import Settings; print(Settings.from_env().api_url)'"
    script, addresses = "", iter(["https://acme.anymate.app", "https://anymate.acme.example"])
    for block in (text for text in blocks_in(page, "sh") if "export " in text):
        script += block.replace("/run/secrets", str(typed))
        done = shell(f"{script}\n{show}", typed)
        assert (done.stdout, done.stderr) == (f"{next(addresses)}\n", "")
    posix = "".join(blocks_in(page, "sh"))
    windows = "".join(blocks_in(page, "powershell"))
    assert [file_name(line) for line in re.findall(r"^\$env:(\w+) = ('[^']*')$", windows, re.MULTILINE)] == [
        file_name(line) for line in re.findall(r"^export (\w+)=('[^']*')", posix, re.MULTILINE)
    ]


def file_name(assignment: tuple[str, str]) -> tuple[str, str]:
    """A variable and its value, without the folder of a file."""
    name, value = assignment
    return name, re.sub(r"\.txt$", "", re.split(r"[/\\]", value.strip("'"))[-1]) if "_FILE" in name else value

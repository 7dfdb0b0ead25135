"""What the documentation says of names, commands and links."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import anymate_guard
from anymate_guard import Settings
from tests.docs.blocks import DOCS, PAGES, README, ROOT, blocks_in
from tests.support.waiting import LONGEST

PACKAGE = Path(anymate_guard.__file__).parent
INSTALL = [
    'python -m venv .venv && .venv/bin/pip install ".[sandbox]" && .venv/bin/anymate-guard demo\n',
    "python -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox\n",
]
OF_EXEC = {"ANYMATE_KPI_FILE", "ANYMATE_RUN_ID"}
FILES = {f"ANYMATE_{name}_FILE" for name in ("CLIENT_SECRET", "PASSWORD")}
_SAID = re.compile(r'(?:say|Say|emit)\(\s*"(\w+)",\s*"(?:anymate\.)?(\w+)"')


def text_of(name: str) -> str:
    """A page."""
    return PAGES[name].read_text(encoding="utf-8")


def rows(name: str) -> list[list[str]]:
    """The cells of a page's tables."""
    lines = [line for line in text_of(name).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_install() -> None:
    """The README's two commands are exactly those that CI runs on a fresh machine, and pip installs this package."""
    blocks = blocks_in("README.md", "sh")
    assert [block for block in blocks if ".venv" in block] == INSTALL
    assert "pip install anymate-guard\n" in blocks


def test_events() -> None:
    """The table of events has every event of the source with its level, and no other."""
    source = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    said = {(level, f"anymate.{event}") for level, event in _SAID.findall(source)}
    listed = {(row[0], row[1].strip("`")) for row in rows("docs/reference/events.md") if row[1].startswith("`anymate.")}
    assert listed == said
    named = {event for page in PAGES for event in re.findall(r"`(anymate\.[a-z_]+)`", text_of(page))}
    assert named <= {event for _, event in said}


def test_fields_of_events() -> None:
    """The table of events has every field that the source names in a line, and explains each."""
    listed = {row[1].strip("`"): fields_in(row[3]) for row in rows("docs/reference/events.md") if len(row) == 4}
    explained = {name for row in rows("docs/reference/events.md") if len(row) == 2 for name in fields_in(row[0])}
    assert set().union(*(fields for event, fields in listed.items() if event != "event")) == explained
    for path in PACKAGE.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and (event := _SAID.match(ast.unparse(call).replace("'", '"'))):
                named = {keyword.arg for keyword in call.keywords if keyword.arg}
                assert named <= listed[f"anymate.{event[2]}"], event[0]


def fields_in(cell: str) -> set[str]:
    """The names in a cell of a table."""
    return set(re.findall(r"`(\w+)`", cell))


def test_settings() -> None:
    """The table of settings has every variable, and no page names one that is none."""
    settings = {f"ANYMATE_{field.name.upper()}" for field in fields(Settings)}
    listed = {name for row in rows("docs/reference/settings.md") for name in re.findall(r"`(ANYMATE_[A-Z_]+)`", row[0])}
    assert listed == settings
    for page in PAGES:
        assert set(re.findall(r"\bANYMATE_[A-Z_]+\b", text_of(page))) <= settings | OF_EXEC | FILES, page


def test_commands() -> None:
    """The page of commands has every command with all of its options, as `--help` tells them, and no other."""
    page = text_of("docs/reference/commands.md")
    sections = dict(section.split("\n", 1) for section in page.split("\n## ")[1:])
    commands = re.findall(r"^    (\w+) ", helped(), re.MULTILINE)
    assert [name for name in sections if name != "Everywhere"] == commands
    for command in commands:
        actions = ["deliver", "drop"] if command == "journal" else []
        told = "".join([helped(command), *(helped(command, action) for action in actions)])
        options = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", told.split("examples:")[0])) - {"-h", "--help"}
        listed = re.findall(r"^\| (`-.*?) \|", sections[command], re.MULTILINE)
        assert {name for cell in listed for name in re.findall(r"`(--?[a-z][a-z-]*)", cell)} == options, command


def helped(*words: str) -> str:
    """What `--help` says."""
    return subprocess.run(
        [sys.executable, "-m", "anymate_guard", *words, "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=LONGEST,
    ).stdout


def test_public_names() -> None:
    """The reference has every public name."""
    page = text_of("docs/reference/api.md")
    named = set(re.findall(r"auto(?:function|class|exception):: anymate_guard\.(\w+)(?:\(\))?$", page, re.MULTILINE))
    assert named == set(anymate_guard.__all__)


@pytest.mark.parametrize("page", PAGES)
def test_links(page: str) -> None:
    """Every link to a file or a section leads somewhere; the README, which PyPI shows too, has absolute ones only."""
    for target in re.findall(r"\]\(([^)]+)\)", text_of(page)):
        if "://" in target:
            continue
        assert page != "README.md", target
        path, _, anchor = target.partition("#")
        there = PAGES[page].parent / path if path else PAGES[page]
        assert there.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, target


def test_tables_of_contents() -> None:
    """Every page is in the table of contents of its folder."""
    for page in DOCS.rglob("*.md"):
        if page != DOCS / "index.md":
            own = page.with_suffix("").relative_to(DOCS).as_posix()
            index = page.parent / "index.md"
            name = page.stem if page != index else own
            listed = (DOCS / "index.md" if page == index or page.parent == DOCS else index).read_text(encoding="utf-8")
            assert re.search(rf"^{re.escape(name)}$", listed, re.MULTILINE), own


def test_length() -> None:
    """The README stays short enough to be read."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def test_environments() -> None:
    """CONTRIBUTING.md tells of every environment of tox, and of every package and module with a row of its own."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for name in re.findall(r"^\[testenv:([\w-]+)\]", (ROOT / "tox.ini").read_text(encoding="utf-8"), re.MULTILINE):
        assert f"`{name}`" in text, name
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (layers, *_) = re.findall(r"^layers = \[\n(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    for name in re.findall(r"\w+", layers):
        assert re.search(rf"`{name}(?:\.py|/)`", text), name

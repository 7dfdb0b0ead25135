"""The blocks of code of a page, as a reader meets them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = {path.relative_to(ROOT).as_posix(): path for path in [README, *sorted(DOCS.rglob("*.md"))]}
RUN_ELSEWHERE = {  # by the tests of the pytest plugin, and of frameworks
    "docs/how-to/testing.md",
    *(name for name in PAGES if name.startswith("docs/places/")),
}
LANGUAGES = {"console", "powershell", "python", "sh", "text", "{eval-rst}", "{toctree}"}

_BLOCK = re.compile(
    r"^```(?P<language>\S+)\n(?P<text>.*?)^```$|^<!-- (?P<happens>[^\n]*) -->$", re.MULTILINE | re.DOTALL
)
_NAME = re.compile(r"# (\w+\.py)\n")


class Block(NamedTuple):
    """A block of code; or, with the language "happens", what the reader does meanwhile."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of a file to write it to, where it begins with one."""
        name = _NAME.match(self.text)
        return name[1] if name else None

    @property
    def commands(self) -> list[tuple[str, str]]:
        """What is typed after each dollar sign, and what the page shows below it."""
        _, *parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)
        return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts)]


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in their order."""
    text = PAGES[page].read_text(encoding="utf-8")
    found = _BLOCK.finditer(text)
    return [Block(match["language"] or "happens", match["text"] or match["happens"]) for match in found]


def blocks_in(page: str, language: str) -> list[str]:
    """The texts of the blocks in one language."""
    return [block.text for block in blocks(page) if block.language == language]

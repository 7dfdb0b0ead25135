"""Another program at the journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anymate_guard._process.owners import Owner


@contextmanager
def another(file: Path) -> Iterator[int]:
    """Another program lives, with this owner id, as the journal in this file sees it."""
    owner = Owner()
    owner.hold(file.with_name("owners.lock"))
    yield owner.id
    owner.close()

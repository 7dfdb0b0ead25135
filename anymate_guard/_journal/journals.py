"""The journals that this program has used: one for each folder, and what a fork does to them."""

from __future__ import annotations

import os
from pathlib import Path

from anymate_guard._journal.database import Database
from anymate_guard._journal.journal import Journal
from anymate_guard._process.fork import Taken, around
from anymate_guard._process.locks import Lock
from anymate_guard._process.owners import Owner

_FORKING = 1.0  # seconds that a fork waits for who is at one

_opening = Lock()
_journals: dict[str, Journal] = {}
_leaked: list[object] = []


def journal_at(folder: Path) -> Journal:
    """The journal in a folder; one per folder and program, by whatever name."""
    name = os.path.abspath(folder)  # noqa: PTH100
    with _opening:
        journal = _journals.get(name)
        if journal is None:
            real = _real(name)
            journal = _journals.get(real) or Journal(Database(Path(real)), Owner())
            _journals[name] = _journals[real] = journal
        return journal


def all_journals() -> set[Journal]:
    """Every journal that this program has used."""
    with _opening:
        return set(_journals.values())


def close_all() -> None:
    """Close every journal of this program, and its lock file: Windows deletes no open one."""
    for journal in all_journals():
        journal.close()
        journal.owner.close()


def _real(name: str) -> str:
    try:
        return os.path.realpath(name)
    except OSError:  # Windows refuses to look at some
        return name


def _before_fork(stopped: Taken) -> None:
    stopped.extend(journal for journal in all_journals() if journal.pause())
    if _opening.acquire(timeout=_FORKING):
        stopped.append(_opening)


def _after_fork_in_parent(stopped: Taken) -> None:
    while stopped:
        taken = stopped.pop()
        if isinstance(taken, Journal):
            taken.resume()
        else:
            taken.release()


def _after_fork(_: Taken) -> None:
    global _opening, _journals
    for journal in set(_journals.values()):
        journal.owner.close()  # or its parent would count as alive for as long as this child is
        _leaked.append(journal)  # sqlite must not close what it has opened in the parent
    _opening, _journals = Lock(), {}


around(_before_fork, _after_fork_in_parent, _after_fork)

"""The journals that this program has used, one for each folder, and what a fork does to them."""

from __future__ import annotations

from pathlib import Path

from anymate_guard._journal.journal import Journal
from anymate_guard._journal.storage.database import Database
from anymate_guard._journal.storage.folder import Folder
from anymate_guard._process.fork import Taken, around
from anymate_guard._process.locks import Lock, is_held
from anymate_guard._process.owners import Owner

_lock = Lock()
_journals: dict[Path, Journal] = {}
_leaked: list[Journal] = []


def journal_at(folder: Path) -> Journal:
    """The journal in a folder, which is given by its real path."""
    with _lock:
        journal = _journals.get(folder)
        if journal is None:
            journal = _journals[folder] = Journal(Database(Folder(folder)), Owner())
        return journal


def all_journals() -> list[Journal]:
    """Every journal that this program has used."""
    with _lock:
        return list(_journals.values())


def in_use() -> bool:
    """Whether this thread is in the middle of something in a journal, as the garbage collector may come there, too."""
    return any(is_held(journal.wanted.lock) for journal in all_journals())


def close_all() -> None:
    """Close every journal of this program, and its lock file: Windows deletes no open one."""
    for journal in all_journals():
        journal.close()
        journal.owner.close()


def _before_fork(paused: Taken) -> None:
    paused.extend(journal for journal in list(_journals.values()) if journal.pause())


def _after_fork_in_parent(paused: Taken) -> None:
    while paused:
        paused.pop().resume()


def _after_fork(_: Taken) -> None:
    global _lock, _journals
    for journal in _journals.values():
        journal.owner.close()  # or its parent would count as alive for as long as this child is
        _leaked.append(journal)  # sqlite must not close what it has opened in the parent
    _lock, _journals = Lock(), {}


around(_before_fork, _after_fork_in_parent, _after_fork)

"""Bots whose machine loses power, and those that come after: `python power.py before|after FOLDER`.

Before, they run under strace. After, this program waits for lines that name a folder with a rebuilt journal and process
keys, lets a bot work on each key, and answers with its exit status.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path

from anymate_guard._journal.contents import rows_of
from anymate_guard._journal.journals import journal_at
from anymate_guard._journal.storage import database
from anymate_guard._process.owners import GRACE

sys.path.append(str(Path(__file__).parents[2]))  # last, as what is tested is the package that is installed

from tests.crashes.bots import Notes, all_well, fork, status_of, stumble, work

KEYS = ("alone", "inn", "pair", "unfinished", "late", "unnamed")
QUIET = 2.2  # seconds in which one bot only is on the machine, which records nothing
UNREACHABLE = (("FinishRun", "unfinished", 99), ("StartRun", "late", 1), ("StartRun", "unnamed", 99))


def host(notes: Notes) -> None:
    """Be in a run and record nothing, while another bot comes and goes."""
    work(notes, "inn", [1, 2], 0, partial(wait, notes, QUIET))
    for _ in range(4):
        work(notes, "pair", [1, 2, 3] * 5, 0.02)


def guest(notes: Notes) -> None:
    """Come to a run for a moment."""
    time.sleep(0.6)
    work(notes, "inn", [1] * 5, 0.01)


def fellow(notes: Notes) -> None:
    """Overlap with another bot, now and then."""
    time.sleep(QUIET)
    for _ in range(8):
        work(notes, "pair", [1, 2, 3] * 3, 0.01)


def alone(notes: Notes) -> None:
    """Count for longer than may be lost, in runs of this bot only; then, Anymate is unreachable now and then."""
    time.sleep(QUIET)
    work(notes, "alone", [1, 2, 3] * 25, 0.02)
    work(notes, "alone", [1, 2, 3] * 5, 0.01, lambda: status_of(fork(int)))  # which closes the file, and opens it again
    work(notes, "alone", [1] * 5, 0.01, stumble)
    work(notes, "unfinished", [1] * 9, 0.01)
    work(notes, "late", [1] * 9, 0.06)  # so that it is on the disk without a run
    work(notes, "unnamed", [1] * 9, 0.01)
    work(notes, "alone", [], 0, partial(wait, notes, 0.5))


def wait(notes: Notes, seconds: float) -> None:
    """Live on, and let it be seen."""
    for _ in range(int(seconds / 0.05)):
        notes.write("waiting")
        time.sleep(0.05)


def before(folder: Path) -> None:
    """Let them all work, with a small log, so that it is put into the file often."""
    database._LARGEST_LOG = 96 << 10
    bots = [fork(life, Notes(folder / life.__name__)) for life in (host, guest, fellow, alone)]
    if not all_well(bots):
        raise RuntimeError("a bot failed")


def later(folder: Path, keys: list[str]) -> None:
    """Work on each of some process keys, and on those of which something is left in the journal after that."""
    os.environ["ANYMATE_STATE_DIR"] = state = str(folder / "machine" / "user" / "state")
    notes = Notes(folder / "notes" / "later")
    for _ in range(3):
        for key in keys:
            work(notes, key, [1], 0)
        rows = rows_of(journal_at(Path(state)))
        if not rows:
            return
        keys = sorted({row.process_key for row, _ in rows})
        if any(alive for _, alive in rows):
            time.sleep(GRACE)  # the lock file is new, so that whoever is in the journal might be alive
    raise RuntimeError(f"left in the journal: {rows}")


def after() -> None:
    """Let a bot work in each folder that is named."""
    print("ready", flush=True)  # noqa: T201  # the test waits for it
    for line in sys.stdin:
        folder, *keys = line.split()
        print(status_of(fork(later, Path(folder), keys)), flush=True)  # noqa: T201  # as above


if __name__ == "__main__":
    if sys.argv[1] == "before":
        before(Path(sys.argv[2]))
    else:
        after()

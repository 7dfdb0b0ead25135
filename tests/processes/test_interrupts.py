"""Ctrl-C at every point of entering and leaving where Python lets it in."""

from __future__ import annotations

import pytest

from anymate_guard import anymate_run
from anymate_guard._lifecycle import delivery
from anymate_guard.sandbox import Sandbox

from .bots import finished, run

# An exception out of a signal handler comes where a function begins or a call in C has returned. The one place where
# nothing can be done about it is the very beginning of __exit__, of which no line has run.
TEXT = """
import anymate_guard
from anymate_guard._lifecycle import recorder, sharing

recorder._EVERY = 0.01
FOLDER = os.path.dirname(anymate_guard.__file__)
PACKAGES = tuple(os.path.join(FOLDER, name, "") for name in ("_guard", "_journal", "_lifecycle", "_process"))

class Interruption:
    def __init__(self, number):
        self.left, self.where = number, None
    def __call__(self, frame, event, what):
        code = frame.f_code
        if event not in ("call", "c_return") or not code.co_filename.startswith(PACKAGES):
            return
        if code.co_name == "__exit__" and event == "call":
            return
        self.left -= 1
        if self.left == 0:
            self.where = f"{code.co_filename}:{frame.f_lineno} {event} {what}"
            sys.setprofile(None)
            raise KeyboardInterrupt

def guarded(key, count, interruption=None):
    sys.setprofile(interruption)
    try:
        with anymate_run(key) as run:
            run.add_entries(count)
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)

guarded("warm", 0)
number, stuck = FIRST, []
while True:
    interruption = Interruption(number)
    guarded(f"k{number}", 1, interruption)
    if interruption.where is None:
        break
    begun = time.monotonic()
    guarded(f"k{number}", 10)
    if time.monotonic() - begun > 2:
        stuck.append(interruption.where)
    number += 4
begun = time.monotonic()
while (left := sharing.all_runs("entering", "open", "leaving", "over")) and time.monotonic() - begun < 5:
    time.sleep(0.01)
stuck += [one.row.process_key for one in left]
guarded("last", 0)
say(number > 100, stuck)
"""


@pytest.mark.parametrize("first", [1, 2, 3, 4])
def test_interrupt_anywhere(sandbox: Sandbox, first: int) -> None:
    """Wherever Ctrl-C comes, the next guard on its key is not held up, and nothing is left open or counted twice."""
    status, said, _ = run(TEXT.replace("FIRST", str(first)))
    assert (status, said) == (0, "True []\n")
    finished(sandbox)
    credit: dict[str, int] = {}
    for one in sandbox.runs():
        credit[one["processKey"]] = credit.get(one["processKey"], 0) + (one["overwriteEntries"] or 0)
    *interrupted, (_, whole) = ((key, entries) for key, entries in credit.items() if key.startswith("k"))
    assert {entries for _, entries in interrupted} == {10, 11}
    assert whole == 1


def test_interrupt_of_a_disabled_guard(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disabled guard that is interrupted while it is left is out of its run, too."""
    monkeypatch.setenv("ANYMATE_DISABLED", "1")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(delivery, "_log_finished", interrupted)
    with pytest.raises(KeyboardInterrupt), anymate_run("k") as first:
        pass
    with pytest.raises(KeyboardInterrupt), anymate_run("k") as second:
        assert second is not first
    assert sandbox.requests() == []

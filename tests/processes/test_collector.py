"""The garbage collector, which closes generators with guards, at every point of entering and leaving another guard."""

from __future__ import annotations

import pytest

from anymate_guard.sandbox import Sandbox

from .bots import finished, run

ANYWHERE = """
import contextlib, contextvars, gc, logging, structlog
import anymate_guard

FOLDER = os.path.dirname(anymate_guard.__file__)
lines = []
log = logging.getLogger("anymate_guard")
log.setLevel("INFO")
log.addHandler(logging.NullHandler())
log.filter = lambda record: lines.append(record.getMessage().split()[0])

class Collection:
    def __init__(self, number):
        self.left = number
    def __call__(self, frame, event, what):
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(FOLDER):
            self.left -= 1
            if self.left == 0:
                gc.collect()

def work(itself):
    with anymate_run(PROCESS_KEY):
        yield
        assert itself

def leave_garbage():
    itself = []
    itself.append(work(itself))
    contextvars.copy_context().run(next, itself[0])

def shared(collection):
    if INSIDE:
        with anymate_run("k") as run:
            run.add_entries(1)
            leave_garbage()
            sys.setprofile(collection)
    else:
        leave_garbage()
        sys.setprofile(collection)
        with anymate_run("k") as run:
            run.add_entries(1)
    sys.setprofile(None)

def is_clean():
    with contextlib.suppress(NoCurrentRun):
        return current_run()
    return structlog.contextvars.get_contextvars() == {} and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

gc.disable()
gc.collect()
gc.freeze()
number, unclean = 0, []
while True:
    number += STEP
    collection = Collection(number)
    shared(collection)
    gc.collect()
    if not is_clean():
        unclean.append(number)
    if collection.left > 0:
        break
with anymate_run("k"):  # finishes what was left to the next guard
    pass
say(number > 50, unclean, lines.count("anymate.run_started") - lines.count("anymate.run_finished"))
"""


@pytest.mark.parametrize("inside", [False, True])
def test_collected_anywhere(sandbox: Sandbox, inside: bool) -> None:
    """Wherever a guard of garbage is left, the run that it shares is open for the other one, and finished once.

    Nothing of it is left behind: no current run, no fields in the log, no signal that is not the program's. The guard
    of garbage has a context of its own: in that of the other one it would have to be left before, or after.
    """
    assert run(anywhere("k", 1, inside), ANYMATE_DISABLED="1") == (0, "True [] 0\n", "")
    assert sandbox.requests() == []


@pytest.mark.parametrize("inside", [False, True])
def test_collected_anywhere_on_the_way_to_anymate(sandbox: Sandbox, inside: bool) -> None:
    """Wherever a guard of garbage is left, its run and that of the guard on another process are both finished once."""
    assert run(anywhere("other", 11, inside)) == (0, "True [] 0\n", "")
    runs = finished(sandbox)
    asked = [one["operation"] for one in sandbox.requests()]
    assert asked.count("StartRun") == asked.count("FinishRun") == len(runs)
    assert sum(entries or 0 for entries, _ in runs) == len(runs) // 2


def test_collected_while_others_look(sandbox: Sandbox) -> None:
    """Garbage may be left while its thread reads what was recorded, and another one, at the journal, waits for that."""
    text = """
        from anymate_guard._journal.journals import all_journals
        from anymate_guard._run import run as recording

        def work():
            with anymate_run("k") as run:
                run.add_entries(1)
                yield

        def look():
            with all_journals()[0].wanted.lock:
                at_it.set()
                with recording._lock:
                    pass

        generator, at_it = work(), threading.Event()
        next(generator)
        thread = threading.Thread(target=look)
        with recording._lock:
            thread.start()
            at_it.wait()
            generator.close()
        thread.join()
        """
    assert run(text) == (0, "", "")
    assert finished(sandbox) == [(1, None)]


def anywhere(process_key: str, step: int, inside: bool) -> str:
    """A program that lets the collector come at each so many points, while it enters, or is inside, another guard."""
    text = ANYWHERE.replace("PROCESS_KEY", repr(process_key)).replace("STEP", str(step))
    return text.replace("INSIDE", str(inside))

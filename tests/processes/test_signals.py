"""A termination signal unwinds a guarded bot, wherever it comes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from anymate_guard._process import signals
from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST, until

from .bots import FORK_IS_MEANT, TERMINATED, asked, children, finished, rows, run, running

if sys.platform == "win32":
    pytest.skip("Windows ends a process without asking it", allow_module_level=True)

HOSTED = """
import _thread, os, sys, time

def main():
    from anymate_guard import anymate_run  # and with it the module threading, which takes this thread for the main one

    try:
        for _ in range(2):
            with anymate_run("k") as run:
                run.add_entries()
    finally:
        os._exit(0)

assert "threading" not in sys.modules
_thread.start_new_thread(main, ())
time.sleep(600)
"""

BLOCK = """
with anymate_run("k") as run:
    run.add_entries(3)
    wait()
"""
FUNCTION = """
@anymate_run("k")
def main():
    current_run().add_entries(3)
    wait()

main()
"""
COROUTINE = """
@anymate_run("k")
async def main():
    current_run().add_entries(3)
    say("inside")
    await idle()

asyncio.run(main())
"""
TASKS = """
async def main():
    async with anymate_run("k") as run:
        run.add_entries(3)
        say("inside")
        await asyncio.gather(idle(), idle())

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("text", [BLOCK, FUNCTION, COROUTINE, TASKS])
def test_signal_in_the_body(sandbox: Sandbox, text: str, number: signal.Signals) -> None:
    """A signal in the body finishes the run with what was recorded, and the exit status tells of it."""
    with running(text) as bot:
        bot.until("inside")
        bot.send(number)
        assert bot.end()[0] == 128 + number
    assert finished(sandbox) == [(3, None)]


# A queue of callbacks that is interrupted once, when the loop has just taken one from it; to look like the loop's own.
QUEUE = """
queues = {"__name__": "asyncio.queue_that_is_interrupted"}
exec('''
import collections, signal
class Queue(collections.deque):
    interrupt = False
    def popleft(self):
        handle = super().popleft()
        if self.interrupt:
            self.interrupt = False
            signal.raise_signal(signal.SIGTERM)
        return handle
''', queues)

def interruptible(loop):
    loop._ready = queues["Queue"](loop._ready)
"""


def test_signal_in_the_loop_s_own_code(sandbox: Sandbox) -> None:
    """A signal that interrupts an event loop about to run something loses nothing of it: the bot ends as ever."""
    text = """
        async def main():
            interruptible(loop := asyncio.get_running_loop())
            async with anymate_run("k") as run:
                run.add_entries(3)
                loop._ready.interrupt = True
                await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))

        asyncio.run(main())
        """
    assert run(QUEUE + textwrap.dedent(text)) == (TERMINATED, "", "")
    assert finished(sandbox) == [(3, None)]


def test_signal_in_the_last_step_of_a_loop(sandbox: Sandbox) -> None:
    """A signal that a loop could not raise any more, as it was about to stop, is raised after it."""
    text = """
        async def main(loop):
            loop._ready.interrupt = True

        with anymate_run("k") as run:
            run.add_entries(3)
            interruptible(loop := asyncio.new_event_loop())
            loop.run_until_complete(main(loop))
            loop.close()
            time.sleep(60)
        """
    assert run(QUEUE + textwrap.dedent(text)) == (TERMINATED, "", "")
    assert finished(sandbox) == [(3, None)]


def test_signal_in_a_callback_of_a_loop(sandbox: Sandbox) -> None:
    """A signal that comes while a loop runs a plain function of the bot is raised there and then."""
    text = """
        def work():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                say("raised")
            say("went on")

        async def main():
            async with anymate_run("k") as run:
                run.add_entries(3)
                asyncio.get_running_loop().call_soon(work)
                await asyncio.sleep(60)

        asyncio.run(main())
        """
    assert run(text) == (TERMINATED, "raised\n", "")
    assert finished(sandbox) == [(3, None)]


def test_signal_while_a_loop_s_guard_is_left(sandbox: Sandbox) -> None:
    """A signal that is still to be raised when an async guard is left is raised then, with nobody to remind of it."""
    text = """
        from anymate_guard._journal import recorder
        recorder._EVERY = 60

        async def main(loop):
            async with anymate_run("k") as run:
                run.add_entries(3)
                loop._ready.interrupt = True
                loop.call_soon_threadsafe = lambda *_: None
                await asyncio.sleep(0)
                del loop.call_soon_threadsafe
            say("went on")

        interruptible(loop := asyncio.new_event_loop())
        loop.run_until_complete(main(loop))
        """
    assert run(QUEUE + textwrap.dedent(text)) == (TERMINATED, "", "")
    assert finished(sandbox) == [(3, None)]


def test_signal_while_the_bot_forks(sandbox: Sandbox) -> None:
    """A signal that comes while the bot forks, where Python would drop its exit, ends the bot all the same."""
    text = """
        from anymate_guard._process import fork as hooks
        hooks.around(lambda _: signal.raise_signal(signal.SIGTERM), lambda _: None, lambda _: None)
        with anymate_run("k") as run:
            run.add_entries(3)
            fork()
            time.sleep(60)
        """
    assert run(text, **FORK_IS_MEANT) == (TERMINATED, "", "")
    assert finished(sandbox) == [(3, None)]


@pytest.mark.parametrize("text", [BLOCK, FUNCTION, COROUTINE, TASKS])
def test_keyboard_interrupt_in_the_body(sandbox: Sandbox, text: str) -> None:
    """Ctrl-C in the body finishes the run with what was recorded, and ends the bot as Ctrl-C does."""
    with running(text) as bot:
        bot.until("inside")
        bot.send(signal.SIGINT)
        status, _, complaint = bot.end()
    assert status in {-signal.SIGINT, 128 + signal.SIGINT}
    assert "KeyboardInterrupt" in complaint
    assert finished(sandbox) == [(3, None)]


@pytest.mark.parametrize("text", [BLOCK, COROUTINE])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_starting(sandbox: Sandbox, text: str, number: signal.Signals) -> None:
    """A signal during StartRun ends the bot at once; the body does not run, and no row stays behind."""
    sandbox.fail_next("StartRun", hang=3)
    with running(text) as bot:
        until(asked(sandbox, "StartRun"))
        bot.send(number)
        status, said, _ = bot.end()
    assert (status in {128 + number, -number}, "inside" in said) == (True, False)
    assert rows() == []


def test_start_that_a_signal_interrupted_is_resumed(sandbox: Sandbox) -> None:
    """A run whose StartRun was interrupted on its way back stays open, and the next start resumes and finishes it."""
    sandbox.fail_next("StartRun", delay=0.5, after=True)
    with running(BLOCK) as bot:
        until(asked(sandbox, "StartRun"))
        until(sandbox.runs)
        bot.send(signal.SIGTERM)
        assert bot.end()[0] == TERMINATED
    assert [run["finished"] for run in sandbox.runs()] == [False]
    run("with anymate_run('k') as run: run.add_entries(1)")
    assert finished(sandbox) == [(1, None)]


def test_signal_between_start_and_body(sandbox: Sandbox) -> None:
    """A program's own handler that exits after StartRun: the run is finished with zeros, as no work was done."""
    status, said, _ = run(
        """
        from anymate_guard._lifecycle.sharing import Program
        Program.open = lambda *_: signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        with anymate_run("k"):
            say("inside")
        """
    )
    assert (status, said) == (7, "")
    assert finished(sandbox) == [(0, 0)]


def test_signal_while_finishing_waits(sandbox: Sandbox) -> None:
    """A first signal that comes while the run of a body that ended is being finished waits for that, then exits."""
    sandbox.fail_next("FinishRun", delay=0.3)
    with running("with anymate_run('k') as run: run.add_entries(2)\nsay('after')") as bot:
        until(asked(sandbox, "FinishRun"))
        bot.send(signal.SIGTERM)
        status, said, _ = bot.end()
    assert (status, said) == (TERMINATED, "")
    assert finished(sandbox) == [(2, None)]


def test_second_signal_while_finishing(sandbox: Sandbox) -> None:
    """A second signal while the run is being finished leaves at once; the next guard sends what is owed."""
    sandbox.fail_next("FinishRun", hang=True)
    with running(BLOCK) as bot:
        bot.until("inside")
        bot.send(signal.SIGTERM)
        until(asked(sandbox, "FinishRun"))
        time.sleep(signals._TWICE)
        bot.send(signal.SIGTERM)
        assert bot.end()[0] == -signal.SIGTERM
    ((row, alive),) = rows()
    assert (row.state, row.entries, alive) == ("finishing", 3, False)
    run("with anymate_run('other'): pass")
    assert finished(sandbox) == [(3, None), (None, None)]


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGHUP), (signal.SIGHUP, signal.SIGTERM)])
def test_another_signal_at_once(sandbox: Sandbox, numbers: tuple[int, int]) -> None:
    """SIGHUP right after SIGTERM, as systemd sends it, is no second signal while the body still unwinds."""
    status, said, _ = run(
        f"""
        with anymate_run("k") as run:
            try:
                run.add_entries(3)
                signal.raise_signal({int(numbers[0])})
            finally:
                signal.raise_signal({int(numbers[1])})
                say("unwound")
        """
    )
    assert (status, said) == (128 + numbers[0], "unwound\n")
    assert finished(sandbox) == [(3, None)]


def test_second_keyboard_interrupt_while_finishing(sandbox: Sandbox) -> None:
    """A second Ctrl-C while the run is being finished leaves at once, and the finish is owed."""
    sandbox.fail_next("FinishRun", hang=True)
    with running(
        """
        try:
            with anymate_run("k") as run:
                run.add_entries(3)
                wait()
        except KeyboardInterrupt:
            say("interrupted")
            time.sleep(60)
        """
    ) as bot:
        bot.until("inside")
        bot.send(signal.SIGINT)
        until(asked(sandbox, "FinishRun"))
        bot.send(signal.SIGINT)
        bot.until("interrupted")
        ((row, _),) = rows()
        assert (row.state, row.entries, row.finish != 0) == ("done", 3, True)
        run("with anymate_run('k'): pass")
    assert finished(sandbox) == [(3, None), (None, None)]


LIMITS = """
import functools

class Limit:
    def reach(self, number, frame):
        raise TimeoutError("the bot's own limit")
    __call__ = reach

def limit(number, frame):
    Limit().reach(number, frame)
"""
HANDLERS = ["limit", "Limit().reach", "Limit()", "functools.partial(Limit().reach)"]


@pytest.mark.parametrize("handler", HANDLERS)
def test_limit_of_the_bot_while_starting(sandbox: Sandbox, handler: str) -> None:
    """What a handler of the bot raises while StartRun waits is no trouble of the network: it comes out, at once."""
    sandbox.fail_next("StartRun", hang=True)
    text = f"""
        signal.signal(signal.SIGALRM, {handler})
        try:
            with anymate_run("k"):
                say("went on")
        except TimeoutError as error:
            say(error)
        """
    with running(LIMITS + textwrap.dedent(text)) as bot:
        until(asked(sandbox, "StartRun"))
        bot.send(signal.SIGALRM)
        assert bot.end() == (0, "the bot's own limit\n", "")
    assert finished(sandbox) == []


def test_limit_of_the_bot_while_finishing(sandbox: Sandbox) -> None:
    """What a handler of the bot raises while FinishRun waits comes out at once, too, and the finish is owed."""
    sandbox.fail_next("FinishRun", hang=True)
    text = """
        signal.signal(signal.SIGALRM, limit)
        try:
            with anymate_run("k") as run:
                run.add_entries(3)
        except TimeoutError as error:
            say(error, run.outcome)
        """
    with running(LIMITS + textwrap.dedent(text)) as bot:
        until(asked(sandbox, "FinishRun"))
        bot.send(signal.SIGALRM)
        assert bot.end() == (0, "the bot's own limit succeeded\n", "")
    ((row, _),) = rows()
    assert (row.state, row.entries, row.finish != 0) == ("done", 3, True)
    run("with anymate_run('other'): pass")
    assert finished(sandbox) == [(3, None), (None, None)]


SLOW = {
    "connecting": "addresses = socket.getaddrinfo\nsocket.getaddrinfo = lambda *of: 2 * addresses(*of)\n"
    "while_in(socket.socket, 'connect')",
    "looking at a kept connection": "with anymate_run('other'): pass\nwhile_in(socket.socket, 'recv_into')",
    "opening the journal": "while_in(sqlite3, 'connect')",
    "looking at the journal's names": "with anymate_run('other'): pass\nwhile_in(os, 'stat')",
    "writing to the disk": "while_in(os, 'fsync')",
    "logging": "while_in(logging.getLogger('anymate_guard'), 'warning')",
}


@pytest.mark.parametrize("slow", SLOW)
def test_limit_of_the_bot_while_something_is_slow(sandbox: Sandbox, slow: str) -> None:
    """What a handler of the bot raises is no trouble of connections, the disk or the log either: it comes out."""
    sandbox.fail_next("FinishRun", status=401, times=2)
    text = f"""
        import logging, socket, sqlite3
        from anymate_guard._journal import recorder

        recorder._EVERY = 60  # else it may be the one that opens the journal, on a busy machine

        def while_in(owner, name):
            works = getattr(owner, name)

            def slow(*arguments, **options):
                if threading.current_thread() is threading.main_thread():
                    setattr(owner, name, works)
                    signal.raise_signal(signal.SIGALRM)
                return works(*arguments, **options)

            setattr(owner, name, slow)

        signal.signal(signal.SIGALRM, limit)
        exec({SLOW[slow]!r})
        try:
            with anymate_run("k"):
                pass
        except TimeoutError as error:
            say(error)
        """
    assert run(LIMITS + textwrap.dedent(text))[:2] == (0, "the bot's own limit\n")


def test_signal_off_the_main_thread(sandbox: Sandbox) -> None:
    """A guard in another thread leaves the signals alone: the bot ends at once, and the next start has its work."""
    text = """
        def work():
            with anymate_run("k") as run:
                run.add_entries(3)
                assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
                wait()

        worker = threading.Thread(target=work)
        worker.start()
        worker.join()  # Python 3.12.0 and 3.12.1 start no thread, not even our recorder, once the main one has ended
        """
    with running(text) as bot:
        bot.until("inside")
        until(lambda: [row.entries for row, _ in rows()] == [3])
        bot.send(signal.SIGTERM)
        assert bot.end()[0] == -signal.SIGTERM
    run("with anymate_run('k') as run: run.add_entries(1)")
    assert finished(sandbox) == [(4, None)]


def test_own_handler_stays(sandbox: Sandbox) -> None:
    """A handler of the program is called as ever, and is in place after the guard."""
    text = """
        handled = []
        def handler(number, frame):
            handled.append(number)
        signal.signal(signal.SIGTERM, handler)
        with anymate_run("k"):
            say("inside")
            while not handled:
                time.sleep(0.01)
        assert signal.getsignal(signal.SIGTERM) is handler
        """
    with running(text) as bot:
        bot.until("inside")
        bot.send(signal.SIGTERM)
        assert bot.end() == (0, "", "")
    assert finished(sandbox) == [(None, None)]


def test_handler_put_in_place_by_the_body_stays(sandbox: Sandbox) -> None:
    """A handler that the body installs is not taken away when the guard is left."""
    text = """
        with anymate_run("k"):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)
        """
    assert run(text)[1] == "True\n"


def test_default_action_is_back(sandbox: Sandbox) -> None:
    """After the last guard, nested ones included, a signal has its default action again."""
    text = """
        with anymate_run("k"):
            with anymate_run("l"):
                pass
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        say(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        """
    assert run(text)[1] == "True\n"


def test_handling_signals_switched_off(sandbox: Sandbox) -> None:
    """ANYMATE_HANDLE_SIGNALS=0 leaves SIGTERM alone."""
    with running(BLOCK, ANYMATE_HANDLE_SIGNALS="0") as bot:
        bot.until("inside")
        bot.send(signal.SIGTERM)
        assert bot.end()[0] == -signal.SIGTERM


def test_body_that_catches_the_exit(sandbox: Sandbox) -> None:
    """A body that catches the exit of a signal and returns has succeeded; the exit goes on when its guard is left."""
    text = """
        try:
            with anymate_run("k") as run:
                try:
                    wait()
                except SystemExit:
                    run.add_entries(1)
        finally:
            say(run.outcome)
        """
    with running(text) as bot:
        bot.until("inside")
        bot.send(signal.SIGTERM)
        assert bot.end()[:2] == (TERMINATED, "succeeded\n")
    assert finished(sandbox) == [(1, None)]


def test_signal_to_process_and_group(sandbox: Sandbox) -> None:
    """The same signal to the process and, a moment later, to its group, as `timeout` sends it, is one signal."""
    sandbox.fail_next("FinishRun", delay=1)
    with running(BLOCK) as bot:
        bot.until("inside")
        bot.send(signal.SIGTERM)
        until(asked(sandbox, "FinishRun"))
        os.killpg(bot.pid, signal.SIGTERM)
        assert bot.end()[0] == TERMINATED
    assert finished(sandbox) == [(3, None)]


UNSHARE = [
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
]  # what it starts is process 1, to which no default action applies


@pytest.mark.skipif(
    shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"], check=False).returncode != 0,
    reason="this user can't make processes 1",
)
def test_second_signal_to_process_1(sandbox: Sandbox) -> None:
    """A second signal while the run is being finished ends a container's process 1, too, which the kernel spares."""
    sandbox.fail_next("FinishRun", hang=True)
    with running(BLOCK, UNSHARE, ANYMATE_DEADLINE="60", ANYMATE_TIMEOUT="60") as bot:
        bot.until("inside")
        (child,) = children(bot.pid)
        os.kill(child, signal.SIGTERM)
        until(asked(sandbox, "FinishRun"))
        time.sleep(signals._TWICE)
        os.kill(child, signal.SIGTERM)
        assert bot.end()[0] == TERMINATED
    ((row, alive),) = rows()
    assert (row.state, row.entries, alive) == ("finishing", 3, False)


def test_signal_while_a_thread_is_started(sandbox: Sandbox) -> None:
    """A signal that lands while a thread of ours is started is not swallowed: the bot ends by it."""
    text = """
        start = threading.Thread.start

        def hit(thread):
            threading.Thread.start = start
            start(thread)
            signal.raise_signal(signal.SIGTERM)

        threading.Thread.start = hit
        MAIN
        """
    mains = (
        "with anymate_run('k') as run: run.add_entries(1); time.sleep(60)",
        "async def main():\n    async with anymate_run('k') as run: await asyncio.sleep(60)\nasyncio.run(main())",
    )
    for main in mains:
        status, said, _ = run(textwrap.dedent(text).replace("MAIN", main))
        assert (status, said) == (TERMINATED, "")
    assert rows() == []
    assert [run["finished"] for run in sandbox.runs()] == [True] * len(sandbox.runs())


def test_python_inside_another_program(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a host has initialized Python in another thread than the bot's, signals are its own, and the bot works."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # which imports threading
    subprocess.run([sys.executable, "-c", HOSTED], timeout=LONGEST, check=True)
    assert finished(sandbox) == [(1, None), (1, None)]

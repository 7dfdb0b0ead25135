"""Only the process that entered a guard finishes its run, and its children are processes of their own."""

from __future__ import annotations

import os
import signal
import textwrap

import pytest

from anymate_guard._journal.journals import close_all
from anymate_guard.sandbox import Sandbox
from tests.support.waiting import LONGEST, until

from .bots import FORK_IS_MEANT, LATE_TO_LOOK, TERMINATED, children, finished, rows, run, running

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform can't fork")


@pytest.fixture(name="unmeasured")
def _unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave coverage out: a child that is forked beside threads at work may wait for a lock of coverage's for ever."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def test_child_that_unwinds_through_the_guard(sandbox: Sandbox) -> None:
    """A forked child that leaves the block by itself sends nothing; the run is finished once, by its parent."""
    text = """
        with anymate_run("k") as run:
            run.add_entries(2)
            child = os.fork()
            if child:
                os.waitpid(child, 0)
        if child == 0:
            sys.exit()
        say("parent")
        """
    assert run(text) == (0, "parent\n", "")
    assert finished(sandbox) == [(2, None)]


def test_child_that_raises_in_the_guard(sandbox: Sandbox) -> None:
    """An exception that ends a forked child inside the block leaves the parent's run alone."""
    text = """
        with anymate_run("k") as run:
            run.add_entries(2)
            if os.fork() == 0:
                raise ValueError("flawed")
            os.wait()
        """
    assert run(text)[0] == 0
    assert finished(sandbox) == [(2, None)]


def test_pool_of_forked_workers(sandbox: Sandbox) -> None:
    """Workers of a pool, forked in the body, enter guards themselves; they share the run, which adds up."""
    text = """
        @anymate_run("k")
        def work(number):
            current_run().add_entries(number)

        with anymate_run("k") as run:
            run.add_entries(100)
            with multiprocessing.get_context("fork").Pool(2) as pool:
                pool.map(work, range(5))
                pool.close()
                pool.join()
        """
    assert run(text)[0] == 0
    assert finished(sandbox) == [(110, None)]


RECORDS = """
records = [
    lambda: run.add_entries(),
    lambda: run.add_seconds_saved(1),
    lambda: run.set_kpis(entries=1),
    lambda: run.merge(Kpis(1)),
    lambda: run.attempt(),
    lambda: attempt.add_entries(),
]

def refused(record):
    try:
        record()
    except RuntimeError as error:
        return str(error)
"""


def test_recording_on_an_inherited_run(sandbox: Sandbox) -> None:
    """What a forked worker would record on its copy of the run is refused, as it would be lost: it returns a Kpis."""
    text = """
        from anymate_guard import Kpis

        def work(number):
            return [refused(record) for record in records], run.entries

        with anymate_run("k") as run:
            run.add_entries(2)
            with run.attempt() as attempt:
                with multiprocessing.get_context("fork").Pool(1) as pool:
                    ((complaints, entries),) = pool.map(work, [1])
                    pool.close()
                    pool.join()
        say(len(complaints), entries, *{text for text in complaints})
        """
    status, said, complaint = run(RECORDS + textwrap.dedent(text))
    assert (status, complaint) == (0, "")
    assert said.startswith("6 2 the run on 'k' belongs to the process that forked this one: return a Kpis")
    assert said.count("\n") == 1
    assert finished(sandbox) == [(2, None)]


def test_child_that_unwinds_through_an_attempt(sandbox: Sandbox) -> None:
    """A forked child that leaves an attempt by itself does so quietly; the attempt counts once, in its parent."""
    text = """
        with anymate_run("k") as run:
            with run.attempt() as attempt:
                attempt.add_entries(2)
                child = os.fork()
                if child:
                    say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        if child == 0:
            os._exit(5)
        """
    assert run(text) == (0, "5\n", "")
    assert finished(sandbox) == [(2, None)]


def test_terminated_child_dies_of_the_signal(sandbox: Sandbox) -> None:
    """`Process.terminate` ends a forked child at once, as it would without the guard around it."""
    text = """
        with anymate_run("k"):
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            child.start()
            child.terminate()
            child.join()
            say(child.exitcode)
        """
    assert run(text)[1] == f"{-signal.SIGTERM}\n"
    assert finished(sandbox) == [(None, None)]


@pytest.mark.usefixtures("unmeasured")
def test_fork_while_other_threads_are_at_it(sandbox: Sandbox) -> None:
    """Children forked while other threads enter and leave guards can enter and leave their own."""
    text = """
        going, allowed = True, threading.Semaphore(0)

        def work(key):
            while allowed.acquire() and going:
                with anymate_run(key) as run:
                    run.add_entries()

        threads = [threading.Thread(target=work, args=(f"k{number}",)) for number in range(4)]
        for thread in threads:
            thread.start()
        codes = []
        for number in range(12):
            allowed.release(20)  # without an end to them, a child might find the file locked each time that it asks
            child = os.fork()
            if child == 0:
                with anymate_run(f"child{number}") as run:
                    run.add_entries(7)
                os._exit(0)
            codes.append(os.waitpid(child, 0)[1])
        going = False
        allowed.release(1000)
        for thread in threads:
            thread.join()
        say(codes == [0] * 12)
        """
    assert run(text, **FORK_IS_MEANT) == (0, "True\n", "")
    finished(sandbox)
    children = [run for run in sandbox.runs() if run["processKey"].startswith("child")]
    assert [run["overwriteEntries"] for run in children] == [7] * 12


def test_fork_keeps_the_journal_of_both(sandbox: Sandbox) -> None:
    """What a child and its parent write after a fork is in one journal, whoever of them ends first."""
    text = """
        with anymate_run("parent") as run:
            run.add_entries(1)
            if os.fork() == 0:
                with anymate_run("child") as run:
                    run.add_entries(2)
                    say("inside")
                    sys.stdin.readline()
                    run.add_entries(4)
                    time.sleep(60)
            time.sleep(60)
        """
    with running(text) as bot:
        bot.until("inside")
        until(lambda: sorted(row.entries or 0 for row, _ in rows()) == [1, 2])
        close_all()  # so that the bot is alone with it
        bot.send(signal.SIGTERM)
        bot.dead()
        bot.go_on()
        until(lambda: [(row.process_key, row.entries, alive) for row, alive in rows()] == [("child", 6, True)])
        os.killpg(bot.pid, signal.SIGTERM)
        assert bot.end()[0] == TERMINATED
    until(lambda: rows() == [])
    assert finished(sandbox) == [(1, None), (6, None)]


def test_fork_does_not_wait_for_ever(sandbox: Sandbox) -> None:
    """A fork in the middle of something that does not end goes on after a while, and so does its child."""
    text = """
        from anymate_guard._journal import journal as paused
        from anymate_guard._journal.journals import all_journals
        from anymate_guard._process import fork
        fork._PATIENCE = paused._FORKING = 0.1
        held, done = threading.Event(), threading.Event()

        def stuck(journal):
            with fork.importing(), journal.wanted.lock:
                held.set()
                done.wait(60)

        with anymate_run("k") as run:
            (journal,) = all_journals()
            threading.Thread(target=stuck, args=(journal,)).start()
            held.wait(60)
            child = os.fork()
            if child == 0:
                sys.exit(5)
            say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            done.set()
        """
    assert run(text, **FORK_IS_MEANT) == (0, "5\n", "")
    assert finished(sandbox) == [(None, None)]


@pytest.mark.skipif(LATE_TO_LOOK, reason="this Python looks for threads after ours is there again")
def test_fork_finds_no_thread_of_ours(sandbox: Sandbox) -> None:
    """A bot that forks in the body is not warned of threads, and what it records afterwards is in the journal soon."""
    text = """
        with anymate_run("k") as run:
            run.add_entries(1)
            say("inside")
            sys.stdin.readline()
            for _ in range(10):
                fork()
            run.add_entries(2)
            wait()
        """
    with running(text, PYTHONWARNINGS="always") as bot:
        bot.until("inside")
        until(lambda: [row.entries for row, _ in rows()] == [1])
        bot.go_on()
        bot.until("inside")
        until(lambda: [row.entries for row, _ in rows()] == [3])
        bot.send(signal.SIGTERM)
        assert bot.end() == (TERMINATED, "", "")
    assert finished(sandbox) == [(3, None)]


def test_bot_that_forks_all_the_time(sandbox: Sandbox) -> None:
    """What a bot records is in the journal soon, also when it forks more often than the journal is written."""
    text = """
        with anymate_run("k") as run:
            while True:
                run.add_entries(1)
                fork()
                time.sleep(0.05)
        """
    with running(text) as bot:
        for least in (5, 15):
            until(lambda least=least: [row for row, _ in rows() if (row.entries or 0) >= least])  # type: ignore[misc]
        bot.send(signal.SIGKILL)
    run("with anymate_run('k'): pass")
    ((entries, _),) = finished(sandbox)
    assert entries is not None
    assert entries >= 15


def test_ctrl_c_while_the_bot_forks(sandbox: Sandbox) -> None:
    """Ctrl-C among the hooks of a fork, which Python drops with a message, leaves the others to do their work."""
    text = """
        from anymate_guard._process import fork
        fork.around(lambda _: signal.raise_signal(signal.SIGINT), lambda _: None, lambda _: None)
        with anymate_run("parent") as run:
            run.add_entries(1)
            if os.fork() == 0:
                with anymate_run("child") as run:
                    run.add_entries(2)
                os._exit(0)
            os.wait()
        """
    status, said, complaint = run(text, **FORK_IS_MEANT)
    assert (status, said) == (0, "")
    assert complaint.count("KeyboardInterrupt") == 1
    assert sorted(finished(sandbox), key=str) == [(1, None), (2, None)]


def test_fork_in_the_midst_of_a_fork(sandbox: Sandbox) -> None:
    """A signal handler that forks while the bot forks, as one that starts workers anew, gets back what it took only."""
    text = """
        from anymate_guard._process import fork as forks
        signal.signal(signal.SIGUSR1, lambda *_: fork())
        come = [signal.SIGUSR1]
        forks.around(lambda _: come and signal.raise_signal(come.pop()), lambda _: None, lambda _: None)

        def work():
            with anymate_run("other") as other:
                other.add_entries(2)

        with anymate_run("k") as run:
            run.add_entries(1)
            fork()
            say(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(LONGEST)
            run.add_entries(2)
            sys.stdin.readline()
        """
    with running(text.replace("LONGEST", f"{LONGEST}"), **FORK_IS_MEANT) as bot:
        bot.until("set()")
        until(lambda: [row for row, _ in rows() if row.entries == 3])
        bot.send(signal.SIGTERM)
        assert bot.end()[0] == TERMINATED
    assert finished(sandbox) == [(3, None), (2, None)]


def test_guard_that_its_parent_is_in(sandbox: Sandbox) -> None:
    """A child may enter the guard object that its parent had entered: it is another program in the same run."""
    text = """
        guard = anymate_run("k")
        with guard as run:
            run.add_entries(1)
            if os.fork() == 0:
                with guard as its:
                    its.add_entries(2)
                os._exit(0)
            say(os.wait()[1])
        """
    assert run(text, **FORK_IS_MEANT) == (0, "0\n", "")
    assert finished(sandbox) == [(3, None)]


@pytest.mark.usefixtures("unmeasured")
def test_threads_that_fork_at_once(sandbox: Sandbox) -> None:
    """Threads that fork at the same time get back what each of them gave up for it, and no more."""
    text = """
        sys.setswitchinterval(1e-6)

        def work():
            for _ in range(4):
                fork()
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))

        masks = []
        with anymate_run("k") as run:
            run.add_entries(3)
            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        say(masks)
        """
    assert run(text, **FORK_IS_MEANT) == (0, "[set(), set(), set()]\n", "")
    assert finished(sandbox) == [(3, None)]


def test_child_left_behind(sandbox: Sandbox) -> None:
    """A forked child that outlives its killed parent does not keep it alive: the next start takes its work over."""
    text = """
        with anymate_run("k") as run:
            run.add_entries(5)
            child = os.fork()
            if child == 0:
                time.sleep(60)
            say(child)
            wait()
        """
    with running(text) as bot:
        bot.until("inside")
        child = children(bot.pid)[0]
        until(lambda: [row.entries for row, _ in rows()] == [5])
        bot.send(signal.SIGKILL)
        until(lambda: [alive for _, alive in rows()] == [False])
        os.kill(child, 0)
        run("with anymate_run('k') as run: run.add_entries(1)")
        os.kill(child, signal.SIGKILL)
    assert finished(sandbox) == [(6, None)]


def test_fork_while_the_recorder_waits_for_the_disk(sandbox: Sandbox) -> None:
    """A fork waits for a recorder that waits for the disk, and the next guard has one again."""
    text = """
        sync, waits = os.fsync, threading.Event()

        def fsync(file):
            thread = threading.current_thread()
            if thread.name == "anymate_guard" and not waits.is_set():
                waits.set()
                thread.stop.wait()
            sync(file)

        os.fsync = fsync
        with anymate_run("k"):
            pass
        waits.wait()
        fork()
        with anymate_run("k") as run:
            run.add_entries(2)
            say("inside")
            sys.stdin.readline()
        """
    with running(text) as bot:
        bot.until("inside")
        until(lambda: [row.entries for row, _ in rows()] == [2])
        assert bot.end() == (0, "", "")
    assert finished(sandbox) == [(None, None), (2, None)]


def test_fork_while_the_log_is_put_into_the_file(sandbox: Sandbox) -> None:
    """A fork waits while another thread has a second connection to the journal's file: a child must inherit none."""
    text = """
        import sqlite3
        from anymate_guard._journal.storage import database
        from anymate_guard._journal.journals import all_journals

        begun, go_on, order = threading.Event(), threading.Event(), []

        class Slow(sqlite3.Connection):
            def execute(self, statement, *values):
                if "wal_checkpoint" in statement and not begun.is_set():
                    begun.set()
                    go_on.wait()
                    order.append("written")
                return super().execute(statement, *values)

        connect, database._LARGEST_LOG = sqlite3.connect, -1
        with anymate_run("k"):
            sqlite3.connect = lambda *arguments, **options: connect(*arguments, factory=Slow, **options)
            thread = threading.Thread(target=all_journals()[0].clear, args=[1.0], kwargs={"durable": True})
            thread.start()
            begun.wait()
            threading.Timer(0.5, go_on.set).start()
            fork()
            order.append("forked")
            thread.join()
        say(*order)
        """
    assert run(text) == (0, "written forked\n", "")


def test_interrupted_while_it_waits_to_fork(sandbox: Sandbox) -> None:
    """Ctrl-C that comes while a fork waits for another thread leaves nothing locked."""
    text = """
        from anymate_guard._journal.journals import all_journals

        def check():
            say("free" if journal.wanted.lock.acquire(timeout=60) else "locked")

        with anymate_run("k"):
            (journal,) = all_journals()
            held, go_on = threading.Event(), threading.Event()

            def hold():
                with journal._database.checkpointing:
                    held.set()
                    go_on.wait()

            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()
            main = threading.get_ident()
            threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
            fork()
            go_on.set()
            thread.join()
            checking = threading.Thread(target=check)
            checking.start()
            checking.join()
            os._exit(0)
        """
    assert run(text)[:2] == (0, "free\n")


def test_fork_while_the_recorder_ends(sandbox: Sandbox) -> None:
    """A fork waits until the system does not count the recorder's thread any more, for which Python would warn."""
    text = """
        exists, looks = os.path.exists, []

        def still_counted(path):
            if "/task/" not in str(path):
                return exists(path)
            looks.append(path)
            return len(looks) < 3

        os.path.exists = still_counted
        with anymate_run("k") as run:
            fork()
            run.add_entries(len(looks))
        """
    assert run(text) == (0, "", "")
    assert finished(sandbox) == [(3, None)]

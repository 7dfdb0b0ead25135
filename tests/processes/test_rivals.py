"""Programs that could end each other's run, or forget about it, and don't."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from anymate_guard import AnymateClient, NotOkToRun, Settings, anymate_run
from anymate_guard._journal.journals import close_all
from anymate_guard.sandbox import Sandbox
from anymate_guard.sandbox._state.tokens import CREDENTIALS
from tests.support.faults import held, reset_before
from tests.support.proxy import FaultProxy
from tests.support.waiting import LONGEST, until

from .bots import Bot, asked, finished, rows, run, running

if sys.platform == "win32":
    pytest.skip("its bots are POSIX programs", allow_module_level=True)

SHORT = {"ANYMATE_DEADLINE": "2", "ANYMATE_TIMEOUT": "1"}
OTHER = "with anymate_run('other'): pass"
KILLED = """
from anymate_guard._journal.journals import all_journals
with anymate_run("killed") as run:
    run.add_entries(5)
    all_journals()[0].look()
    os.kill(os.getpid(), signal.SIGKILL)
"""
DELIVER = """
from anymate_guard._guard import defaults, driver  # without the two seconds that a guard gives to what is owed
assert driver.settle_all(defaults.shared_client())
"""


def body(entries: int, options: str = "") -> str:
    """A bot that records, and leaves when it is told to go on."""
    return f"""
with anymate_run("k"{options}) as run:
    run.add_entries({entries})
    say("inside")
    sys.stdin.readline()
"""


@contextmanager
def at_work(entries: int, **environ: str) -> Iterator[Bot]:
    """A bot in its body, whose entries are in the journal."""
    with running(body(entries), **environ) as bot:
        bot.until("inside")
        until(lambda: entries in [row.entries for row, _ in rows()])
        yield bot


def comes_and_goes(**environ: str) -> None:
    """Another bot on the same process, with an entry."""
    status, _, complaint = run("with anymate_run('k') as run: run.add_entries(1)", **environ)
    assert status == 0, complaint


def is_open(sandbox: Sandbox) -> bool:
    """Whether there is one run, and it is open."""
    return [one["finished"] for one in sandbox.runs()] == [False]


def kill(bot: Bot) -> None:
    """Kill a bot, and see that this is known."""
    bot.send(signal.SIGKILL)
    until(lambda: not any(alive for _, alive in rows()))


def file() -> Path:
    """The journal's file."""
    return Path(os.environ["ANYMATE_STATE_DIR"], "journal.sqlite3")


@contextmanager
def locked() -> Iterator[None]:
    """Another program holds the write lock."""
    with closing(sqlite3.connect(file(), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_what_is_owed_beside_an_adopted_run(sandbox: Sandbox) -> None:
    """A finish without a run, owed since an outage, does not end the run that a guard adopts; it gets its own."""
    sandbox.close()
    run("with anymate_run('k') as run: run.add_entries(3)", **SHORT)
    sandbox.start()
    with AnymateClient(Settings.from_env()) as client:
        adopted = client.start_run("k")
        with anymate_run("k", client=client, run_id=adopted) as own:
            own.add_entries(10)
            assert is_open(sandbox)
    assert run(DELIVER)[0] == 0
    assert sorted(finished(sandbox), key=str) == [(10, None), (3, None)]


def test_adopted_run_of_a_guard_that_may_not_run(sandbox: Sandbox) -> None:
    """A guard that adopts a run, and hears that it is not OK to run, leaves that run to who has started it."""
    sandbox.close()
    run("with anymate_run('k') as run: run.add_entries(3)", **SHORT)
    sandbox.start()
    sandbox.set_process("k", stopped=True)
    with AnymateClient(Settings.from_env()) as client:
        adopted = client.start_run("k")
        with pytest.raises(NotOkToRun), anymate_run("k", client=client, run_id=adopted, check_ok_to_run=True):
            pytest.fail("the body ran")
        assert is_open(sandbox)


ADAPTER = 'import sqlite3; sqlite3.register_adapter(bool, lambda flag: "yes" if flag else "no")'
WHOLE_SECONDS = "time.time = lambda now=int(time.time()): now"


@pytest.mark.parametrize("before", [ADAPTER, WHOLE_SECONDS])
def test_bot_that_changes_what_others_see(sandbox: Sandbox, before: str) -> None:
    """A bot that tells sqlite how to keep its booleans, or that patches the clock, is seen and carried by others."""
    with running(before + body(10)) as bot:
        bot.until("inside")
        until(lambda: 10 in [row.entries for row, _ in rows()])
        comes_and_goes()
        assert is_open(sandbox)
        kill(bot)
    comes_and_goes()
    assert finished(sandbox) == [(12, None)]


def test_dead_bot_before_adopters(sandbox: Sandbox) -> None:
    """What a killed bot left in a run that is over is settled also where only adopters come after it."""
    with at_work(5) as dead:
        kill(dead)
    with AnymateClient(Settings.from_env()) as client:
        client.finish_run(sandbox.runs()[0]["runId"])
        for entries in (10, 20):
            with anymate_run("k", client=client, run_id=client.start_run("k")) as own:
                own.add_entries(entries)
    assert sorted(entries or 0 for entries, _ in finished(sandbox)) == [0, 5, 10, 20]


@pytest.mark.parametrize("killed", [False, True])
def test_two_mates_on_one_process(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, *, killed: bool) -> None:
    """Bots of two mates share the run of a process: the last one out finishes it, with what a killed one left there."""
    with at_work(10) as first:
        monkeypatch.setitem(CREDENTIALS, "username", "second")
        with at_work(1, ANYMATE_USERNAME="second") as second:
            if killed:
                first.send(signal.SIGKILL)
                first.dead()
            assert second.end() == (0, "", "")
        if not killed:
            assert is_open(sandbox)
            assert first.end() == (0, "", "")
    assert finished(sandbox) == [(11, None)]


def test_finish_that_arrives_when_its_bot_is_dead(sandbox: Sandbox, proxy: FaultProxy) -> None:
    """A finish that Anymate held while its bot was killed ends the next bot's run: that one's own gets a run anew."""
    arrived, go_on = threading.Event(), threading.Event()
    proxy.break_next("FinishRun", held(arrived, go_on))
    slow = {"ANYMATE_API_URL": proxy.url, "ANYMATE_AUTH_URL": proxy.url}
    with running("with anymate_run('k') as run: run.add_entries(10)", **slow) as dead:
        assert arrived.wait(LONGEST)
        kill(dead)
    proxy.break_next("FinishRun", reset_before, times=100)
    with running(body(5), **slow) as bot:
        bot.until("inside")
        go_on.set()
        until(lambda: sandbox.runs()[0]["finished"])
        proxy.heal()
        bot.end()
    assert finished(sandbox) == [(10, None), (5, None)]


def test_bot_that_entered_while_the_journal_was_locked(sandbox: Sandbox) -> None:
    """A bot that entered while the journal was locked is known to be alive once it is not."""
    run(OTHER)
    with running(body(10), **SHORT) as bot:
        with locked():
            bot.until("inside")
        until(lambda: [(row.entries, alive) for row, alive in rows()] == [(10, True)])
        comes_and_goes()
        assert not sandbox.runs()[1]["finished"]
        bot.end()
    assert finished(sandbox) == [(None, None), (11, None)]


def test_bot_whose_journal_is_free_again_when_its_run_starts(sandbox: Sandbox, proxy: FaultProxy) -> None:
    """A bot that entered while the journal was locked is known to be alive from its first row on."""
    run(OTHER)
    arrived, go_on = threading.Event(), threading.Event()
    proxy.break_next("StartRun", held(arrived, go_on))
    with ExitStack() as stack:
        with locked():
            bot = stack.enter_context(running(body(10), ANYMATE_API_URL=proxy.url))
            assert arrived.wait(LONGEST)
        go_on.set()
        until(rows)
        assert [alive for _, alive in rows()] == [True]
        bot.until("inside")
        comes_and_goes(ANYMATE_API_URL=proxy.url)
        assert not sandbox.runs()[1]["finished"]
        bot.end()
    assert finished(sandbox) == [(None, None), (11, None)]


def test_bot_that_goes_elsewhere(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder that is given relatively stays where it was when a bot changes its current directory."""
    monkeypatch.chdir(tmp_path)
    sandbox.close()
    text = """
    with anymate_run("k") as run:
        run.add_entries(10)
    os.mkdir("elsewhere")
    os.chdir("elsewhere")
    say("there")
    sys.stdin.readline()
    with anymate_run("k") as run:
        run.add_entries(1)
    """
    with running(text, **SHORT, ANYMATE_STATE_DIR="state") as bot:
        bot.until("there")
        sandbox.start()
        assert bot.end()[0] == 0
    assert finished(sandbox) == [(10, None), (1, None)]
    assert not list(Path("elsewhere").iterdir())


def test_folder_that_is_replaced_by_a_file(sandbox: Sandbox) -> None:
    """A bot whose folder is moved away, with something else in its place, goes on, and its run is finished."""
    text = """
    from pathlib import Path
    folder = Path(os.environ["ANYMATE_STATE_DIR"])
    with anymate_run("k") as run:
        folder.rename(folder.with_name("moved"))
        folder.write_text("in the way")
        run.add_entries(3)
    """
    assert run(text, **SHORT)[0] == 0
    assert [(one["finished"], one["overwriteEntries"]) for one in sandbox.runs()] == [(True, 3)]


def test_recorder_after_the_folder_was_replaced(sandbox: Sandbox) -> None:
    """The recorder ends when there is nothing to do, also where a finished run was in a journal that is gone."""
    text = """
    from pathlib import Path
    folder = Path(os.environ["ANYMATE_STATE_DIR"])
    with anymate_run("k"):
        folder.rename(folder.with_name("moved"))
        folder.write_text("in the way")
    folder.unlink()
    while any(thread.name == "anymate_guard" for thread in threading.enumerate()):
        time.sleep(0.01)
    """
    assert run(text, **SHORT)[0] == 0


def test_bot_whose_clock_was_ahead(sandbox: Sandbox) -> None:
    """What is recorded is soon in the journal also after the bot's clock was a mock, which ran ahead."""
    text = """
    real, asked = time.monotonic, []

    def ahead():
        if len(asked) == 2 or sys._getframe(1).f_code.co_name != "_look":
            return real()
        asked.append("by the recorder, before it looks")
        return real() + 1000

    time.monotonic = ahead
    with anymate_run("k") as run:
        while len(asked) < 2:
            time.sleep(0.01)
        run.add_entries(3)
        sys.stdin.readline()
    """
    with running(text) as bot:
        until(lambda: [row.entries for row, _ in rows()] == [3])
        assert bot.end() == (0, "", "")
    assert finished(sandbox) == [(3, None)]


def test_failure_of_who_leaves_first(sandbox: Sandbox) -> None:
    """A failure is reported by the last bot out of the run, after its FinishRun, which would wipe it."""
    with at_work(10) as last:
        text = "with anymate_run('k', report_failure=True) as run: raise ValueError('no invoices')"
        assert "no invoices" in run(text)[2]
        assert not asked(sandbox, "Failure")()
        last.end()
    assert finished(sandbox) == [(10, None)]
    assert [one["operation"] for one in sandbox.requests()][-2:] == ["FinishRun", "Failure"]
    assert [one["message"] for one in sandbox.failures()] == ["ValueError: no invoices"]


def test_folder_that_is_removed_under_an_idle_bot(sandbox: Sandbox) -> None:
    """A bot that waits in its body is seen, and keeps what it recorded, when the folder is removed and others come."""
    with at_work(10) as idle:
        shutil.rmtree(file().parent)
        until(lambda: [(row.entries, alive) for row, alive in rows()] == [(10, True)])
        comes_and_goes()
        assert is_open(sandbox)
        status, said, complaint = idle.end()
        assert (status, said) == (0, "")
        assert "what others had left there may be lost" in complaint
        assert len(complaint.splitlines()) == 1
    assert finished(sandbox) == [(11, None)]


def test_lock_file_that_is_deleted(sandbox: Sandbox) -> None:
    """A bot that waits in its body is not taken for dead when the lock file is deleted and others come at once."""
    with at_work(10) as idle:
        file().with_name("owners.lock").unlink()
        run(OTHER)
        comes_and_goes()
        assert not sandbox.runs()[0]["finished"]
        idle.end()
    assert sorted(finished(sandbox), key=str) == [(11, None), (None, None)]


def test_bot_that_copies_the_folder(sandbox: Sandbox) -> None:
    """A bot that copies the journal's folder, as a backup does, is not taken for dead."""
    text = """
    import shutil
    with anymate_run("k") as run:
        run.add_entries(10)
        shutil.copytree(os.environ["ANYMATE_STATE_DIR"], os.environ["ANYMATE_STATE_DIR"] + " copied")
        say("inside")
        sys.stdin.readline()
    """
    with running(text) as bot:
        bot.until("inside")
        comes_and_goes()
        assert is_open(sandbox)
        bot.end()
    assert finished(sandbox) == [(11, None)]


COPIES = """
import shutil
from anymate_guard._journal.journals import all_journals
with anymate_run("k") as run:
    run.add_entries(10)
    say("inside")
    sys.stdin.readline()
    shutil.copytree(os.environ["ANYMATE_STATE_DIR"], os.environ["ANYMATE_STATE_DIR"] + " copied")
    say("copied")
    sys.stdin.readline()
    run.add_entries(1)
    all_journals()[0].look()
    say("recorded")
    sys.stdin.readline()
say("left")
sys.stdin.readline()
"""


@contextmanager
def has_copied() -> Iterator[Bot]:
    """A bot in its body that has copied the folder, and so has lost sqlite's locks."""
    with running(COPIES) as bot:
        bot.until("inside")
        until(lambda: [row.entries for row, _ in rows()] == [10])
        close_all()  # whoever ends now is the last one at the file, for all that sqlite knows
        bot.go_on()
        bot.until("copied")
        yield bot


def test_killed_after_it_copied_the_folder(sandbox: Sandbox) -> None:
    """What a bot records after it has copied the folder, and others came and went, is credited when it is killed."""
    with has_copied() as bot:
        run(OTHER)
        bot.go_on()
        bot.until("recorded")
        until(lambda: 11 in [row.entries for row, _ in rows()])
        kill(bot)
    comes_and_goes()
    assert sorted(finished(sandbox), key=str) == [(12, None), (None, None)]


def test_finished_after_it_copied_the_folder(sandbox: Sandbox) -> None:
    """What a bot finishes after it has copied the folder, and others came and went, is finished for good."""
    with has_copied() as bot:
        run(OTHER)
        bot.go_on()
        bot.until("recorded")
        bot.go_on()
        bot.until("left")
        until(lambda: rows() == [])
        bot.send(signal.SIGKILL)
        bot.dead()
    comes_and_goes()
    assert sorted(finished(sandbox), key=str) == [(1, None), (11, None), (None, None)]


def test_owed_beside_a_bot_that_copied_the_folder(sandbox: Sandbox) -> None:
    """What others leave in the journal outlasts a bot that has copied the folder before they came, and then ends."""
    with has_copied() as bot:
        run(OTHER)
        bot.go_on()
        bot.until("recorded")
        sandbox.fail_next("FinishRun", 403)
        run("with anymate_run('owed') as run: run.add_entries(5)")
        bot.end()
    assert run(DELIVER)[0] == 0
    assert sorted(finished(sandbox), key=str) == [(11, None), (5, None), (None, None)]


def test_killed_beside_a_bot_that_copied_the_folder(sandbox: Sandbox) -> None:
    """What a killed bot has recorded outlasts one that copied the folder, and finds out later that others came."""
    with has_copied() as bot:
        bot.send(signal.SIGSTOP)
        run(OTHER)
        run(KILLED)
        bot.send(signal.SIGCONT)
        bot.go_on()
        bot.until("recorded")
        bot.end()
    assert run(DELIVER)[0] == 0
    assert sorted(finished(sandbox), key=str) == [(11, None), (5, None), (None, None)]


def test_log_that_is_deleted_under_idle_bots(sandbox: Sandbox) -> None:
    """Bots that wait in their bodies keep what they recorded when the journal's log is deleted, and say so."""
    run(OTHER)  # whose end puts its log into the file: the next one is not all that there is
    with at_work(10) as first, at_work(20) as second:
        for suffix in ("-wal", "-shm"):
            file().with_name(f"{file().name}{suffix}").unlink()
        until(lambda: sorted(row.entries or 0 for row, alive in rows() if alive) == [10, 20])
        first.send(signal.SIGKILL)
        first.dead()
        comes_and_goes()
        assert not sandbox.runs()[1]["finished"]
        status, said, complaint = second.end()
        assert (status, said) == (0, "")
        assert "what others had left there may be lost" in complaint
        assert len(complaint.splitlines()) == 1
    assert finished(sandbox) == [(None, None), (31, None)]


def test_memory_that_is_deleted_under_a_bot(sandbox: Sandbox) -> None:
    """A bot and one that came after a cleaner had deleted what sqlite shares as memory are in one run, to its end."""
    with at_work(10) as first:
        close_all()
        file().with_name("journal.sqlite3-shm").unlink()
        with at_work(20) as second:
            assert first.end() == (0, "", "")
            assert is_open(sandbox)
            second.end()
    assert finished(sandbox) == [(30, None)]


def test_killed_after_the_memory_was_deleted(sandbox: Sandbox) -> None:
    """What a killed bot has recorded outlasts one that finds out later that sqlite shares other memory by now."""
    with at_work(10) as bot:
        bot.send(signal.SIGSTOP)
        file().with_name("journal.sqlite3-shm").unlink()
        run(KILLED)
        close_all()  # so that nobody else has the file open
        bot.send(signal.SIGCONT)
        assert bot.end() == (0, "", "")
    assert run(DELIVER)[0] == 0
    assert sorted(finished(sandbox), key=str) == [(10, None), (5, None)]


def test_copy_that_is_put_back(sandbox: Sandbox) -> None:
    """What a live bot has finished stays finished when a copy of the folder from before that is put back."""
    text = """
    with anymate_run("other"):
        with anymate_run("k") as run:
            run.add_entries(10)
            say("inside")
            sys.stdin.readline()
        say("left")
        sys.stdin.readline()
    """
    copied = file().parent.with_name("copied")
    with running(text) as bot:
        bot.until("inside")
        until(lambda: 10 in [row.entries for row, _ in rows()])
        close_all()
        shutil.copytree(file().parent, copied)
        bot.go_on()
        bot.until("left")
        shutil.rmtree(file().parent)
        copied.rename(file().parent)
        until(lambda: [row.process_key for row, alive in rows() if alive] == ["other"])
        assert len(rows()) == 1
        assert bot.end() == (0, "", "")
    assert run(DELIVER)[0] == 0
    assert sorted(finished(sandbox), key=str) == [(10, None), (None, None)]


def test_copy_that_is_put_back_before_a_step_that_fails(sandbox: Sandbox) -> None:
    """What a live bot has finished stays finished, also where its first step in the copy comes to nothing."""
    text = """
    import shutil
    from anymate_guard._journal.journals import all_journals
    with anymate_run("other"):
        (journal,) = all_journals()
        folder, copied = journal.path.parent, journal.path.parent.with_name("copied")
        with anymate_run("k") as run:
            run.add_entries(10)
            with journal.wanted.lock:
                journal.close()
                shutil.copytree(folder, copied)
        with journal.wanted.lock:
            shutil.rmtree(folder)
            copied.rename(folder)
            try:
                journal.apply("", lambda view: 1 / 0, 0.0)
            except ZeroDivisionError:
                pass
    """
    assert run(text)[0] == 0
    assert run(DELIVER)[0] == 0
    assert sorted(finished(sandbox), key=str) == [(10, None), (None, None)]


def test_new_file_that_is_locked_at_first(sandbox: Sandbox) -> None:
    """A bot whose journal was deleted writes its row to the new one, also where another program is busy there."""
    text = """
    from anymate_guard._journal.storage.database import Database
    from anymate_guard._journal.storage.folder import Folder
    from anymate_guard._journal.journals import all_journals
    with anymate_run("k") as run:
        run.add_entries(10)
        (journal,) = all_journals()
        journal.look()
        with journal.wanted.lock:
            for path in journal.path.parent.iterdir():
                path.unlink()
            another = Database(Folder(journal.path.parent))
            another.connect()
            another._connection.execute("BEGIN IMMEDIATE")
            journal.clear(0.0)
            another._connection.execute("ROLLBACK")
            another.disconnect()
        journal.look()
        run.add_entries(1)
    """
    assert run(text)[0] == 0
    assert finished(sandbox) == [(11, None)]


def test_file_that_is_damaged_under_an_idle_bot(sandbox: Sandbox) -> None:
    """A bot that waits in its body is seen in the file that others put in the place of a damaged one."""
    with at_work(10) as idle:
        damaged = file().with_name("damaged")
        damaged.write_bytes(b"no database" * 1000)
        file().with_name("journal.sqlite3-wal").unlink()  # it holds all that is new
        damaged.rename(file())
        with running(body(1)) as other:
            other.until("inside")
            assert list(file().parent.glob("*.corrupt-*"))
            until(lambda: sorted(row.entries or 0 for row, alive in rows() if alive) == [1, 10])
            other.end()
        assert is_open(sandbox)
        idle.end()
    assert finished(sandbox) == [(11, None)]


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs to mount")
def test_folder_by_two_names(sandbox: Sandbox, tmp_path: Path) -> None:
    """A bot that uses the folder by the names of two mounts, and is done with one of them, is alive by the other."""
    first, second = Path(os.environ["ANYMATE_STATE_DIR"]), tmp_path / "second"
    first.mkdir()
    second.mkdir()
    text = f"""
    import dataclasses, subprocess
    from anymate_guard import AnymateClient, Settings
    subprocess.run(["mount", "--bind", {str(first)!r}, {str(second)!r}], check=True)
    with anymate_run("k") as run:
        run.add_entries(10)
        with AnymateClient(Settings.from_env({{**os.environ, "ANYMATE_STATE_DIR": {str(second)!r}}})) as client:
            with anymate_run("other", client=client):
                pass
        say("inside")
        sys.stdin.readline()
    """
    with running(text, wrapper=("unshare", "--mount")) as bot:
        bot.until("inside")
        comes_and_goes()
        assert not sandbox.runs()[0]["finished"]
        bot.end()
    assert sorted(finished(sandbox), key=str) == [(11, None), (None, None)]


def test_leaving_while_the_journal_is_locked(sandbox: Sandbox) -> None:
    """A bot that can't write to the journal while it leaves forgets nobody who left before, and sends nothing twice."""
    with at_work(10, **SHORT) as last:
        comes_and_goes()
        with locked():
            assert last.end()[0] == 0
            assert is_open(sandbox)
    assert run(DELIVER)[0] == 0
    assert sum(entries or 0 for entries, _ in finished(sandbox)) == 11


def test_leaving_a_live_bot_s_run_while_the_journal_is_locked(sandbox: Sandbox) -> None:
    """A bot that comes and goes while the journal is locked ends no run of another; its KPIs are in its log."""
    with at_work(10) as live:
        with locked():
            complaint = run("with anymate_run('k') as run: run.add_entries(1)", **SHORT)[2]
            assert "anymate.finish_lost process_key=k" in complaint
            assert "entries=1" in complaint
            assert is_open(sandbox)
        assert live.end() == (0, "", "")
    assert all(one["finished"] for one in sandbox.runs())


def test_leaving_without_a_run_while_the_journal_is_locked(sandbox: Sandbox) -> None:
    """A bot that has no run does not start into another one's, and end it, when the journal is locked."""
    with at_work(10) as live:
        sandbox.fail_next("StartRun", status=503, times=100)
        with locked(), running(body(1), **SHORT) as late:
            late.until("inside")
            sandbox._world.faults.reset()
            late.end()
            assert is_open(sandbox)
        live.end()
    assert finished(sandbox) == [(10, None)]


def test_finish_without_a_run_while_the_journal_is_locked(sandbox: Sandbox) -> None:
    """What is on the disk, without a run, is sent once, although the journal is locked while its bot leaves."""
    sandbox.close()
    with running(body(10), **SHORT) as bot:
        bot.until("inside")
        until(lambda: [row.entries for row, _ in rows()] == [10])
        sandbox.start()
        with locked():
            assert bot.end()[0] == 0
    assert run(DELIVER)[0] == 0
    assert finished(sandbox) == [(10, None)]


def test_full_disk_of_one_bot(sandbox: Sandbox) -> None:
    """A bot that has no room to write its row does not end the run that another one is in."""
    full = """
    import resource
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))
    with anymate_run("k") as run:
        run.add_entries(1)
    """
    with at_work(10) as live:
        assert run(full, **SHORT)[0] == 0
        assert is_open(sandbox)
        live.end()
    assert finished(sandbox)[0] == (10, None)

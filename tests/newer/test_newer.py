"""Signals beside locks, sub-interpreters, and the context of threads, all of which Python 3.14 changed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from anymate_guard.sandbox import Sandbox

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="this came with Python 3.14")

STORM = """
import os, random, signal, threading, time
from anymate_guard import anymate_run

armed, ended = threading.Event(), threading.Event()

def storm():
    for _ in range(200):
        if armed.wait(60):
            armed.clear()
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(random.random() / 10_000)
    time.sleep(0.1)
    ended.set()

def look():
    while not ended.is_set():
        run.kpis

with anymate_run("k") as run:
    threads = [threading.Thread(target=target, daemon=True) for target in (storm, look)]
    for thread in threads:
        thread.start()
    while not ended.is_set():
        try:
            armed.set()
            while not ended.is_set():
                run.add_entries()
                with run.attempt() as attempt:
                    attempt.add_entries()
        except KeyboardInterrupt:
            pass
    threads.append(threading.Thread(target=run.kpis.__repr__, daemon=True))
    threads[-1].start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a lock stayed held"
print("free")
"""
INHERITED = """
import threading
from concurrent.futures import ThreadPoolExecutor
from anymate_guard import NoCurrentRun, anymate_run, current_run

def work():
    try:
        current_run().add_entries()
    except NoCurrentRun:
        print("none")

with anymate_run("k") as run, ThreadPoolExecutor(1) as pool:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    pool.submit(work).result()
    print(run.entries)
"""


def _python(text: str, *options: str, **environ: str) -> str:
    """What a program printed that went well."""
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(text)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_storm_of_ctrl_c() -> None:
    """Ctrl-C two hundred times while recording: nothing is held afterwards that another thread waits for."""
    assert _python(STORM, ANYMATE_DISABLED="1") == "free\n"


def test_a_sub_interpreter(sandbox: Sandbox) -> None:
    """A sub-interpreter is refused before anything is sent, and told where the guard belongs."""
    output = _python(
        """
        from concurrent import interpreters

        try:
            interpreters.create().exec("from anymate_guard import anymate_run\\nwith anymate_run('k'): pass")
        except interpreters.ExecutionFailed as error:
            print(error)
        """
    )
    assert "RuntimeError: anymate_run was entered in a sub-interpreter" in output
    assert "hold the guard in the main interpreter" in output
    assert sandbox.requests() == []


@pytest.mark.parametrize(("inherit", "output"), [("0", "none\nnone\nNone\n"), ("1", "2\n")])
def test_the_run_of_a_new_thread(sandbox: Sandbox, inherit: str, output: str) -> None:
    """A new thread has no current run, but that of who started it where Python lets threads inherit their context."""
    assert _python(INHERITED, "-X", f"thread_inherit_context={inherit}") == output
    assert [run["finished"] for run in sandbox.runs()] == [True]

"""Programs that do what they are told, and can be killed at once: forked from one that has imported everything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

# The parent forks a child for every line it reads; a child enters, records and leaves on request, each guard in a
# thread of its own.
NURSERY = """
import os, signal, socket, sys
from concurrent.futures import ThreadPoolExecutor
from anymate_guard import anymate_run
from anymate_guard._journal.journals import all_journals
import anymate_guard._http.transport, structlog

class Bodies:
    def __init__(self):
        self.guards, self.threads, self.runs = {}, {}, {}
    def do(self, verb, slot="", *rest):
        thread = self.threads.setdefault(slot, ThreadPoolExecutor(1))
        return thread.submit(getattr(self, verb), slot, *rest).result(30)
    def enter(self, slot, key):
        guard = anymate_run(key)
        self.runs[slot] = guard.__enter__()
        self.guards[slot] = guard
        return self.runs[slot].run_id
    def record(self, slot, count):
        self.runs[slot].add_entries(int(count))
    def leave(self, slot, failed):
        guard = self.guards.pop(slot)
        error = ValueError("flawed") if failed == "failed" else None
        guard.__exit__(error and type(error), error, None)
    def note(self, slot):
        for journal in all_journals():
            journal.look()

def live(path):
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        line.sendall(b"%d\\n" % os.getpid())
        bodies = Bodies()
        for words in line.makefile():
            line.sendall(b"%s\\n" % str(bodies.do(*words.split())).encode())
    os._exit(0)

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for path in sys.stdin:
    if os.fork() == 0:
        live(path.strip())
"""


class Nursery:
    """Where programs come from."""

    def __init__(self, folder: Path) -> None:
        """Start it."""
        self._path = folder / "line"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen()
        self._listener.settimeout(20)
        self._process = subprocess.Popen([sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, text=True)

    def program(self) -> Program:
        """A new program."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{self._path}\n")
        self._process.stdin.flush()
        line, _ = self._listener.accept()
        return Program(line)

    def close(self) -> None:
        """End it."""
        self._process.communicate()
        self._listener.close()


class Program:
    """One program."""

    def __init__(self, line: socket.socket) -> None:
        """Hear from it."""
        line.settimeout(30)
        self._line = line
        self._words = line.makefile()
        self._pid = int(self._words.readline())

    def do(self, *words: object) -> str:
        """Tell it to do something, and wait until that is done."""
        self._line.sendall(" ".join(map(str, words)).encode() + b"\n")
        answer = self._words.readline().strip()
        assert answer, f"it died of {words}"
        return answer

    def kill(self) -> None:
        """Kill it, and wait until it is dead."""
        os.kill(self._pid, 9)
        assert self._words.read() == ""
        self._words.close()
        self._line.close()

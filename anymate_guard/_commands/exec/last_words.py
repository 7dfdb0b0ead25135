"""What a command wrote to stderr last: a failure's message says so."""

from __future__ import annotations

import contextlib
import os
import re
import select
import subprocess
import sys
import threading
from typing import IO

_CHUNK = 1 << 20  # bytes: as much as a pipe holds
_KEPT = 8192  # bytes
_LINES = 10
_PATIENCE = 1  # seconds for the end on Windows: a program that the command left behind may hold the pipe for days
_CODES = re.compile(r"\033\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")  # for colour, mostly


class LastWords:
    """Passes on to stderr what comes through a pipe, as it comes, and remembers the end of it.

    Args:
        pipe: The command's stderr.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._kept = b""
        self._lock = threading.Lock()  # held while something is passed on
        self._over = False
        if sys.platform != "win32":
            os.set_blocking(pipe.fileno(), False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """The last lines, once the command has ended; of one that was written over itself, what it shows at last.

        All that the command wrote has been passed on then, however slow the reader of our stderr is.
        """
        self._finish()
        text = self._kept.decode("utf-8", "replace").replace("\r\n", "\n")
        lines = [_CODES.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip() for line in text.split("\n")]
        return "\n".join([line for line in lines if line][-_LINES:])

    def _listen(self) -> None:
        if sys.platform == "win32":
            while self._pass_on():
                pass
            return
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while True:
            poll.poll()
            with self._lock:
                if self._over or not self._pass_on():
                    return

    def _finish(self) -> None:
        if sys.platform == "win32":  # where nobody can see what a pipe holds
            self._thread.join(_PATIENCE)
            return
        with self._lock:
            self._over = True
            if self._pass_on() and self._pass_on():  # all that the pipe held, and then not its end: it was left behind
                os.set_blocking(self._pipe.fileno(), True)
                environ = {"PATH": os.environ.get("PATH", os.defpath)}  # it may run for days, and needs no secrets
                with contextlib.suppress(OSError):  # a small container may have no cat
                    subprocess.Popen(
                        ["cat"],  # noqa: S607
                        stdin=self._pipe,
                        stdout=sys.stderr,
                        cwd="/",
                        env=environ,
                        start_new_session=True,
                    )

    def _pass_on(self) -> bool:
        """Pass on what is in the pipe; whether more may come."""
        try:
            data = rest = os.read(self._pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return True
        self._kept = (self._kept + data)[-_KEPT:]
        with contextlib.suppress(OSError):  # nobody reads ours: the command must not wait for that
            while rest:
                try:
                    rest = rest[os.write(sys.stderr.fileno(), rest) :]
                except BlockingIOError:  # somebody shares it who does not wait
                    select.select([], [sys.stderr], [])
        return bool(data)

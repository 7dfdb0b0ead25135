"""What a command wrote to stderr last: a failure's message says so."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from typing import IO

_KEPT = 8192  # bytes
_LINES = 10
_PATIENCE = 1  # seconds to wait for the end: a program that the command left behind may hold the pipe for days
_CODES = re.compile(r"\033\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")  # for colour, mostly


class LastWords:
    """Passes on to stderr what comes through a pipe, as it comes, and remembers the end of it.

    Args:
        pipe: The command's stderr.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._kept = b""
        self._thread = threading.Thread(target=self._pass_on, daemon=True)
        self._thread.start()

    def text(self) -> str:
        """The last lines, once the command has ended; of one that was written over itself, what it shows at last."""
        self._thread.join(_PATIENCE)
        text = self._kept.decode("utf-8", "replace").replace("\r\n", "\n")
        lines = [_CODES.sub("", line.rstrip("\r").rpartition("\r")[2]).rstrip() for line in text.split("\n")]
        return "\n".join([line for line in lines if line][-_LINES:])

    def _pass_on(self) -> None:
        while data := os.read(self._pipe.fileno(), 1 << 16):
            self._kept = (self._kept + data)[-_KEPT:]
            with contextlib.suppress(OSError):  # nobody reads ours: the command must not wait for that
                os.write(sys.stderr.fileno(), data)

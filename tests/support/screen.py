"""What a person sees: the screen of a terminal, 80 columns wide, in which a command ran."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from os import PathLike

import pyte
import pytest

from tests.support.waiting import LONGEST

WIDTH, HEIGHT = 80, 60


class Screen:
    """A terminal and the command in it.

    Args:
        command: What to run.
        environ: Variables beside those of the test.
    """

    def __init__(self, *command: str | PathLike[str], **environ: str) -> None:
        self._screen = pyte.Screen(WIDTH, HEIGHT)
        self._stream = pyte.ByteStream(self._screen)
        self._own, its = os.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            command,
            env={**kept, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environ},
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
        )
        os.close(its)

    @property
    def lines(self) -> list[str]:
        """The lines that are not empty, from top to bottom."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def colours(self) -> set[str]:
        """The colours of the letters."""
        cells = (self._screen.buffer[y][x] for y in range(HEIGHT) for x in range(WIDTH))
        return {cell.fg for cell in cells if cell.data.strip()} - {"default"}

    def until(self, text: str) -> None:
        """Look until a text appears."""
        while text not in "\n".join(self.lines):
            assert self._look(), f"{text!r} never appeared: {self.lines}"

    def gone(self, text: str) -> None:
        """Look until a text is there no more."""
        while text in "\n".join(self.lines):
            assert self._look(), f"{text!r} stays: {self.lines}"

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._own, text.encode())

    def ended(self) -> int:
        """The exit code, once the command has ended."""
        while self._look():
            pass
        return self.process.wait(60)

    def close(self) -> None:
        """End the command, if it has not ended."""
        self.process.kill()
        self.process.wait()
        os.close(self._own)

    def _look(self) -> bool:
        data = b""
        if not select.select([self._own], [], [], LONGEST)[0]:
            pytest.fail(f"nothing more comes after {self.lines}")
        with contextlib.suppress(OSError):  # how Linux tells that nobody has the other end open
            data = os.read(self._own, 1 << 16)
        self._stream.feed(data)
        return bool(data)


@contextlib.contextmanager
def screen(*arguments: str | PathLike[str], **environ: str) -> Iterator[Screen]:
    """Run a command of `anymate-guard` in a terminal."""
    shown = Screen(sys.executable, "-m", "anymate_guard", *arguments, **environ)
    try:
        yield shown
    finally:
        shown.close()

"""The file to which a guarded command appends its KPIs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from anymate_guard import Run
from anymate_guard._commands.terminal import say


@contextmanager
def kpi_file(run: Run) -> Iterator[KpiFile]:
    """Have a file for the scope of a block; a full disk must not keep the command from its work."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="anymate-guard-", ignore_cleanup_errors=True))
            path = Path(folder, "kpis")
            path.touch(mode=0o600)
        except OSError as error:
            say("exec", f"the command can't report KPIs, as no temporary file can be made: {error}")
            path = Path(os.devnull)
        yield KpiFile(path, stack.enter_context(path.open("rb")), run)


class KpiFile:
    """Reads lines such as `entries=3` and `seconds_saved=12.5` as they are appended; they add up on a run.

    Args:
        path: Where the command finds it.
        file: The same, opened.
        run: Where to record.
    """

    def __init__(self, path: Path, file: BinaryIO, run: Run) -> None:
        self.path = path
        self._file = file
        self._run = run
        self._rest = b""
        self._number = 0

    def read(self, *, end: bool = False) -> None:
        """Take the lines that have come to their end since; at the end, also one that has not."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        for line in [*lines, self._rest] if end else lines:
            self._number += 1
            self._take(line)

    def _take(self, line: bytes) -> None:
        # PowerShell 5 appends in UTF-16, and some editors put a byte order mark first.
        text = line.replace(b"\0", b"").removeprefix(b"\xff\xfe").decode("utf-8-sig", "replace").strip()
        if not text:
            return
        try:
            self._record(*text.partition("="))
        except ValueError as error:
            say("exec", f"skipped line {self._number} of ANYMATE_KPI_FILE, {text[:100]!r}: {error}")

    def _record(self, name: str, _: str, value: str) -> None:
        if name.rstrip() == "entries":
            self._run.add_entries(int(value))
        elif name.rstrip() == "seconds_saved":
            self._run.add_seconds_saved(float(value))
        else:
            raise ValueError("it is neither entries=… nor seconds_saved=…")

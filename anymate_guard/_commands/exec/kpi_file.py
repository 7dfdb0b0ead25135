"""The file to which a guarded command appends its KPIs."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from anymate_guard import Kpis, Run
from anymate_guard._commands.terminal import quoted

T = TypeVar("T", int, float)

_HEADER = b"# Append lines such as entries=3 or seconds_saved=12.5 (with >>, not with >); they add up.\n"
_KEPT = 256  # bytes at the beginning of the file that show whether it is still the one that was read
_CHUNK = 1 << 20
_BATCH = 1000  # lines recorded at once
_LONGEST = 1000  # bytes of a line
_BAD_LINES_SHOWN = 20


@contextmanager
def kpi_file(run: Run, warn: Callable[[str], None]) -> Iterator[KpiFile]:
    """Have a file for the scope of a block; a full disk must not keep the command from its work."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(TemporaryDirectory(prefix="anymate-guard-", ignore_cleanup_errors=True))
            path = Path(folder, "kpis")
            path.write_bytes(_HEADER)
        except OSError as error:
            warn(f"the command can't report KPIs, as no temporary file can be made: {error}")
            path = Path(os.devnull)
        kpis = stack.enter_context(KpiFile(path, run, warn))
        kpis.read()  # the first line: when that is gone, the file was written over
        yield kpis


class KpiFile:
    """Reads lines such as `entries=3` and `seconds_saved=12.5` as they are appended; they add up on a run.

    Args:
        path: Where the command finds it.
        run: Where to record.
        warn: Tells people of a bad line.
    """

    def __init__(self, path: Path, run: Run, warn: Callable[[str], None]) -> None:
        self.path = path
        self._run = run
        self._warn = warn
        self._bad = 0
        self._told = False
        self._unreadable = False
        self._begin()

    def __enter__(self) -> KpiFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _begin(self) -> None:
        """Begin with the first line of the file that is there now."""
        self._file = self.path.open("rb", buffering=0)
        self._beginning = b""
        self._rest = b""
        self._number = 0

    def read(self) -> None:
        """Record the lines that have come to their end since; what can't be read now is tried again."""
        try:
            self._read()
        except OSError as error:
            if not self._unreadable:
                self._unreadable = True
                self._warn(f"ANYMATE_KPI_FILE can't be read, so KPIs may be missing: {error}")

    def _read(self) -> None:
        if self._is_another():
            if not self._told:
                self._told = True
                self._warn(
                    "ANYMATE_KPI_FILE was overwritten or replaced, so KPIs may be missing or counted twice: "
                    "append to it, with >> or with `anymate-guard record entries=3`"
                )
            if self.path.is_file():  # a pipe would have to wait for a writer
                old = self._file
                self._begin()
                old.close()
        while chunk := self._file.read(_CHUNK):
            self._beginning = (self._beginning + chunk[:_KEPT])[:_KEPT]
            *lines, rest = (self._rest + chunk.replace(b"\0", b"")).split(b"\n")  # PowerShell 5 appends in UTF-16
            self._rest = rest[:_LONGEST]
            self._take(lines)

    def finish(self) -> None:
        """Record what has come since, also a last line without an end."""
        self.read()
        self._take([self._rest])
        if self._bad > _BAD_LINES_SHOWN:
            self._warn(f"skipped {self._bad - _BAD_LINES_SHOWN} more lines of ANYMATE_KPI_FILE")

    def _is_another(self) -> bool:
        """Whether the file is no longer the one that was read so far."""
        try:
            now = self.path.stat()
        except FileNotFoundError:  # the command has removed it
            return False
        if not stat.S_ISREG(now.st_mode):
            return stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)  # else there was no place for one
        place = self._file.tell()
        shorter = self._file.seek(0, os.SEEK_END) < place
        self._file.seek(0)
        rewritten = self._file.read(len(self._beginning)) != self._beginning
        self._file.seek(place)
        moved = now.st_ino != os.fstat(self._file.fileno()).st_ino
        return shorter or rewritten or moved

    def _take(self, lines: Sequence[bytes]) -> None:
        for start in range(0, len(lines), _BATCH):
            batch = lines[start : start + _BATCH]
            try:
                self._run.merge(_sum(batch))
            except (ValueError, OverflowError):  # one of them is not plain, or too much: say which
                for number, line in enumerate(batch, self._number + 1):
                    self._take_one(number, line)
            self._number += len(batch)

    def _take_one(self, number: int, line: bytes) -> None:
        text = line.removeprefix(b"\xff\xfe").decode("utf-8-sig", "replace").strip()  # editors put marks first
        if not text or text.startswith("#"):
            return
        try:
            self._run.merge(kpis_of(text))
        except ValueError as error:
            self._bad += 1
            if self._bad <= _BAD_LINES_SHOWN:
                self._warn(f"skipped line {number} of ANYMATE_KPI_FILE, {quoted(text[:100])}: {error}")


def kpis_of(text: str) -> Kpis:
    """What a line such as `entries=3` or `seconds_saved=12.5` says.

    Raises:
        ValueError: It says something else, or a number that can't be recorded.
    """
    name, _, value = text.partition("=")
    if name.rstrip() == "entries":
        return Kpis(entries=_number(int, value, "a whole number"))
    if name.rstrip() == "seconds_saved":
        return Kpis(seconds_saved=_number(float, value, "a number"))
    raise ValueError("it is neither entries=… nor seconds_saved=…")


def _number(kind: Callable[[str], T], text: str, called: str) -> T:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"{quoted(text.strip()[:100])} is not {called}") from None


def _sum(lines: Sequence[bytes]) -> Kpis:
    """What plain lines add up to: a hundred times faster than one by one.

    Raises:
        ValueError: For a line that wants a closer look, or a sum that is too large.
    """
    entries, seconds = list[int](), list[float]()
    for line in lines:
        name, _, value = line.partition(b"=")
        digits = value.rstrip()
        if name == b"entries" and digits.isdigit():
            entries.append(int(digits))
        elif name == b"seconds_saved" and digits.replace(b".", b"", 1).isdigit():
            seconds.append(float(digits))
        else:
            raise ValueError
    return Kpis(sum(entries) if entries else None, math.fsum(seconds) if seconds else None)

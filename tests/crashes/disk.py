"""A disk that keeps what was fsynced, and of the rest whatever it likes: made of strace's record of what was written.

A name is on the disk once its folder was fsynced, a file's content once the file was. Of what came later, any name and
any sector may be there or not, in whatever order it was written.
"""

from __future__ import annotations

import os
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

CALLS = (
    "openat,?mkdir,mkdirat,write,pwrite64,pwritev,ftruncate,fallocate,fsync,fdatasync,msync,?unlink,unlinkat,?rename"
)
RECORDER = (
    *("strace", "--follow-forks", "--seccomp-bpf", f"--trace={CALLS},renameat,renameat2", "--timestamps=unix,us"),
    *("--decode-fds=path", "--strings-in-hex=all", "--string-limit=1000000"),
)
_SECTOR = 512  # bytes that a disk writes whole or not at all
_CALL = re.compile(r"(?P<thread>\d+) +(?P<at>[\d.]+) (?P<name>\w+)\((?P<arguments>.*)")
_RESUMED = re.compile(r"(?P<thread>\d+) +[\d.]+ <\.\.\. \w+ resumed>(?P<arguments>.*)")
_RESULT = re.compile(r"(?P<arguments>.*)\) += (?P<result>\d+)\b")
_TEXT = re.compile(r'["<]((?:\\x[0-9a-f]{2})*)[">](\(deleted\))?')


@dataclass(frozen=True)
class Event:
    """A call that changed something, or made it durable.

    Attributes:
        at: When it began, in seconds since 1970.
        before: How many others had ended by then.
        call: Its name.
        path: Which file or folder.
        data: What was written.
        number: Where it was written, or how long the file is now.
    """

    at: float
    before: int
    call: str
    path: PurePosixPath
    data: bytes = b""
    number: int = 0


def events(record: Path, folder: Path) -> Iterator[Event]:
    """What happened to a folder and what is in it, by strace's record, in the order in which it ended."""
    begun: dict[str, tuple[re.Match[str], int]] = {}
    ended = 0
    with record.open() as lines:
        for line in lines:
            if (call := _CALL.match(line)) is not None:
                before, arguments = ended, call["arguments"]
                if arguments.endswith("<unfinished ...>"):
                    begun[call["thread"]] = call, ended
                    continue
            elif (resumed := _RESUMED.match(line)) is not None:
                call, before = begun.pop(resumed["thread"])
                arguments = call["arguments"].removesuffix("<unfinished ...>") + resumed["arguments"]
            else:
                continue  # a signal, or the end of a thread
            event = _event(call, arguments, before, folder)
            if event is not None:
                ended += 1
                yield event


def _event(call: re.Match[str], arguments: str, before: int, folder: Path) -> Event | None:
    done = _RESULT.match(arguments)
    if done is None:  # it failed
        return None
    texts = [(bytes.fromhex(text.replace("\\x", "")), deleted) for text, deleted in _TEXT.findall(done["arguments"])]
    content, deleted = texts.pop(0)
    if arguments.startswith("AT_FDCWD"):
        content, deleted = texts.pop(0)
    path, name = PurePosixPath(content.decode()), call["name"].removesuffix("at")
    if deleted or not path.is_relative_to(folder) or (name == "open" and "O_CREAT" not in arguments):
        return None
    assert "O_TRUNC" not in arguments, "this disk does not know that yet"
    data = texts[0][0] if name in {"write", "pwrite64"} else b""
    number = int(done["arguments"].rpartition(", ")[2]) if name in {"pwrite64", "ftruncate"} else 0
    return Event(float(call["at"]), before, name, path, data, number)


@dataclass
class File:
    """A file: what is on the disk of it, and what was written since, by the number of the event."""

    kept: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, int, bytes | None]] = field(default_factory=list)

    def sync(self, before: int) -> None:
        """Keep what was written by the events before one."""
        for number, offset, data in self.pending:
            if number < before:
                _write(self.kept, offset, data)
        self.pending = [change for change in self.pending if change[0] >= before]

    def content(self, keeps: Callable[[], bool]) -> bytes:
        """What is in it after the power is back."""
        content = bytearray(self.kept)
        for _, offset, data in self.pending:
            for start, sector in _sectors(offset, data):
                if keeps():
                    _write(content, start, sector)
        return bytes(content)


def _sectors(offset: int, data: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if data is None:
        yield offset, None
        return
    while data:
        size = _SECTOR - offset % _SECTOR
        yield offset, data[:size]
        offset, data = offset + size, data[size:]


def _write(content: bytearray, offset: int, data: bytes | None) -> None:
    """Write at a place; without data, the file ends there."""
    content.extend(bytes(max(0, offset - len(content))))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


@dataclass
class Folder:
    """A folder: which names are on the disk, and what became of them since."""

    kept: dict[str, Node] = field(default_factory=dict)
    pending: list[tuple[int, str, Node | None]] = field(default_factory=list)

    def sync(self, before: int) -> None:
        """Keep the names as they were before an event."""
        for number, name, node in self.pending:
            if number < before:
                _name(self.kept, name, node)
        self.pending = [change for change in self.pending if change[0] >= before]

    def now(self) -> dict[str, Node]:
        """What programs see."""
        names = dict(self.kept)
        for _, name, node in self.pending:
            _name(names, name, node)
        return names

    def after(self, keeps: Callable[[], bool]) -> dict[str, Node]:
        """What is in it after the power is back: each name as it was at some time since it was last on the disk."""
        names, changes = dict(self.kept), defaultdict(list)
        for _, name, node in self.pending:
            changes[name].append(node)
        for name, nodes in changes.items():
            for node in nodes:
                if not keeps():
                    break
                _name(names, name, node)
        return names


Node = File | Folder


def _name(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


class Disk:
    """What is in a folder that was empty and on the disk when it all began.

    Args:
        folder: Where it was.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = Folder()
        self._events = 0

    def happen(self, event: Event) -> None:
        """Let the next event happen."""
        number, self._events = self._events, self._events + 1
        if event.call in {"fsync", "fdatasync"}:
            self._at(event.path).sync(event.before)
            return
        folder, name = self._at(event.path.parent), event.path.name
        assert isinstance(folder, Folder)
        node = folder.now().get(name)
        if event.call == "mkdir":
            folder.pending.append((number, name, Folder()))
        elif event.call == "unlink":
            folder.pending.append((number, name, None))
        elif event.call == "open":
            if node is None:
                folder.pending.append((number, name, File()))
        elif isinstance(node, File) and event.call in {"pwrite64", "ftruncate"}:
            node.pending.append((number, event.number, event.data if event.call == "pwrite64" else None))
        else:
            raise NotImplementedError(f"this disk does not know {event.call} of {event.path} yet")

    def _at(self, path: PurePosixPath) -> Node:
        node: Node = self._root
        for name in path.relative_to(self._folder).parts:
            assert isinstance(node, Folder)
            node = node.now()[name]
        return node

    def build(self, folder: Path, odds: float, dice: random.Random) -> None:
        """Make the folder as it is after a power cut.

        Args:
            folder: Where to make it.
            odds: How likely each thing is kept that was not made durable.
            dice: Chooses.
        """
        _build(folder, self._root, lambda: dice.random() < odds, dice)


def _build(place: Path, folder: Folder, keeps: Callable[[], bool], dice: random.Random) -> None:
    place.mkdir(mode=0o700)
    for name, node in folder.after(keeps).items():
        if isinstance(node, Folder):
            _build(place / name, node, keeps, dice)
            continue
        content = node.content(keeps)
        if name.endswith("-shm"):  # it is written by way of memory, which nobody records
            content = dice.randbytes(len(content))
        (place / name).write_bytes(content)
        (place / name).chmod(0o600)
        os.utime(place / name, (0, 0))  # long ago

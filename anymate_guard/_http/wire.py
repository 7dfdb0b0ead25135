"""Reads an answer off a socket, however slowly it drips, within the deadline of the exchange that this thread is in."""

from __future__ import annotations

import http.client
import io
import re
import threading
from typing import Any

from anymate_guard._deadline import Deadline
from anymate_guard._http.messages import Answer

MOST_BYTES = 1 << 20
_CHUNK = 16_384
_LENGTH = re.compile(rb"\r\ncontent-length:([^\r\n]*)", re.IGNORECASE)
_NUMBER = re.compile(rb"[ \t]*[0-9]{1,7}[ \t]*")
# A head without anything to think about: only lines that can be headers, and none about the connection, the way in
# which the body is sent, or another try.
_PLAIN_200 = re.compile(
    rb"HTTP/1\.1 200 [^\r\n]*"
    rb"(?:\r\n(?!transfer-encoding|connection|retry-after)[!-9;-~]+:[^\r\n]*)+\r\n\r\n",
    re.IGNORECASE,
)


class _Local(threading.local):
    """The exchange that this thread is in.

    Attributes:
        deadline: When to give up.
        timeout: Seconds for one connect or one read.
        sent: Whether the request went to the operating system, whole or in part.
    """

    deadline = Deadline(0)
    timeout = 0.0
    sent = False

    def patience(self) -> float:
        """Seconds that the next wait may take.

        Raises:
            TimeoutError: None at all.
        """
        left = self.deadline.left()
        if left <= 0:
            raise TimeoutError("the deadline is over")
        return min(self.timeout, left)


exchange = _Local()


def read(connection: Any, method: str) -> Answer:
    """Read an answer; the connection is closed where it can't be used again."""
    start = _receive(connection.sock)
    # http.client takes as long to read a head as the wire does, so it gets only those that ask for it.
    head = _PLAIN_200.match(start)
    lengths = _LENGTH.findall(start, 0, head.end()) if head else ()
    length = int(lengths[0]) if len(lengths) == 1 and _NUMBER.fullmatch(lengths[0]) else MOST_BYTES + 1
    if head is None or length > MOST_BYTES:
        return _read_any(connection, start, method)
    end = head.end() + length
    while len(start) < end:
        more = _receive(connection.sock)
        if not more:
            raise http.client.IncompleteRead(b"", end - len(start))
        start += more
    if len(start) > end:  # it says more than it was asked
        connection.close()
    return Answer(200, start[head.end() : end])


def _receive(sock: Any) -> bytes:
    sock.settimeout(exchange.patience())
    received: bytes = sock.recv(_CHUNK)
    return received


def _read_any(connection: Any, start: bytes, method: str) -> Answer:
    """Read an answer of any kind, whose beginning is here."""
    response = Response(connection.sock, method=method, start=start)
    response.begin()
    body = response.read(MOST_BYTES + 1)
    if response.will_close or len(body) > MOST_BYTES or response.length:
        connection.close()
    if len(body) > MOST_BYTES:
        return too_large(response.status)
    if response.length:
        raise http.client.IncompleteRead(body, response.length)
    return Answer(response.status, body, response.getheader("Retry-After"), response.getheader("Location"))


def too_large(status: int) -> Answer:
    """What an answer comes to that was not read to its end."""
    return Answer(error=f"HTTP {status} with an answer of more than {MOST_BYTES} bytes")


class Response(http.client.HTTPResponse):
    """An answer as http.client reads it, but within the deadline."""

    def __init__(self, sock: Any, *args: Any, start: bytes = b"", **kwargs: Any) -> None:
        super().__init__(_File(sock, start), *args, **kwargs)  # type: ignore[arg-type]  # it only calls makefile


class _File:
    """Hands http.client a file of a socket that reads through `_Reader`."""

    def __init__(self, sock: Any, start: bytes) -> None:
        self._sock = sock
        self._start = start

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002  # http.client only reads from it
        return io.BufferedReader(_Reader(self._sock, self._start))


class _Reader(io.RawIOBase):
    """Reads what was received already, and then from the socket, each time no longer than the deadline allows."""

    def __init__(self, sock: Any, start: bytes) -> None:
        self._sock = sock
        self._start = start
        self._raw = sock.makefile("rb", buffering=0)  # the socket lives until this is closed, too

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        if self._start:
            start = self._start[: len(buffer)]
            self._start = self._start[len(start) :]
            buffer[: len(start)] = start
            return len(start)
        self._sock.settimeout(exchange.patience())
        read: int | None = self._raw.readinto(buffer)
        return read

    def close(self) -> None:
        self._raw.close()
        super().close()

"""One exchange after the other on a connection: http.client writes each request and reads each answer."""

from __future__ import annotations

import contextlib
import io
import ssl
import time
from collections.abc import Mapping
from typing import Any

from anymate_guard._http.deadline_socket import Patience
from anymate_guard._http.messages import Answer
from anymate_guard._http.untouched import client
from anymate_guard._process import signals

MOST_BYTES = 1 << 20  # of a body
_MOST_RECEIVED = 2 * MOST_BYTES  # for one answer in all: interim answers, head, chunks and trailers have no end either
_LONGEST_IDLE = 60.0  # seconds; a router on the way may have forgotten the connection by then, and tells nobody


class Connection:
    """An open connection.

    Args:
        sock: What it goes over.
        patience: How long one wait on `sock` may take.
    """

    def __init__(self, sock: Any, patience: Patience) -> None:
        self.patience = patience
        self._sock = sock
        self._raw = _Raw(sock)
        self._reader = _Reader(self._raw)
        self._offered = False  # by the last answer, for another exchange
        self._idle_since = 0.0

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        """Send a request and read its answer.

        Raises:
            OSError: The connection failed, or the patience is over.
            HTTPException: The answer was cut off, can't be read or is too large.
        """
        response = self.ask(method, target, headers, body)
        try:
            content = response.read(MOST_BYTES + 1)
        except ValueError as error:  # for a chunk of less than nothing
            raise client.HTTPException(f"an answer that makes no sense: {error}") from None
        if len(content) > MOST_BYTES:
            raise client.HTTPException(f"HTTP {response.status} with an answer of more than {MOST_BYTES} bytes")
        if response.length:
            raise client.IncompleteRead(content, response.length)
        self._offered, self._idle_since = not response.will_close, time.monotonic()
        if response.will_close:
            self.close()  # not only when it is looked at again
        return Answer(response.status, content, response.getheader)

    def ask(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None = None) -> _Response:
        """Send a request and read the head of its answer."""
        request = _Writer()
        request.request(method, target, body, headers)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it hung up
            self._sock.sendall(request.written)
        self._raw.room = _MOST_RECEIVED
        response = _Response(self, method=method)  # type: ignore[arg-type]  # it only calls makefile
        response.begin()
        return response

    def makefile(self, mode: str) -> io.BufferedReader:  # noqa: ARG002  # http.client only reads from it
        """Give what http.client reads an answer from; what follows the answer stays in it."""
        return self._reader

    @property
    def expired(self) -> bool:
        """Whether it was idle for too long."""
        return time.monotonic() - self._idle_since > _LONGEST_IDLE

    def may_be_used_again(self) -> bool:
        """Whether another exchange may follow.

        The last answer offered it, that was not long ago, and nothing came since: neither more than was asked for nor
        the end.
        """
        if not self._offered or self.expired:
            return False
        self.patience.deadline = None
        try:
            self._reader.peek(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError as error:
            signals.let_pass(error)
        return False


class _Writer(client.HTTPConnection):
    """Lets http.client write a request, for it to be sent in one piece."""

    def __init__(self) -> None:
        super().__init__("unused")
        self.written = b""

    def send(self, data: Any) -> None:
        self.written += data


class _Response(client.HTTPResponse):
    """An answer as http.client reads it, and none that is interim: of those it knows 100 Continue only."""

    def begin(self) -> None:
        super().begin()
        while self.status < 200:
            self.headers: Any = None
            super().begin()


class _Raw(io.RawIOBase):
    """Reads from a socket; not more than there is room for."""

    def __init__(self, sock: Any) -> None:
        self.room = 0
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        received: int = self._sock.recv_into(buffer)
        self.room -= received
        if self.room < 0:
            raise client.HTTPException(f"an answer of more than {MOST_BYTES} bytes")
        return received


class _Reader(io.BufferedReader):
    """What the answers of one connection are read from, one after the other."""

    def close(self) -> None:
        """Stay open: http.client closes it at the end of each answer."""

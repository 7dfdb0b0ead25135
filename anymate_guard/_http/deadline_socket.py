"""The lowest socket of every connection, whose waits all end with the deadline, whatever is built on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from anymate_guard._deadline import Deadline


class Patience:
    """How long the next wait on a connection may take.

    Attributes:
        timeout: Seconds for one connect or one read.
        deadline: When to give up; None waits for nothing at all.
    """

    def __init__(self, timeout: float, deadline: Deadline | None) -> None:
        self.timeout = timeout
        self.deadline = deadline

    def seconds(self, waits: int = 1) -> float:
        """Seconds that the next wait may take, if so many are to come.

        Raises:
            TimeoutError: The deadline is over.
        """
        if self.deadline is None:
            return 0.0
        left = self.deadline.left()
        if left <= 0:
            raise TimeoutError("the deadline is over")
        return min(self.timeout, left / waits)


class DeadlineSocket:
    """A connected socket, each of whose waits is bounded.

    It holds a socket instead of being one, as gevent and test tools put other classes in the place of Python's.

    Args:
        sock: What to read from and to write to.
        patience: How long one wait may take; it is asked again before each.
    """

    # A client may be forgotten. In a cycle of garbage its sockets might end first, and Python would warn of them.
    _open: ClassVar[set[Any]] = set()

    def __init__(self, sock: Any, patience: Patience) -> None:
        self._sock = sock
        self._patience = patience
        self._sends_lists = hasattr(sock, "sendmsg")  # Windows' and those with TLS do not
        self._bound: float | None = None  # seconds that it was told; each time costs a system call
        self._open.add(sock)

    def secure(self, wrap: Callable[[Any], Any]) -> None:
        """Put TLS over it; one wait is enough for the whole handshake.

        Raises:
            RuntimeError: There is no TLS over it: a test tool makes it up, such as httpretty.
        """
        self._bind()
        plain, self._sock = self._sock, wrap(self._sock)
        self._open.add(self._sock)
        self._open.discard(plain)
        self._sends_lists = False
        if not hasattr(self._sock, "cipher"):
            raise RuntimeError("this connection is not encrypted: what a test tool gives for TLS is none")

    def recv(self, size: int) -> bytes:
        """Receive up to that many bytes; none at the end."""
        self._bind()
        received: bytes = self._sock.recv(size)
        return received

    def recv_into(self, buffer: memoryview) -> int:
        """Receive into a buffer, and tell how many bytes; 0 at the end."""
        self._bind()
        received: int = self._sock.recv_into(buffer)
        return received

    def send(self, data: bytes | memoryview) -> int:
        """Send what can be sent at once, and tell how many bytes that was."""
        self._bind()
        # Of what is sent so, httpretty takes nothing away, be it a secret, for an answer that it makes up.
        sent: int = self._sock.sendmsg([data]) if self._sends_lists else self._sock.send(data)
        return sent

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        left = memoryview(data)
        while left:
            left = left[self.send(left) :]

    def _bind(self) -> None:
        """Bound the next wait."""
        seconds = self._patience.seconds()
        if seconds != self._bound:
            self._sock.settimeout(seconds)
            self._bound = seconds

    def close(self) -> None:
        """Close it."""
        self._sock.close()
        self._open.discard(self._sock)

    def __del__(self) -> None:
        self.close()

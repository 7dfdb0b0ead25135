"""What is sent to a server, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # a compressed answer could be any size once unpacked
    "Cache-Control": "no-cache",
    "User-Agent": "anymate-guard",
}


@dataclass(eq=False, slots=True)
class Request:
    """What to send; its text form shows neither headers nor body, as they hold secrets.

    Attributes:
        method: "GET" or "POST".
        base: The server's address.
        path: What follows it, percent-encoded, from the slash on.
        body: Request body.
        headers: Request headers.
    """

    method: str
    base: str
    path: str
    body: bytes | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=lambda: _HEADERS, repr=False)

    def having(self, header: str, value: str) -> Request:
        """The request with this header, too."""
        headers = {**self.headers, header: value}
        return Request(self.method, self.base, self.path, self.body, headers)  # replace takes longer


@dataclass(eq=False)
class Answer:
    """What came back.

    Attributes:
        status: HTTP status; 0 when there was no whole answer.
        body: The answer's body; not shown, as a server may echo what it was sent.
        header: Gives a header by its name, None if it is missing.
        error: Why there is no whole answer; it may quote the server.
        maybe_sent: Whether the request may have reached the server.
        final: Whether another try would come to the same.
    """

    status: int = 0
    body: bytes = field(default=b"", repr=False)
    header: Callable[[str], str | None] = field(default=lambda _: None, repr=False)
    error: str = field(default="", repr=False)
    maybe_sent: bool = True
    final: bool = False

"""The sandbox that tests share."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from anymate_guard.sandbox import Sandbox


class KeepsItsPort(Sandbox):
    """A sandbox whose port stays its own while it is closed, or that of a test in another process may serve there."""

    def __init__(self) -> None:
        """Have a sandbox on any port."""
        super().__init__()
        self._keeper: socket.socket | None = None

    def start(self) -> Sandbox:
        """Serve on the port."""
        self.give_up_port()
        return super().start()

    def close(self) -> None:
        """Refuse connections."""
        super().close()
        self.give_up_port()
        self._keeper = keeper = socket.socket()
        if os.name == "posix":  # there may be ends of old connections
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind((urlsplit(self.url).hostname, urlsplit(self.url).port))  # and it does not listen

    def give_up_port(self) -> None:
        """Let anybody have the port."""
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None

"""`anymate-guard sandbox`: serve a local Anymate until somebody stops it."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import sys
import time

from anymate_guard._commands.terminal import say


def sandbox(port: int) -> int:
    """Serve, and print the settings that point a bot there.

    Args:
        port: Where; 0 takes a free port.

    Returns:
        The exit code.
    """
    if not installed():
        return 2
    from anymate_guard.sandbox import Sandbox

    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server = Sandbox(port).start()
        except OSError as error:
            say("sandbox", f"can't serve on port {port}: {error.strerror}; take another")
            return 2
        with contextlib.closing(server):
            for name, value in server.environ.items():
                print(f"export {name}='{value}'")
            sys.stdout.flush()
            say("sandbox", f"serves a local Anymate on {server.url} until Ctrl-C or SIGTERM")
            while True:
                time.sleep(3600)
    return 0


def installed() -> bool:
    """Whether the extra `sandbox` is installed; if not, says on stderr how to."""
    found = importlib.util.find_spec("werkzeug") is not None
    if not found:
        say("sandbox", "it is an extra that is not installed: pip install 'anymate_guard[sandbox]'")
    return found

"""A sandbox in a process of its own, for a command that needs one.

It ends when the other end of its standard input is closed, which the operating system does for a parent that
was killed.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO, cast


@contextlib.contextmanager
def private_sandbox() -> Iterator[dict[str, str]]:
    """Serve a sandbox on a free port for the scope of a block.

    Yields:
        The environment variables that point a bot there.
    """
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield json.loads(cast("IO[str]", process.stdout).readline())


def _serve() -> None:
    from anymate_guard.sandbox import Sandbox

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the parent, which has a run to finish
    with Sandbox() as sandbox:
        print(json.dumps(sandbox.environ), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _serve()

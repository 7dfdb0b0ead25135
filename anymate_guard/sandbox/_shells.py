"""The lines that set environment variables, for each shell that a bot may be started from."""

from __future__ import annotations

import sys
from collections.abc import Mapping

POSIX = {"Linux and macOS": "export {}='{}'"}  # bash, zsh, sh, and fish, which has a function of that name
WINDOWS = {"PowerShell": '$env:{} = "{}"', "Command Prompt": "set {}={}"}


def shell_lines(environ: Mapping[str, str], platform: str = sys.platform) -> dict[str, str]:
    """Return the lines to paste that set some variables, by the name of the shell.

    Args:
        environ: The variables, with values that no shell reads anything into, as `Sandbox.environ` has them.
        platform: For which system, as in `sys.platform`.
    """
    shells = WINDOWS if platform == "win32" else POSIX
    return {shell: "\n".join(line.format(*item) for item in environ.items()) for shell, line in shells.items()}

"""The command line: `anymate-guard`, or `python -m anymate_guard`.

Each command is a module of its own in `_commands`, imported when it runs: none waits for what another needs.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from anymate_guard.errors import ConfigurationError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: What follows the program's name; None takes it from the command line.

    Returns:
        The exit code; 2 for wrong words or settings, unless the command has one of its own for that.
    """
    if not (sys.stdout and sys.stderr):  # as some schedulers start programs
        nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # until the program ends
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an old console can't show every name
    from anymate_guard._commands.arguments import parse

    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        code: int = options.run(options)
        print(end="", flush=True)
    except KeyboardInterrupt:
        return 130
    except ConfigurationError as error:
        from anymate_guard._commands.terminal import say

        say(options.name, str(error))
        return 2
    except OSError as error:
        if not _reader_left(error):
            from anymate_guard._commands.terminal import say

            say(options.name, str(error))
        # The interpreter flushes again at its end, which must not fail too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _reader_left(error: OSError) -> bool:
    """Whether the reader of our output, such as `head`, has gone."""
    if sys.platform == "win32":
        return isinstance(error, BrokenPipeError) or error.errno == errno.EINVAL
    return isinstance(error, BrokenPipeError)


if __name__ == "__main__":
    sys.exit(main())

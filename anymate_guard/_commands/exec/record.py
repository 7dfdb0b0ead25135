"""`anymate-guard record`: add to the KPIs of the run that `anymate-guard exec` guards, from any shell."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from anymate_guard._commands.exec.kpi_file import kpis_of
from anymate_guard._commands.terminal import quoted, say


def record(words: Sequence[str]) -> int:
    """Append to the KPI file: all that is given, or nothing.

    Args:
        words: Such as `entries=3` and `seconds_saved=12.5`.

    Returns:
        The exit code: 0 if they were written, 2 if one of them can't be recorded or there is no KPI file.
    """
    path = os.environ.get("ANYMATE_KPI_FILE")
    if not path:
        say("record", "ANYMATE_KPI_FILE is not set: use it in a command that `anymate-guard exec` runs")
        return 2
    try:
        lines = map(_line, words)
        text = "\n" + "".join(lines)  # a line without an end may stand before
        with Path(path).open("ab") as file:
            file.write(text.encode())
    except ValueError as error:
        say("record", str(error))
        return 2
    except OSError as error:
        say("record", f"can't append to {quoted(path)}: {error.strerror}")
        return 2
    return 0


def _line(word: str) -> str:
    try:
        kpis_of(word)
    except ValueError as error:
        raise ValueError(f"can't record {quoted(word)}: {error}") from None
    return f"{word}\n"

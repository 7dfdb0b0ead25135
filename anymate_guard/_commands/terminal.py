"""What a command writes for people: lines on stderr, quoted text, colour where it can be seen."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "bright red": "91"}
_PLAIN = {"✓": "ok", "!": "!", "✗": "WRONG", "–": "-", "█": "#", "░": ".", "…": "..."}


def say(command: str, text: str) -> None:
    """Write to stderr; one that can't be written must not end a command that has work to finish."""
    with contextlib.suppress(OSError):
        lines = fitted(f"anymate-guard {command}: {text}", sys.stderr)
        print(f"{lines}\n", end="", file=sys.stderr, flush=True)  # in one piece, as an access log may write beside it


def fitted(text: str, stream: TextIO, indent: str = "") -> str:
    """Text with this indent, and on a terminal broken between words, the rest of a line indented by four more."""
    if not stream.isatty():
        return textwrap.indent(text, indent)
    wrapper = textwrap.TextWrapper(
        width=shutil.get_terminal_size().columns,
        initial_indent=indent,
        subsequent_indent=f"{indent}    ",
        break_long_words=False,  # a path that is copied is to be whole
        break_on_hyphens=False,
    )
    return "\n".join(map(wrapper.fill, text.splitlines()))


def quoted(text: object) -> str:
    r"""Text in quotes, on one line; a path of Windows keeps its single `\`."""
    return repr(str(text)).replace("\\\\", "\\")


def sign(character: str) -> str:
    """A character that says something, or plain letters for it on an old console."""
    try:
        character.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return _PLAIN[character]
    return character


class Paint:
    """Colours the text for a stream, if that is a terminal and `NO_COLOR` does not forbid it.

    These few codes are all we need of rich, which is a hundred times our size, and which structlog imports wherever it
    is installed: that would cost each bot a tenth of a second.

    Args:
        stream: Where the text will go.
    """

    def __init__(self, stream: TextIO) -> None:
        self.terminal = stream.isatty()
        wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.coloured = self.terminal and wanted and _understands_codes(stream)

    def __call__(self, text: str, *styles: str) -> str:
        """The text in these styles, such as "bold" and "red"."""
        if not (self.coloured and text and styles):
            return text
        return f"\033[{';'.join(_CODES[style] for style in styles)}m{text}\033[0m"


def _understands_codes(stream: TextIO) -> bool:
    """Whether a terminal obeys codes for colour; an older console of Windows has to be told to."""
    if sys.platform == "win32":
        import ctypes
        import msvcrt

        kernel, mode = ctypes.windll.kernel32, ctypes.c_ulong()
        handle = msvcrt.get_osfhandle(stream.fileno())
        if not kernel.GetConsoleMode(handle, ctypes.byref(mode)):
            return False
        return bool(kernel.SetConsoleMode(handle, mode.value | 4))  # ENABLE_VIRTUAL_TERMINAL_PROCESSING
    return True

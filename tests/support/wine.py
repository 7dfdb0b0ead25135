"""Whether Windows is Wine, which gets a few things wrong that plain Python shows, too."""

from __future__ import annotations

import ctypes
import sys

import pytest

WINE = sys.platform == "win32" and hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")

hides_resets = pytest.mark.skipif(WINE, reason="in Wine 8 recv of a plain socket with a timeout gives b'' for a reset")
wakes_nobody = pytest.mark.skipif(
    WINE, reason="in Wine 8 shutdown of a plain socket does not end another thread's recv"
)

"""Which interpreter this is: locks and signals belong to the process, so that only the main one can guard."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = ("_interpreters", "_xxsubinterpreters")  # from 3.13 on; before


def _is_main() -> bool:
    for name in _MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return bool(_number(module.get_current()) == _number(module.get_main()))
    return True  # one that has no others


def _number(interpreter: Any) -> int:
    return int(interpreter[0] if isinstance(interpreter, tuple) else interpreter)


_main = _is_main()


def check_interpreter() -> None:
    """Raise RuntimeError in a sub-interpreter."""
    if not _main:
        raise RuntimeError(
            "anymate_run was entered in a sub-interpreter, which can neither hold locks nor handle signals of its own: "
            "hold the guard in the main interpreter, and return Kpis from the others"
        )
